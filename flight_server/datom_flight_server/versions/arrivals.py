"""Batches of a table as they arrive: checked one by one, counted against the limits, cut and joined to a handy size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from datom_flight.protocol.errors import DatomError, InvalidRequestError

from .stored_form import StoredForm, batch_bytes

MAX_ROW_BYTES = 256 * 1024 * 1024
"""Of one row."""

_BATCH_ROWS = 64 * 1024
_BATCH_BYTES = 16 * 1024 * 1024
_BATCH_BYTES_PER_COLUMN = 64 * 1024
_MAX_BATCH_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one table.

    Attributes:
        max_bytes: of values as Arrow holds them.
        max_seconds: from the first batch to the end of hashing and encoding.
    """

    max_bytes: int
    max_rows: int
    max_seconds: float


class Deadline:
    """When a table has to be done."""

    def __init__(self, max_seconds: float, clock: Callable[[], float]) -> None:
        self._max_seconds = max_seconds
        self._clock = clock
        self._ends = clock() + max_seconds

    def check(self) -> None:
        """Return while there is time left."""
        if self._clock() > self._ends:
            raise DatomError.of(
                "timeout",
                f"the write takes over {self._max_seconds:g} seconds",
                hint="send it faster, or in parts",
                fields={"limit": "writes.max_seconds", "value": self._max_seconds},
            )


class Arrivals:
    """The batches of one table, checked and counted as they come.

    Attributes:
        rows, bytes: of all that came so far.
    """

    def __init__(self, limits: Limits, deadline: Deadline) -> None:
        self.rows = 0
        self.bytes = 0
        self._limits = limits
        self._deadline = deadline

    def batches(
        self, schema: pa.Schema, form: StoredForm, batches: Iterable[pa.RecordBatch]
    ) -> Iterator[pa.RecordBatch]:
        """`batches`, of `schema` and not to be trusted, in the flat stored form and worth reading one by one.

        Raises:
            DatomError: ``invalid_argument`` (malformed, or of another schema), ``too_large``, ``timeout``.
        """
        most = _batch_bytes(len(schema))
        pending: list[pa.RecordBatch] = []
        rows = size = 0
        for piece, bytes_ in self._pieces(schema, form, batches, most):
            if pending and (rows + piece.num_rows > _BATCH_ROWS or size + bytes_ > most):
                yield _joined(pending)
                pending, rows, size = [], 0, 0
            pending.append(piece)
            rows += piece.num_rows
            size += bytes_
        if pending:
            yield _joined(pending)

    def _pieces(
        self, schema: pa.Schema, form: StoredForm, batches: Iterable[pa.RecordBatch], most: int
    ) -> Iterator[tuple[pa.RecordBatch, int]]:
        """The batches in the flat stored form, cut small, each with its bytes."""
        for batch in batches:
            self._deadline.check()
            _check_batch(batch, schema)
            self._count(batch.num_rows, 0)
            for piece, size in _cut(batch, most):
                self._count(0, size)
                yield form.flat(piece), size

    def _count(self, rows: int, bytes_: int) -> None:
        self.rows += rows
        self.bytes += bytes_
        for name, value, limit in (
            ("rows", self.rows, self._limits.max_rows),
            ("bytes", self.bytes, self._limits.max_bytes),
        ):
            if value > limit:
                raise InvalidRequestError(
                    f"the table has more than {limit} {name}",
                    code="too_large",
                    hint="split it, or ask whoever runs the server for a higher limit",
                    fields={"limit": f"writes.max_{name}", "value": limit},
                )


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _check_batch(batch: pa.RecordBatch, schema: pa.Schema) -> None:
    if not batch.schema.equals(schema):
        raise InvalidRequestError("a batch has another schema than the stream began with")
    try:
        batch.validate(full=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidRequestError(f"a batch is malformed: {str(error).splitlines()[0][:200]}") from None


def _batch_bytes(columns: int) -> int:
    # every batch says something of every column, so one of many columns has to be worth it
    return min(_MAX_BATCH_BYTES, max(_BATCH_BYTES, columns * _BATCH_BYTES_PER_COLUMN))


def _cut(batch: pa.RecordBatch, most: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """`batch` in slices of at most `most` bytes or one row, each with its bytes; nothing is copied."""
    for start in range(0, batch.num_rows, _BATCH_ROWS):
        yield from _halved(batch.slice(start, _BATCH_ROWS), most)


def _halved(batch: pa.RecordBatch, most: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    size = batch_bytes(batch)
    if size > most and batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _halved(batch.slice(0, half), most)
        yield from _halved(batch.slice(half), most)
        return
    if size > MAX_ROW_BYTES and batch.num_rows == 1:
        raise InvalidRequestError(
            f"a row takes up {size} bytes, more than {MAX_ROW_BYTES}",
            code="too_large",
            hint="store values of this size elsewhere, and their names here",
            fields={"limit": "row_bytes", "value": MAX_ROW_BYTES},
        )
    yield batch, size
