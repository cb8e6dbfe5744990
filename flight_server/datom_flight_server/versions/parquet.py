"""A verified parquet object: what its footer says, and its row groups as Arrow, decoded or remembered."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from .chunks import Chunks, TooLargeError
from .decoder import Batches, RowGroup
from .payloads import Payload
from .pieces import Piece

Columns = tuple[str, ...]
Pieces = Generator[Piece, None, None]

_CHUNK_BYTES = 15 * 1024 * 1024
"""Decoded at a time where the whole row group is to stay; a little less than four batches of a stream."""
_STEP_BYTES = 6 * 1024 * 1024
"""Decoded at a time otherwise."""
_SAMPLE_ROWS = 1024
_SAMPLED_SELECTIONS = 100
_UNBUFFERED_BYTES = 32 * 1024 * 1024
_READ_BUFFER_BYTES = 64 * 1024 * 1024
_MAX_COLUMN_BUFFER_BYTES = 1024 * 1024
_MIN_COLUMN_BUFFER_BYTES = 16 * 1024
_FOOTER_FACTOR = 8
"""A parsed footer's memory as a multiple of its stored size, rounded up."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What is known of a parquet object.

    Attributes:
        schema: as stored.
        group_rows, group_bytes: of each row group; bytes before compression.
        size_bytes: of the object.
        row_bytes: of a decoded row of some columns, as a sample has it; None is all columns.
        oversized: row groups that turned out to be more than there is room for.
    """

    metadata: pq.FileMetaData
    schema: pa.Schema
    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]
    size_bytes: int
    row_bytes: dict[Columns | None, float] = field(default_factory=dict)
    oversized: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, file: pa.NativeFile) -> Footer:
        """That of an open parquet file; raises `pa.ArrowException` or OSError where it is none."""
        metadata = pq.read_metadata(file)
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        return cls(
            metadata=metadata,
            schema=metadata.schema.to_arrow_schema(),
            group_rows=tuple(group.num_rows for group in groups),
            group_bytes=tuple(group.total_byte_size for group in groups),
            size_bytes=file.size(),
        )


class ParquetObject:
    """The parquet object that `payload` is; opened when something is asked for that is not in memory.

    Every method raises DatomError as `Payload.open` does, and `pa.ArrowException` or OSError where the object is not
    parquet, or not throughout.
    """

    def __init__(self, payload: Payload) -> None:
        self._decoder = payload.payloads.decoder
        self._content = payload.path
        self._payload = payload
        self._file = _File(payload)
        self.footer = self._footer()

    def close(self) -> None:
        """Let go of the file; rows on their way still come."""
        self._file = _File(self._payload)

    def _footer(self) -> Footer:
        key = (self._content, "footer")
        footer: Footer | None = self._decoder.memory.get(key)
        if footer is None:
            footer = Footer.of(self._file.open())
            self._decoder.memory.keep(key, footer, footer.metadata.serialized_size * _FOOTER_FACTOR)
        return footer

    def matching(self, groups: Sequence[int], predicate: pc.Expression) -> list[int]:
        """Those of the row groups whose statistics leave room for a row for which `predicate` is true."""
        if not groups:
            return []
        fragment = ds.ParquetFileFormat().make_fragment(self._file.open(), row_groups=list(groups))
        return [group.id for group in fragment.subset(predicate, schema=self.footer.schema).row_groups]

    def has(self, group: int, columns: Sequence[str]) -> bool:
        """Whether that row group with these columns, or more, is in memory or on its way there."""
        return self._decoder.has(RowGroup(self._content, group, self._in_file_order(columns)))

    def rows(self, groups: Iterable[int], columns: Sequence[str]) -> Pieces:
        """The rows of these row groups, in order, with these columns or more, in pieces of some MiB.

        The row groups to come are decoded while the rows of one are used, and all stay in memory, as far as there is
        room.
        """
        wanted = self._in_file_order(columns)
        coming = iter(groups)
        begun: deque[tuple[int, Chunks | None]] = deque()
        while True:
            for index in islice(coming, self._decoder.workers - len(begun)):
                begun.append((index, self._chunks(index, wanted)))
            if not begun:
                return
            index, chunks = begun.popleft()
            yield from self._read(index, wanted, chunks or self._chunks(index, wanted))

    def first_rows(self, groups: Sequence[int], columns: Sequence[str], count: int) -> Pieces:
        """The same, where some `count` rows will do: what is not in memory is decoded as far as that takes."""
        wanted = self._in_file_order(columns)
        for index in groups:
            if (chunks := self._decoder.find(RowGroup(self._content, index, wanted))) is not None:
                yield from self._read(index, wanted, chunks)
            else:
                steps = self._decoded(index, wanted, min(count, self._rows_in(_STEP_BYTES, wanted)))
                with closing(steps) as batches:
                    yield from map(Piece.of, batches)

    def _in_file_order(self, columns: Sequence[str]) -> Columns | None:
        if len(columns) == len(self.footer.schema):
            return None
        wanted = set(columns)
        return tuple(name for name in self.footer.schema.names if name in wanted)

    def _chunks(self, index: int, columns: Columns | None) -> Chunks | None:
        group = RowGroup(self._content, index, columns)
        found = self._decoder.find(group)
        if found is not None or index in self.footer.oversized:
            return found
        rows = self._rows_in(_CHUNK_BYTES, columns)
        size_bytes = int(self._row_bytes(columns) * self.footer.group_rows[index])
        return self._decoder.chunks(group, size_bytes, lambda: self._decoded(index, columns, rows))

    def _read(self, index: int, columns: Columns | None, chunks: Chunks | None) -> Pieces:
        done = 0
        if chunks is not None:
            try:
                for piece in chunks:
                    yield piece
                    done += piece.rows.num_rows
            except TooLargeError:
                self.footer.oversized.add(index)
            else:
                return
        steps = self._decoded(index, columns, self._rows_in(_STEP_BYTES, columns))
        with closing(self._decoder.ahead(steps)) as batches:
            for batch in batches:
                if done < batch.num_rows:
                    yield Piece.of(batch.slice(done))
                done = max(0, done - batch.num_rows)

    def _decoded(self, index: int, columns: Columns | None, rows: int) -> Batches:
        count = len(self.footer.schema) if columns is None else len(columns)
        buffer_bytes = 0
        if self.footer.group_bytes[index] > _UNBUFFERED_BYTES:
            buffer_bytes = min(_MAX_COLUMN_BUFFER_BYTES, max(_MIN_COLUMN_BUFFER_BYTES, _READ_BUFFER_BYTES // count))
        file = pq.ParquetFile(
            self._file.open(), metadata=self.footer.metadata, buffer_size=buffer_bytes, pre_buffer=False
        )
        # a dotted name selects nested columns too; who uses the batches selects anew
        yield from file.iter_batches(batch_size=rows, row_groups=[index], columns=columns and list(columns))

    def _rows_in(self, bytes_: int, columns: Columns | None) -> int:
        return max(1, int(bytes_ / self._row_bytes(columns)))

    def _row_bytes(self, columns: Columns | None) -> float:
        known = self.footer.row_bytes
        if columns not in known:
            if len(known) >= _SAMPLED_SELECTIONS:
                known.clear()
            known[columns] = max(1, self._sampled_row_bytes(columns))
        return known[columns]

    def _sampled_row_bytes(self, columns: Columns | None) -> float:
        footer = self.footer
        if sum(footer.group_rows) <= _SAMPLE_ROWS:
            return sum(footer.group_bytes) / max(1, sum(footer.group_rows))
        widths = {name: _bit_width(footer.schema.field(name).type) for name in columns or footer.schema.names}
        known_bytes = sum(width for width in widths.values() if width is not None) / 8
        unknown = tuple(name for name, width in widths.items() if width is None)
        sample = next(self._decoded(0, unknown, _SAMPLE_ROWS), None) if unknown else None
        return known_bytes if sample is None else known_bytes + sample.nbytes / max(1, sample.num_rows)


class _File:
    """The payload's file, opened once, when first needed; it goes with the last who has it."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._lock = threading.Lock()
        self._opened: pa.NativeFile | None = None

    def open(self) -> pa.NativeFile:
        with self._lock:
            if self._opened is None:
                self._opened = self._payload.open()
            return self._opened


def _bit_width(kind: pa.DataType) -> int | None:
    """Of a value, with what says whether it is missing; None where that differs from value to value."""
    if pa.types.is_dictionary(kind):
        kind = kind.index_type
    try:
        return int(kind.bit_width) + 1
    except ValueError:
        return 1 if pa.types.is_null(kind) else None
