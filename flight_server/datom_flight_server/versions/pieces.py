"""Rows that were decoded together, and how they are cut to the batches of a stream."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import acero

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Of IPC, for a batch of more than one row."""

_AIM = 0.95
"""Of `MAX_BATCH_BYTES`: slices of equal length are not of quite the same size."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows on end, in one batch.

    Attributes:
        rows: of any size.
        cuts: where they are cut for a stream: the rows of each of its batches.
    """

    rows: pa.RecordBatch
    cuts: tuple[int, ...]

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """The piece that `rows` are, measured once, so that no stream has to."""
        return cls(rows, tuple(batch.num_rows for batch in cut(rows)))

    def run(self) -> list[pa.RecordBatch]:
        """All rows with all columns, as batches of a stream, which share their dictionaries. Nothing is copied."""
        if len(self.cuts) == 1:
            return [self.rows]
        batches, start = [], 0
        for length in self.cuts:
            batches.append(self.rows.slice(start, length))
            start += length
        return batches

    def mask(self, predicate: pc.Expression, columns: Sequence[str]) -> pa.BooleanArray:
        """Where `predicate`, which reads `columns` alone, is true; raises `pa.ArrowException` as computing it does."""
        # without any column the number of rows would be lost
        read = self.rows.select(columns or self.rows.schema.names[:1])
        source = acero.TableSourceNodeOptions(pa.Table.from_batches([read]))
        project = acero.ProjectNodeOptions([predicate], ["keep"])
        plan = [acero.Declaration("table_source", source), acero.Declaration("project", project)]
        # in one thread it goes through a few ten thousand rows at a time, whatever they take on the way
        computed = acero.Declaration.from_sequence(plan).to_table(use_threads=False).column(0)
        return computed.combine_chunks().cast(pa.bool_())


def cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """`batch` in slices that keep to `MAX_BATCH_BYTES`; no slice has no rows, nothing is copied."""
    if batch.num_rows == 0:
        return
    size = pa.ipc.get_record_batch_size(batch)
    if batch.num_rows == 1 or size <= MAX_BATCH_BYTES:
        yield batch
        return
    rows = math.ceil(batch.num_rows / math.ceil(size / (_AIM * MAX_BATCH_BYTES)))
    for start in range(0, batch.num_rows, rows):
        yield from cut(batch.slice(start, rows))
