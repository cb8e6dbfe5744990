"""Tables of a server as views of DuckDB: fetched when they are used, and of each only what is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from .calls import CONCURRENT_LOOKUPS, concurrently
from .conditions import split
from .plans import Plan
from .protocol.errors import DatomError, InvalidRequestError, NotFoundError, StoredDataError
from .reads import Reads, Selection
from .sets import DatomSet

DuckDB = duckdb.DuckDBPyConnection

Fetch = Callable[[Sequence[str] | None, str | None], Iterator[pa.RecordBatch]]
"""Gives the rows of a table: these columns (None: all), where this SQL condition holds (None: all)."""


@dataclass(frozen=True, slots=True)
class View:
    """A view to be: what it is called, in each of `schemas`, and the version it shows."""

    schemas: tuple[str, ...]
    name: str
    selection: Selection


class RemoteTable(ds.InMemoryDataset):  # type: ignore[misc]
    """A table as a dataset without rows of its own: every scan fetches those it asks for."""

    def __init__(self, schema: pa.Schema, fetch: Fetch) -> None:
        super().__init__(schema.empty_table())
        self._fetch = fetch

    def scanner(
        self, *, columns: Sequence[str] | None = None, filter: pc.Expression | None = None, **_: object
    ) -> _Scanner:
        """The rows that `filter` holds for. See `pyarrow.dataset.Dataset`; other options make no difference."""
        names = self.schema.names
        wanted = names if columns is None else list(columns)
        return _Scanner(
            pa.schema([self.schema.field(name) for name in wanted], self.schema.metadata),
            self._rows(wanted, filter),
        )

    def _rows(self, wanted: list[str], filter: pc.Expression | None) -> Iterator[pa.RecordBatch]:
        parts = split(filter, self.schema) if filter is not None else None
        local = parts.rest_columns if parts else frozenset()
        # A read has a column at least, also where rows are only counted.
        needed = [name for name in self.schema.names if name in local or name in wanted] or self.schema.names[:1]
        fetched = self._fetch(None if needed == self.schema.names else needed, parts.where if parts else None)
        try:
            for batch in fetched:
                kept = batch if parts is None or parts.rest is None else batch.filter(parts.rest)
                yield kept.select(wanted)
            return
        except DatomError as error:
            failure = error
        # DuckDB tells from where it was raised too: from here, and not from everything below.
        raise failure.with_traceback(None)


@dataclass(frozen=True, slots=True)
class _Scanner:
    """What DuckDB takes from a scanner."""

    projected_schema: pa.Schema
    rows: Iterator[pa.RecordBatch]

    def to_reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.projected_schema, self.rows)


def member_views(found: DatomSet, refused: Callable[[str, DatomError], None]) -> Iterator[View]:
    """Views of the tables in a set, in a schema called as it is.

    Args:
        refused: told of each table that several members are called as; it may raise.
    """
    for name in dict.fromkeys(member.id.name for member in found.members if member.id.kind == "table"):
        try:
            cited = found.member(name).id
            yield View((found.name,), name, Selection.of(cited.project, cited.name, cited.version))
        except DatomError as error:
            refused(f"{found.name}.{name}", error)


def open_views(reads: Reads, views: Sequence[View], refused: Callable[[str, DatomError], None]) -> DuckDB:
    """A database in memory with `views`, each of the version that its selection stands for now.

    Args:
        refused: told of each view that cannot be; it may raise.

    Raises:
        DatomError: of the kinds that are no one table's affair, such as ``unavailable``.
    """
    plans = concurrently(lambda view: _plan(reads, view), views, CONCURRENT_LOOKUPS)
    connection = duckdb.connect()
    try:
        for view, plan in zip(views, plans, strict=True):
            try:
                _create(connection, reads, view, plan)
            except DatomError as error:
                refused(view.name, error)
        connection.execute("USE main")
    except BaseException:
        connection.close()
        raise
    return connection


def _plan(reads: Reads, view: View) -> Plan | DatomError:
    try:
        return reads.resolve(view.selection)
    except (NotFoundError, StoredDataError, InvalidRequestError) as error:
        return error


def _create(connection: DuckDB, reads: Reads, view: View, plan: Plan | DatomError) -> None:
    if isinstance(plan, DatomError):
        raise plan
    reads.heeded(plan, view.selection)
    if len(set(plan.schema.names)) < len(plan.schema.names):
        raise InvalidRequestError("two columns have the same name", hint="read it with conn.read")
    stored = view.selection.request
    relation = connection.from_arrow(RemoteTable(plan.schema, partial(reads.part, plan, stored.table)))
    comment = f"{stored.project}.{stored.table}@{plan.version or plan.data_sha}"
    for schema in view.schemas:
        try:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}; USE {_quoted(schema)}")
            relation.create_view(view.name, replace=False)
            connection.execute(f"COMMENT ON VIEW {_quoted(view.name)} IS '{comment}'")
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
        else:
            continue
        raise InvalidRequestError(f"DuckDB does not take it: {reason}", hint="read it with conn.read")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
