"""The rows of one stored version: its schema, how it splits, and its batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from datom_flight.protocol.errors import DatomError, InvalidRequestError

from ..metadata import layout
from ..model import Kind, TableVersion
from ..storage.base import ObjectStore
from .payloads import Payloads

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Of IPC, for a batch of more than one row."""

_DECODE_BYTES = 6 * 1024 * 1024
_SAMPLE_ROWS = 1024
_FILTERED_ROWS = 64 * 1024
"""At once: what a predicate computes on the way may take 1 KiB a row."""
_READ_BUFFER_BYTES = 64 * 1024 * 1024
_MAX_COLUMN_BUFFER_BYTES = 1024 * 1024
_MIN_COLUMN_BUFFER_BYTES = 16 * 1024
_ENDPOINT_ROWS = 1_000_000
_ENDPOINT_BYTES = 64 * 1024 * 1024
_MAX_ENDPOINTS = 64


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of a table.

    Attributes:
        columns: names in the order wanted; None is all.
        predicate: rows for which it is true; None is all.
        predicate_columns: what `predicate` reads.
        pruning: true at least wherever `predicate` is, judged by a row group's statistics; None prunes nothing.
        limit: the first so many of the rows left.
        row_groups: ``(first, end)``; None is all.
    """

    columns: tuple[str, ...] | None = None
    predicate: pc.Expression | None = None
    predicate_columns: tuple[str, ...] = ()
    pruning: pc.Expression | None = None
    limit: int | None = None
    row_groups: tuple[int, int] | None = None


class StoredTable:
    """An open, verified parquet object of one version. Closed by the caller, or as a context manager."""

    def __init__(self, found: TableVersion, file: pa.NativeFile) -> None:
        self.version = found
        self._file = file
        try:
            self._metadata = pq.read_metadata(file)
            self._stored_schema: pa.Schema = self._metadata.schema.to_arrow_schema()
        except (pa.ArrowException, OSError) as error:
            file.close()
            raise _unreadable(found, error) from None
        self.schema = _identified(self._stored_schema, found)

    @classmethod
    def open(cls, payloads: Payloads, store: ObjectStore, found: TableVersion) -> StoredTable:
        """The table of a resolved version.

        Raises:
            DatomError: ``invalid_address``, ``integrity_mismatch``, ``not_found``, ``document_unreadable`` (not
                parquet, where no hash is recorded), or the storage's errors.
        """
        key = layout.payload_key(found.table, Kind.TABLE, found.data_sha)
        try:
            return cls(found, payloads.open(store, key, found.object_sha))
        except DatomError as error:
            if error.code != "not_found":
                raise
            raise DatomError.of(
                "not_found",
                f'the data of "{found.table}" version {found.version} is missing from the storage',
                hint="tell the data team: the version is recorded but its parquet is gone",
            ) from None

    def __enter__(self) -> StoredTable:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    @property
    def num_rows(self) -> int:
        """Rows of the whole table."""
        return int(self._metadata.num_rows)

    @property
    def num_row_groups(self) -> int:
        """Row groups of the stored file; a table may have none."""
        return int(self._metadata.num_row_groups)

    @property
    def size_bytes(self) -> int:
        """Of the stored parquet object."""
        return int(self._file.size())

    def schema_of(self, columns: Sequence[str] | None) -> pa.Schema:
        """The schema of these columns, in this order, as streams have it.

        Raises:
            InvalidRequestError: ``invalid_argument`` for a column that is not there, or named twice.
        """
        if columns is None:
            return self.schema
        if len(set(columns)) != len(columns):
            twice = next(name for name in columns if list(columns).count(name) > 1)
            raise InvalidRequestError(f'column "{twice}" is asked for twice')
        known = set(self.schema.names)
        missing = [name for name in columns if name not in known]
        if missing:
            raise InvalidRequestError(
                f'no column "{missing[0][:80]}" in "{self.version.table}"',
                hint="its columns: " + _listed(self.schema.names),
                fields={"columns": missing[:100]},
            )
        return pa.schema([self.schema.field(name) for name in columns], metadata=self.schema.metadata)

    def ranges(self, selection: Selection) -> list[tuple[int, int]]:
        """The row groups that `selection` reads, split into ranges worth a stream of their own, in file order.

        At least one range, even where the table has no row group.
        """
        end = self.num_row_groups
        if selection.limit is not None or end == 0:
            return [(0, end)]
        enough = max(1, -(-end // _MAX_ENDPOINTS))
        ranges = []
        first = rows = size = 0
        for index in range(end):
            group = self._metadata.row_group(index)
            rows += group.num_rows
            size += group.total_byte_size
            if (rows >= _ENDPOINT_ROWS or size >= _ENDPOINT_BYTES) and index + 1 - first >= enough:
                ranges.append((first, index + 1))
                first, rows, size = index + 1, 0, 0
        if first < end:
            ranges.append((first, end))
        return ranges

    def batches(self, selection: Selection) -> Iterator[pa.RecordBatch]:
        """The selected rows in file order, in batches of at most `MAX_BATCH_BYTES` of IPC or one row.

        Memory is bounded by a few batches, whatever the table's size.

        Raises:
            DatomError: ``invalid_argument`` where the predicate cannot be computed for a row; ``document_unreadable``.
        """
        schema = self.schema_of(selection.columns)
        left = self.num_rows if selection.limit is None else selection.limit
        try:
            for decoded in self._decoded(selection):
                if left <= 0:
                    return
                batch = decoded
                if selection.predicate is not None:
                    batch = batch.filter(selection.predicate)
                batch = batch.select(schema.names).slice(0, left).replace_schema_metadata(schema.metadata)
                left -= batch.num_rows
                yield from cut(batch)
        except pa.ArrowException as error:
            if selection.predicate is None:
                raise _unreadable(self.version, error) from None
            raise InvalidRequestError(f"where cannot be computed for some row: {_first_line(error)}") from None
        except OSError as error:
            raise _unreadable(self.version, error) from None

    def _decoded(self, selection: Selection) -> Iterator[pa.RecordBatch]:
        row_groups = self._row_groups(selection)
        if not row_groups or selection.limit == 0:
            return
        wanted = list(selection.columns) if selection.columns is not None else list(self.schema.names)
        columns = [*wanted, *(name for name in selection.predicate_columns if name not in set(wanted))]
        buffer_bytes = min(_MAX_COLUMN_BUFFER_BYTES, max(_MIN_COLUMN_BUFFER_BYTES, _READ_BUFFER_BYTES // len(columns)))
        file = pq.ParquetFile(self._file, metadata=self._metadata, buffer_size=buffer_bytes, pre_buffer=False)
        rows = self._rows_per_batch(file, row_groups, columns)
        if selection.predicate is not None:
            rows = min(rows, _FILTERED_ROWS)
        elif selection.limit is not None:
            rows = min(rows, selection.limit)
        # a dotted name selects nested columns too; `select` in the caller drops what was not asked for
        yield from file.iter_batches(batch_size=rows, row_groups=row_groups, columns=columns)

    def _row_groups(self, selection: Selection) -> list[int]:
        first, end = selection.row_groups or (0, self.num_row_groups)
        if end > self.num_row_groups:
            raise InvalidRequestError(f'row_groups end at {end}, "{self.version.table}" has {self.num_row_groups}')
        row_groups = list(range(first, end))
        if selection.pruning is None or not row_groups:
            return row_groups
        fragment = ds.ParquetFileFormat().make_fragment(self._file, row_groups=row_groups)
        matching = fragment.subset(selection.pruning, schema=self._stored_schema)
        return [group.id for group in matching.row_groups]

    def _rows_per_batch(self, file: pq.ParquetFile, row_groups: list[int], columns: list[str]) -> int:
        total = sum(int(self._metadata.row_group(index).num_rows) for index in row_groups)
        if total <= _SAMPLE_ROWS:
            return max(1, total)
        sample = next(file.iter_batches(batch_size=_SAMPLE_ROWS, row_groups=row_groups[:1], columns=columns), None)
        if sample is None:
            return _SAMPLE_ROWS
        return max(1, int(_DECODE_BYTES * sample.num_rows // max(1, sample.nbytes)))


def _identified(schema: pa.Schema, found: TableVersion) -> pa.Schema:
    identity = {"project": found.project, "table": found.table, "version": found.version, "data_sha": found.data_sha}
    named = {f"datom.{key}": value for key, value in identity.items() if value is not None}
    return schema.with_metadata({**(schema.metadata or {}), **named})


def cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """`batch` in slices that keep to `MAX_BATCH_BYTES`; no slice has no rows, nothing is copied."""
    if batch.num_rows == 0:
        return
    if batch.num_rows == 1 or pa.ipc.get_record_batch_size(batch) <= MAX_BATCH_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from cut(batch.slice(0, half))
    yield from cut(batch.slice(half))


def _listed(names: Sequence[str], most: int = 40) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _unreadable(found: TableVersion, error: BaseException) -> DatomError:
    return DatomError.of(
        "document_unreadable",
        f'the stored parquet of "{found.table}" version {found.version} cannot be read: {_first_line(error)}',
    )
