"""What a query's names become: views, in a database of the query's own, over verified files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..metadata import layout
from ..model import Kind
from ..versions.payloads import Payloads
from ..versions.tables import StoredTable
from .frames import CATALOG
from .resolving import Resolved

_TAKEN_SCHEMAS = frozenset({"information_schema", "pg_catalog", "system", "temp"})
_MICROSECONDS = {"s": " * 1000000", "ms": " * 1000", "us": "", "ns": " // 1000"}


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The rows of a version as a query, values as its stored types mean them, and those types."""

    query: str
    schema: pa.Schema


class Files:
    """The files of one query, in a folder of its own: linked from the cache, or written for it."""

    def __init__(self, payloads: Payloads, folder: Path) -> None:
        self._payloads = payloads
        self._folder = folder
        self._stored: dict[str, StoredRows] = {}
        self._count = 0

    def stored(self, resolved: Resolved) -> StoredRows:
        """The rows of a version.

        Raises:
            DatomError: as `StoredTable.open`.
        """
        found, store = resolved.found, resolved.catalog.store
        key = layout.payload_key(found.table, Kind.TABLE, found.data_sha)
        place = f"{store.uri}/{key} {found.object_sha}"
        if place not in self._stored:
            with StoredTable.open(self._payloads, store, found) as table:
                schema = table.schema
            target = self._next()
            self._payloads.find(store, key, found.object_sha).link(target)
            self._stored[place] = StoredRows(_rows(target, schema), schema)
        return self._stored[place]

    def written(self, table: pa.Table) -> str:
        """The rows of a small table as a SELECT."""
        target = self._next()
        pq.write_table(table, target)
        return _rows(target, table.schema)

    def _next(self) -> Path:
        self._count += 1
        return self._folder / f"{self._count}.parquet"


class Views:
    """The views of one query. What is written alike is one view; twins that differ get schemas of their own.

    Attributes:
        statements: what makes them.
    """

    def __init__(self) -> None:
        self.statements: list[str] = []
        self._made: dict[tuple[str, str], str] = {}

    def add(self, schema: str, name: str, rows: str) -> str:
        """The schema in which `name` has these `rows`: `schema`, unless other rows are called so there."""
        if schema.lower() in _TAKEN_SCHEMAS:
            schema += "@"
        attempt, number = schema, 1
        while self._made.get((attempt.lower(), name.lower()), rows) != rows:
            number += 1
            attempt = f"{schema}@{number}"
        if (attempt.lower(), name.lower()) not in self._made:
            self._made[attempt.lower(), name.lower()] = rows
            self.statements.append(f"CREATE SCHEMA IF NOT EXISTS {CATALOG}.{quoted(attempt)}")
            self.statements.append(f"CREATE VIEW {CATALOG}.{quoted(attempt)}.{quoted(name)} AS {rows}")
        return attempt


def _rows(path: Path, schema: pa.Schema) -> str:
    spans = [
        f"to_microseconds(({quoted(field.name)}{_MICROSECONDS[field.type.unit]})::BIGINT) AS {quoted(field.name)}"
        for field in schema
        if pa.types.is_duration(field.type)
    ]
    # parquet itself has no type for a span of time
    star = f"* REPLACE ({', '.join(spans)})" if spans else "*"
    return f"SELECT {star} FROM read_parquet({literal(str(path))}, hive_partitioning = false)"  # noqa: S608
