"""The Arrow Flight service: the only importer of pyarrow.flight in the server."""
