"""Objects by key, on a local folder or S3."""
