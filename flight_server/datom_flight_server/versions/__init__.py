"""The domain: which version a request names, and its verified rows."""
