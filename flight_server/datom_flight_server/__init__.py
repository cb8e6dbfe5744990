"""The datom-flight server: pinned, verified tables over Arrow Flight."""
