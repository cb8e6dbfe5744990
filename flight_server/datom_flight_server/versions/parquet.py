"""A verified parquet object: what its footer says, and its row groups as Arrow, decoded or remembered."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
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
_UNBUFFERED_BYTES = 32 * 1024 * 1024
_READ_BUFFER_BYTES = 64 * 1024 * 1024
_MAX_COLUMN_BUFFER_BYTES = 1024 * 1024
_MIN_COLUMN_BUFFER_BYTES = 16 * 1024
_DICTIONARY_PAGE_BYTES = 1024 * 1024
"""The most that writers let a dictionary take up, unless told otherwise."""
_FOOTER_FACTOR = 8
"""A parsed footer's memory as a multiple of its stored size, rounded up."""


@dataclass(frozen=True)
class Footer:
    """What is known of a parquet object.

    Attributes:
        schema: as stored.
        group_rows, group_bytes: of each row group; bytes before compression.
        size_bytes: of the object.
        value_bytes: of a decoded value of a column, as far as that was looked at: of its type, or in a sample.
        oversized: row groups that turned out to be more than there is room for.
    """

    metadata: pq.FileMetaData
    schema: pa.Schema
    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]
    size_bytes: int
    value_bytes: dict[str, float] = field(default_factory=dict)
    oversized: set[int] = field(default_factory=set)

    @property
    def memory_bytes(self) -> int:
        """What it takes up, about."""
        return int(self.metadata.serialized_size) * _FOOTER_FACTOR

    @cached_property
    def fragment(self) -> ds.ParquetFileFragment:
        """What judges row groups by their statistics; it has no rows."""
        rowless = pa.BufferOutputStream()
        self.metadata.write_metadata_file(rowless)
        fragment = ds.ParquetFileFormat().make_fragment(pa.BufferReader(rowless.getvalue()))
        fragment.ensure_complete_metadata()
        return fragment

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

    Args:
        footer: where it is known already.
    """

    def __init__(self, payload: Payload, footer: Footer | None = None) -> None:
        self._decoder = payload.payloads.decoder
        self._content = payload.path
        self._payload = payload
        self._file = _File(payload)
        self.footer = footer or Footer.of(self._file.open())

    def close(self) -> None:
        """Let go of the file; rows on their way still come."""
        self._file = _File(self._payload)

    def matching(self, groups: Sequence[int], predicate: pc.Expression) -> list[int]:
        """Those of the row groups whose statistics leave room for a row for which `predicate` is true."""
        kept = self.footer.fragment.subset(predicate, schema=self.footer.schema).row_groups
        remaining = {group.id for group in kept}
        return [group for group in groups if group in remaining]

    def has(self, group: int, columns: Sequence[str] | None) -> bool:
        """Whether that row group with these columns, or more, is in memory or on its way there."""
        return self._decoder.has(RowGroup(self._content, group, self._in_file_order(columns)))

    def rows(self, groups: Iterable[int], columns: Sequence[str] | None) -> Pieces:
        """The rows of these row groups, in order, with these columns or more, all if None, in pieces of some MiB.

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

    def first_rows(self, groups: Sequence[int], columns: Sequence[str] | None, count: int) -> Pieces:
        """The same, where some `count` rows will do: what is not in memory is decoded as far as that takes."""
        wanted = self._in_file_order(columns)
        for index in groups:
            if (chunks := self._decoder.find(RowGroup(self._content, index, wanted))) is not None:
                yield from self._read(index, wanted, chunks)
            else:
                steps = self._decoded(index, wanted, min(count, self._rows_in(_STEP_BYTES, wanted)))
                with closing(steps) as batches:
                    yield from map(Piece.of, batches)

    def _in_file_order(self, columns: Sequence[str] | None) -> Columns | None:
        if columns is None or len(columns) == len(self.footer.schema):
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
        repeated = self._repeated(index, columns)
        file = pq.ParquetFile(
            self._file.open(),
            metadata=self.footer.metadata,
            buffer_size=buffer_bytes,
            pre_buffer=False,
            read_dictionary=repeated,
        )
        # a dotted name selects nested columns too; who uses the batches selects anew. Several row groups are decoded
        # side by side, which takes less work than to decode the columns of each side by side
        batches = file.iter_batches(
            rows, row_groups=[index], columns=columns and list(columns), use_threads=len(self.footer.group_rows) == 1
        )
        for batch in batches:
            yield _spelled_out(batch, repeated) if repeated else batch

    def _repeated(self, index: int, columns: Columns | None) -> list[str]:
        """The texts that the row group surely holds as codes only: these are decoded first, and spelled out after.

        It takes a fifth less than to decode each value. Where the dictionary outgrew its page, values of their own
        follow, and decoding those to codes would take longer.
        """
        # a name with a dot may be the path of a nested column, too
        texts = {field.name for field in self.footer.schema if field.type == pa.string() and "." not in field.name}
        if columns is not None:
            texts.intersection_update(columns)
        if not texts:
            return []
        group = self.footer.metadata.row_group(index)
        stored = map(group.column, range(group.num_columns))
        return [
            column.path_in_schema
            for column in stored
            if column.path_in_schema in texts
            and "RLE_DICTIONARY" in column.encodings
            and column.total_uncompressed_size < _DICTIONARY_PAGE_BYTES
        ]

    def _rows_in(self, bytes_: int, columns: Columns | None) -> int:
        return max(1, int(bytes_ / self._row_bytes(columns)))

    def _row_bytes(self, columns: Columns | None) -> float:
        names = columns or self.footer.schema.names
        known = self.footer.value_bytes
        unknown = tuple(name for name in names if name not in known)
        if unknown:
            known.update(self._value_bytes(unknown))
        return max(1, sum(known[name] for name in names))

    def _value_bytes(self, names: Columns) -> dict[str, float]:
        footer = self.footer
        rows = sum(footer.group_rows)
        if rows <= _SAMPLE_ROWS:
            return dict.fromkeys(names, sum(footer.group_bytes) / max(1, rows * len(footer.schema)))
        widths = {name: _bit_width(footer.schema.field(name).type) for name in names}
        sizes = {name: (width or 0) / 8 for name, width in widths.items()}
        varying = tuple(name for name, width in widths.items() if width is None)
        sample = next(self._decoded(0, varying, _SAMPLE_ROWS), None) if varying else None
        if sample is not None:
            sizes |= {name: sample.column(name).nbytes / max(1, sample.num_rows) for name in varying}
        return sizes


def _spelled_out(batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    for name in names:
        index = batch.schema.get_field_index(name)
        field = batch.schema.field(index).with_type(pa.string())
        batch = batch.set_column(index, field, batch.column(index).dictionary_decode())
    return batch


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
