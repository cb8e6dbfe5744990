"""SQL over tables: expressions today."""
