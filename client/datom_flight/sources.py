"""Rows to be written, whatever they come in: their schema, and batches small enough to travel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

import pyarrow as pa

from .protocol.errors import InvalidRequestError

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""How large a batch of more than one row may be on the wire."""

KEPT_BYTES = 16 * 1024 * 1024
"""How much of a stream is kept to be sent again, should the server refuse it at the start."""

_PIECE_ROWS = 64 * 1024
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


class RowSource:
    """Rows that can be gone through from the first one: again and again, unless they come from a stream.

    Args:
        schema: of the rows.
        open: gives the rows from the first one, in batches of any size.
        rows: how many there are, where that is known.
    """

    def __init__(
        self, schema: pa.Schema, open: Callable[[], Iterable[pa.RecordBatch]], rows: int | None = None
    ) -> None:
        self.schema = pa.schema([field.with_type(_plain(field.type)) for field in schema], schema.metadata)
        self.rows = rows
        self._cast = self.schema.types != schema.types
        self._open = open

    @classmethod
    def of(cls, data: object) -> RowSource:
        """The rows of a table, a record batch, a reader, or of anything with ``__arrow_c_stream__``.

        Raises:
            InvalidRequestError: ``invalid_argument``: it is none of them, or a data frame with an index but no name
                for it.
        """
        if isinstance(data, cls):
            return data
        if isinstance(data, pa.RecordBatch):
            data = pa.Table.from_batches([data])
        if isinstance(data, pa.Table):
            return cls(_indexless(data.schema), data.to_batches, data.num_rows)
        reader = _reader(data)
        schema = _indexless(reader.schema)
        # What knows its length holds its rows and can be asked for them again; a stream gives them once.
        if isinstance(data, Sized):
            return cls(schema, lambda: _reader(data))
        return cls(schema, _Once(reader))

    @property
    def repeatable(self) -> bool:
        """Whether `batches` can still be called, once more."""
        return not isinstance(self._open, _Once) or self._open.whole

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows from the first one, in types that can be sliced without dragging the whole along."""
        for batch in self._open():
            if not self._cast:
                yield from _cut(batch)
                continue
            for start in range(0, batch.num_rows, _PIECE_ROWS):
                yield from _cut(batch.slice(start, _PIECE_ROWS).cast(self.schema))


class _Once:
    """A stream's batches, the first of them kept so that they can be given once more."""

    def __init__(self, stream: Iterable[pa.RecordBatch]) -> None:
        self._stream = iter(stream)
        self._kept: list[pa.RecordBatch] = []
        self._kept_bytes = 0
        self.whole = True

    def __call__(self) -> Iterator[pa.RecordBatch]:
        yield from [*self._kept]
        for batch in self._stream:
            self._kept_bytes += batch.nbytes
            self.whole = self._kept_bytes <= KEPT_BYTES
            self._kept = [*self._kept, batch] if self.whole else []
            yield batch


def _reader(data: Any) -> pa.RecordBatchReader:
    if isinstance(data, pa.RecordBatchReader):
        return data
    try:
        return pa.RecordBatchReader.from_stream(data)
    except (TypeError, pa.ArrowException):
        kind = type(data).__name__
    raise InvalidRequestError(
        f'data of type "{kind}" is not a table',
        hint="give a pyarrow Table or RecordBatchReader, or a data frame of pandas or polars",
    )


def _indexless(schema: pa.Schema) -> pa.Schema:
    if b"pandas" in (schema.metadata or {}) and any(map(_UNNAMED_INDEX.fullmatch, schema.names)):
        raise InvalidRequestError(
            "the data frame has an index without a name, which would become a column",
            hint="df.reset_index(drop=True) leaves it out; df.rename_axis(NAME) keeps it as a column",
        )
    return schema


def _plain(kind: pa.DataType) -> pa.DataType:
    """`kind`, views of text as plain text: a slice of views carries every text of the whole."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _plain(kind.value_type), kind.ordered)
    return kind


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    size = pa.ipc.get_record_batch_size(batch)
    if size <= MAX_BATCH_BYTES or batch.num_rows <= 1:
        if batch.num_rows:
            yield batch
        return
    rows = min(max(batch.num_rows * MAX_BATCH_BYTES // size, 1), batch.num_rows - 1)
    for start in range(0, batch.num_rows, rows):
        yield from _cut(batch.slice(start, rows))
