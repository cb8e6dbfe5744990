"""Parquet and Arrow files: batch by batch, with the types they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..sources import RowSource
from .problems import reading


def read_parquet(path: Path) -> RowSource:
    """The rows of a parquet file, in the types of its stored Arrow schema."""
    with reading(path, "parquet", pa.ArrowException), pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows

    def batches() -> Iterator[pa.RecordBatch]:
        with reading(path, "parquet", pa.ArrowException), pq.ParquetFile(path) as file:
            yield from file.iter_batches()

    return RowSource(schema, batches, rows)


def read_arrow(path: Path) -> RowSource:
    """The rows of an Arrow file (Feather version 2 is one), or of an Arrow stream in a file."""
    with reading(path, "arrow", pa.ArrowException), _open(path) as file:
        schema = file.schema

    def batches() -> Iterator[pa.RecordBatch]:
        with reading(path, "arrow", pa.ArrowException), _open(path) as file:
            if isinstance(file, pa.RecordBatchFileReader):
                yield from map(file.get_batch, range(file.num_record_batches))
            else:
                yield from file

    return RowSource(schema, batches)


def _open(path: Path) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)
