"""Rows on their way: batches, then the end record; counted, and stopped when the server stops."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa

from datom_flight.protocol.errors import UnavailableError
from datom_flight.protocol.messages import EndRecord

from ..calls import Call
from ..versions.tables import Selection, StoredTable


class Streams:
    """The streams that run now."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._draining = False
        self._cut = False

    @property
    def draining(self) -> bool:
        """Whether new streams are refused."""
        return self._draining

    @property
    def open(self) -> int:
        """How many run now."""
        return self._running

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around one stream.

        Raises:
            UnavailableError: ``unavailable`` once the server is stopping.
        """
        with self._changed:
            if self._draining:
                raise UnavailableError("the server is stopping")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def check(self) -> None:
        """Between two batches: raise when streams are being cut."""
        if self._cut:
            raise UnavailableError("the server stopped before the stream ended")

    def drain(self, grace_seconds: float) -> bool:
        """Refuse new streams and wait for those that run; whether all ended within `grace_seconds`. The rest is cut."""
        with self._changed:
            self._draining = True
            ended = self._changed.wait_for(lambda: self._running == 0, grace_seconds)
            self._cut = True
            return ended


def table_stream(table: StoredTable, selection: Selection, streams: Streams, call: Call) -> Generator[Any, None, None]:
    """What a `GeneratorStream` sends for `selection`: its batches, then the empty batch with the end record.

    Closes `table` when it ends, however it ends. Its rows are counted for `call`.
    """
    schema = table.schema_of(selection.columns)
    with table, closing(table.runs(selection)) as runs:
        yield from _stream(schema, runs, streams, call, table.version.version, table.version.data_sha)


def row_stream(
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    streams: Streams,
    call: Call,
) -> Generator[Any, None, None]:
    """What a `GeneratorStream` sends for these `batches`, which are of no one version, and their end record."""
    return _stream(schema, ([batch] for batch in batches), streams, call, None, "")


def _stream(
    schema: pa.Schema,
    runs: Iterable[list[pa.RecordBatch]],
    streams: Streams,
    call: Call,
    version: str | None,
    data_sha: str,
) -> Generator[Any, None, None]:
    last = None
    with streams.running():
        for run in runs:
            streams.check()
            _count(call, run)
            # a reader is sent without the interpreter's lock, and with the dictionaries of its first batch; a plain
            # batch goes out without any
            yield pa.RecordBatchReader.from_batches(run[0].schema, run)
            last = run[-1].slice(0, 0)
        if last is None:
            last = pa.record_batch([pa.nulls(0, field.type) for field in schema], schema=schema)
            if any(_holds_dictionary(field.type) for field in schema):
                yield pa.RecordBatchReader.from_batches(schema, [last])
        # of the last batch, so that its dictionaries stay the ones last sent
        yield last, EndRecord(call.rows, version, data_sha).to_json()


def _count(call: Call, run: list[pa.RecordBatch]) -> None:
    # measuring a batch takes its time when it has many columns; those of a run are much alike
    rows = sum(batch.num_rows for batch in run)
    size = pa.ipc.get_record_batch_size(run[0]) * rows // max(1, run[0].num_rows)
    call.count(rows, size)


def _holds_dictionary(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return True
    return any(_holds_dictionary(type_.field(index).type) for index in range(type_.num_fields))
