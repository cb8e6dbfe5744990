"""Flight SQL: what the drivers of DuckDB, ADBC, JDBC and BI tools send, answered over the same versions as all else."""
