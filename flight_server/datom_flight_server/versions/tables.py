"""The rows of one stored version: its schema, how it splits, and its batches."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from datom_flight.protocol.errors import DatomError, InvalidRequestError

from ..metadata import layout
from ..model import Kind, TableVersion
from ..storage.base import ObjectStore
from .parquet import Columns, Footer, ParquetObject, Pieces
from .payloads import Payload, Payloads
from .pieces import Piece, cut

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


class _Known(NamedTuple):
    """What never changes of a stored version."""

    payload: Payload
    footer: Footer
    schema: pa.Schema


class StoredTable:
    """The stored rows of one version, verified. Closed by the caller, or as a context manager.

    Attributes:
        version: which.
        schema: of its rows, as streams have it.
    """

    def __init__(self, found: TableVersion, payload: Payload, known: _Known | None = None) -> None:
        self.version = found
        if known is not None:
            self._parquet = ParquetObject(payload, known.footer)
            self.schema = known.schema
            return
        with _readable(found):
            self._parquet = ParquetObject(payload)
        self.schema = _identified(self._parquet.footer.schema, found)

    @classmethod
    def open(cls, payloads: Payloads, store: ObjectStore, found: TableVersion) -> StoredTable:
        """The table of a resolved version.

        Raises:
            DatomError: ``invalid_address``, ``integrity_mismatch``, ``not_found``, ``document_unreadable`` (not
                parquet, where no hash is recorded), or the storage's errors.
        """
        memory = payloads.decoder.memory
        place = (store.uri, found.project, found.table, found.version, found.data_sha, found.object_sha)
        known: _Known | None = memory.get(place)
        if known is not None:
            return cls(found, known.payload, known)
        key = layout.payload_key(found.table, Kind.TABLE, found.data_sha)
        try:
            payload = payloads.find(store, key, found.object_sha)
            opened = cls(found, payload)
        except DatomError as error:
            if error.code != "not_found":
                raise
            raise DatomError.of(
                "not_found",
                f'the data of "{found.table}" version {found.version} is missing from the storage',
                hint="tell the data team: the version is recorded but its parquet is gone",
            ) from None
        if found.object_sha is not None:
            footer = opened._parquet.footer
            memory.keep(place, _Known(payload, footer, opened.schema), footer.memory_bytes)
        return opened

    def __enter__(self) -> StoredTable:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; rows on their way still come."""
        self._parquet.close()

    @property
    def num_rows(self) -> int:
        """Rows of the whole table."""
        return int(self._parquet.footer.metadata.num_rows)

    @property
    def num_row_groups(self) -> int:
        """Row groups of the stored file; a table may have none."""
        return len(self._parquet.footer.group_rows)

    @property
    def size_bytes(self) -> int:
        """Of the stored parquet object."""
        return self._parquet.footer.size_bytes

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

        At least one range, even where nothing is to be read. The ranges of a condition are some of those without it.
        """
        end = self.num_row_groups
        if selection.limit is not None or end == 0:
            return [(0, end)]
        enough = max(1, -(-end // _MAX_ENDPOINTS))
        ranges = []
        first = rows = size = 0
        footer = self._parquet.footer
        for index, (group_rows, group_bytes) in enumerate(zip(footer.group_rows, footer.group_bytes, strict=True)):
            rows += group_rows
            size += group_bytes
            if (rows >= _ENDPOINT_ROWS or size >= _ENDPOINT_BYTES) and index + 1 - first >= enough:
                ranges.append((first, index + 1))
                first, rows, size = index + 1, 0, 0
        if first < end:
            ranges.append((first, end))
        if selection.pruning is None:
            return ranges
        left = self._parquet.matching(range(end), selection.pruning)
        return [part for part in ranges if any(part[0] <= group < part[1] for group in left)] or ranges[:1]

    def batches(self, selection: Selection) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `selection`, in file order, each batch of ``schema_of(selection.columns)``; see `runs`."""
        metadata = self.schema.metadata
        with closing(self.runs(selection)) as runs:
            for run in runs:
                yield from (batch.replace_schema_metadata(metadata) for batch in run)

    def runs(self, selection: Selection) -> Generator[list[pa.RecordBatch], None, None]:
        """The rows of `selection`, in file order; batches of one list share their dictionaries.

        Each batch is of ``schema_of(selection.columns)``, but for the schema's metadata, and keeps to
        `MAX_BATCH_BYTES`. Memory is bounded, whatever the table's size.

        Raises:
            DatomError: ``invalid_argument`` where the predicate cannot be computed for a row; ``document_unreadable``.
        """
        columns = None if selection.columns is None else self.schema_of(selection.columns).names
        left = self.num_rows if selection.limit is None else selection.limit
        with _readable(self.version, selection.predicate), closing(self._pieces(selection)) as pieces:
            for piece in pieces if left else ():
                run = _run(piece, columns, selection, left)
                left -= sum(batch.num_rows for batch in run)
                if run:
                    yield run
                if left <= 0:
                    return

    def _pieces(self, selection: Selection) -> Pieces:
        groups = self._row_groups(selection)
        read = selection.columns
        if read is not None:
            read = (*read, *(name for name in selection.predicate_columns if name not in read))
        if selection.predicate is not None:
            return self._parquet.rows(self._promising(groups, selection, read), read)
        if selection.limit is None or selection.limit >= self.num_rows:
            return self._parquet.rows(groups, read)
        return self._parquet.first_rows(groups, read, selection.limit)

    def _promising(self, groups: Sequence[int], selection: Selection, read: Columns | None) -> Iterator[int]:
        """Those of the row groups that are in memory, or have a row for which the predicate is true."""
        alone = selection.predicate_columns
        for group in groups:
            if len(alone) < len(read or self.schema) and not self._parquet.has(group, read):
                with closing(self._parquet.rows([group], alone)) as pieces:
                    if not any(piece.mask(selection.predicate, alone).true_count for piece in pieces):
                        continue
            yield group

    def _row_groups(self, selection: Selection) -> list[int]:
        first, end = selection.row_groups or (0, self.num_row_groups)
        if end > self.num_row_groups:
            raise InvalidRequestError(f'row_groups end at {end}, "{self.version.table}" has {self.num_row_groups}')
        groups = list(range(first, end))
        return groups if selection.pruning is None else self._parquet.matching(groups, selection.pruning)


def _run(piece: Piece, columns: Sequence[str] | None, selection: Selection, most: int) -> list[pa.RecordBatch]:
    """At most so many of the rows of `piece` that `selection` asks for, with these columns, all if None."""
    rows = piece.rows
    if selection.predicate is not None:
        mask = piece.mask(selection.predicate, selection.predicate_columns)
        if mask.true_count < rows.num_rows:
            rows = (rows if columns is None else rows.select(columns)).filter(mask)
    if rows is piece.rows and columns is None and rows.num_rows <= most:
        return piece.run()
    return list(cut((rows if columns is None else rows.select(columns)).slice(0, most)))


@contextmanager
def _readable(found: TableVersion, predicate: pc.Expression | None = None) -> Iterator[None]:
    """Around the decoding of a stored table, and the computing of `predicate`: their errors as ours."""
    try:
        yield
    except pa.ArrowException as error:
        if predicate is None:
            raise _unreadable(found, error) from None
        raise InvalidRequestError(f"where cannot be computed for some row: {_first_line(error)}") from None
    except OSError as error:
        raise _unreadable(found, error) from None


def _identified(schema: pa.Schema, found: TableVersion) -> pa.Schema:
    identity = {"project": found.project, "table": found.table, "version": found.version, "data_sha": found.data_sha}
    named = {f"datom.{key}": value for key, value in identity.items() if value is not None}
    return schema.with_metadata({**(schema.metadata or {}), **named})


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
