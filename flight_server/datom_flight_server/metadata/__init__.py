"""The storage format's documents: where they are and what they say."""
