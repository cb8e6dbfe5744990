"""datom-flight's client: pinned, verified clinical tables over Arrow Flight."""
