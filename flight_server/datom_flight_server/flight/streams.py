"""Rows on their way: batches, then the end record."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa

from datom_flight.protocol.messages import EndRecord

from ..versions.tables import Selection, StoredTable
from .admission import Stream


def table_stream(table: StoredTable, selection: Selection, stream: Stream) -> Generator[Any, None, None]:
    """What a `GeneratorStream` sends for `selection`: its batches, then the empty batch with the end record.

    Closes `table` when it ends, however it ends.
    """
    schema = table.schema_of(selection.columns)
    with table, closing(table.runs(selection)) as runs:
        yield from _rows(schema, runs, stream, table.version.version, table.version.data_sha)


def row_stream(
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    stream: Stream,
) -> Generator[Any, None, None]:
    """What a `GeneratorStream` sends for these `batches`, which are of no one version, and their end record."""
    return _rows(schema, ([batch] for batch in batches), stream, None, "")


def _rows(
    schema: pa.Schema,
    runs: Iterable[list[pa.RecordBatch]],
    stream: Stream,
    version: str | None,
    data_sha: str,
) -> Generator[Any, None, None]:
    last = None
    with stream:
        for run in runs:
            stream.give(*_measure(run))
            # a reader is sent without the interpreter's lock, and with the dictionaries of its first batch; a plain
            # batch goes out without any
            yield pa.RecordBatchReader.from_batches(schema, run)
            stream.check()
            last = run[-1].slice(0, 0)
        if last is None:
            last = pa.record_batch([pa.nulls(0, field.type) for field in schema], schema=schema)
            if any(_holds_dictionary(field.type) for field in schema):
                yield pa.RecordBatchReader.from_batches(schema, [last])
        stream.wait()
        # of the last batch, so that its dictionaries stay the ones last sent
        yield last, EndRecord(stream.caller.call.rows, version, data_sha).to_json()


def _measure(run: list[pa.RecordBatch]) -> tuple[int, int]:
    # measuring a batch takes its time when it has many columns; those of a run are much alike
    rows = sum(batch.num_rows for batch in run)
    return rows, pa.ipc.get_record_batch_size(run[0]) * rows // max(1, run[0].num_rows)


def _holds_dictionary(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return True
    return any(_holds_dictionary(type_.field(index).type) for index in range(type_.num_fields))
