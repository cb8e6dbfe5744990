"""The side-by-side benchmark: ``python -m bench``. See docs/performance.md."""
