"""A small organisation with a study in it, to try things on: synthetic data, stored exactly in the format."""
