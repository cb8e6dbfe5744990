"""History in SQL: functions in FROM that tell of versions, and of what differs between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from datom_flight.protocol.errors import DatomError
from datom_flight.protocol.names import parse_instant

from ..metadata import layout
from .differences import all_names, change_of, column_changes, keyed_changes, row_changes
from .references import HistoryCall
from .resolving import Resolved, Resolver, reference
from .views import Files

USAGE: Mapping[str, str] = {
    "datom_tables": "datom_tables() or datom_tables('PROJECT')",
    "datom_versions": "datom_versions('table')",
    "datom_lineage": "datom_lineage('table') or datom_lineage('table', 'version')",
    "datom_column_changes": "datom_column_changes('table', 'from', 'to')",
    "datom_diff": "datom_diff('table', 'from', 'to', key := 'COLUMN,COLUMN')",
}

_ARGUMENTS = {
    "datom_tables": (0, 1),
    "datom_versions": (1, 1),
    "datom_lineage": (1, 2),
    "datom_column_changes": (2, 3),
    "datom_diff": (2, 3),
}
_UTC = pa.timestamp("us", "UTC")
_TABLES = pa.schema(
    {
        "name": pa.string(),
        "kind": pa.string(),
        "version": pa.string(),
        "data_sha": pa.string(),
        "size_bytes": pa.int64(),
        "last_updated": _UTC,
        "versions": pa.int64(),
    }
)
_VERSIONS = pa.schema(
    {
        "version": pa.string(),
        "data_sha": pa.string(),
        "parquet_sha": pa.string(),
        "timestamp": _UTC,
        "author": pa.string(),
        "message": pa.string(),
        "commit": pa.string(),
    }
)
_LINEAGE = pa.schema(
    {
        "relation": pa.string(),
        "project": pa.string(),
        "table": pa.string(),
        "version": pa.string(),
        "data_sha": pa.string(),
    }
)
_CHANGES = pa.schema({"column": pa.string(), "change": pa.string(), "basis": pa.string()})


class History:
    """Answers the calls of one query.

    Args:
        as_of: the instant up to which `datom_versions` tells; None: now.
    """

    def __init__(self, resolver: Resolver, files: Files, as_of: str | None) -> None:
        self._resolver = resolver
        self._files = files
        self._as_of = as_of

    def rows(self, call: HistoryCall) -> str:
        """What a call gives, as a SELECT.

        Raises:
            DatomError: ``sql_error`` for wrong arguments; ``not_found`` and as `Resolver.resolve`.
        """
        least, most = _ARGUMENTS[call.function]
        unknown = [name for name, _ in call.options if call.function != "datom_diff" or name != "key"]
        if not least <= len(call.arguments) <= most or unknown:
            raise _wrong(call, "wrong arguments")
        answers = {
            "datom_tables": self._tables,
            "datom_versions": self._versions,
            "datom_lineage": self._lineage,
            "datom_column_changes": self._column_changes,
            "datom_diff": self._diff,
        }
        return answers[call.function](call)

    def _tables(self, call: HistoryCall) -> str:
        catalog = self._resolver.catalog(call.arguments[0] if call.arguments else self._resolver.project)
        rows = [
            {
                "name": row.name,
                "kind": row.kind,
                "version": row.version,
                "data_sha": row.data_sha,
                "size_bytes": row.size_bytes,
                "last_updated": layout.parse_timestamp(row.last_updated),
                "versions": row.versions,
            }
            for row in catalog.artifacts()
        ]
        return self._files.written(pa.Table.from_pylist(rows, schema=_TABLES))

    def _versions(self, call: HistoryCall) -> str:
        catalog, name = self._resolver.table(reference(call.arguments[0]))
        until = None if self._as_of is None else parse_instant(self._as_of)
        rows = []
        for entry in catalog.history(name):
            written = layout.parse_timestamp(entry.timestamp)
            if until is None or (written is not None and written <= until):
                fields = ("version", "data_sha", "parquet_sha", "author", "message", "commit")
                rows.append({field: getattr(entry, field) for field in fields} | {"timestamp": written})
        return self._files.written(pa.Table.from_pylist(rows, schema=_VERSIONS))

    def _lineage(self, call: HistoryCall) -> str:
        resolved = self._resolver.resolve(reference(*call.arguments))
        document = _document(resolved)
        rows = [
            {
                "relation": "parent",
                "project": parent.get("source"),
                "table": parent.get("table"),
                "version": parent.get("version"),
                "data_sha": parent.get("data_sha"),
            }
            for parent in _records(document.get("parents"))
        ]
        rows += [
            {
                "relation": "source",
                "project": source.get("project"),
                "table": source.get("table"),
                "version": None,
                "data_sha": source.get("version_sha"),
            }
            for source in _records(document.get("source_lineage"))
        ]
        return self._files.written(pa.Table.from_pylist(rows, schema=_LINEAGE))

    def _column_changes(self, call: HistoryCall) -> str:
        before, after = self._two(call)
        old, new = _column_hashes(_document(before)), _column_hashes(_document(after))
        if old is None or new is None:
            return column_changes(self._files.stored(before), self._files.stored(after))
        rows = [
            {"column": name, "change": change_of(name, old, new), "basis": "recorded"}
            for name in all_names(old, new)
            if old.get(name) != new.get(name)
        ]
        return self._files.written(pa.Table.from_pylist(rows, schema=_CHANGES))

    def _diff(self, call: HistoryCall) -> str:
        before, after = self._two(call)
        old, new = self._files.stored(before), self._files.stored(after)
        key = _key(call, set(old.schema.names) & set(new.schema.names))
        if key:
            return keyed_changes(old, new, key)
        if sorted(old.schema.names) != sorted(new.schema.names):
            raise _wrong(call, "the two versions have different columns, so their rows need a key")
        return row_changes(old, new)

    def _two(self, call: HistoryCall) -> tuple[Resolved, Resolved]:
        name, *versions = call.arguments
        after = versions[1] if len(versions) > 1 else None
        return self._resolver.resolve(reference(name, versions[0])), self._resolver.resolve(reference(name, after))


def _document(resolved: Resolved) -> Mapping[str, Any]:
    return resolved.catalog.metadata(resolved.found.table, resolved.found.version)


def _records(value: Any) -> list[Mapping[str, Any]]:
    return [record for record in value if isinstance(record, dict)] if isinstance(value, list) else []


def _column_hashes(document: Mapping[str, Any]) -> dict[str, str] | None:
    """The hash of each column as datom 0.1 recorded it, by name; None when it did not."""
    recorded = _records(document.get("column_hashes"))
    hashes = {str(column.get("name")): str(column.get("sha")) for column in recorded if column.get("sha")}
    return hashes if recorded and len(hashes) == len(recorded) else None


def _key(call: HistoryCall, common: set[str]) -> list[str]:
    """The columns that the option ``key`` names, each in both versions; SQL does not mind case."""
    written = [names.split(",") for option, names in call.options if option == "key"]
    if len(written) > 1:
        raise _wrong(call, "key is given twice")
    key = []
    for name in (part.strip() for names in written for part in names):
        matching = [name] if name in common else [other for other in common if other.lower() == name.lower()]
        if len(matching) != 1:
            raise _wrong(call, f'the key column "{name[:80]}" is not in both versions')
        key += matching
    return list(dict.fromkeys(key))


def _wrong(call: HistoryCall, message: str) -> DatomError:
    return DatomError.of("sql_error", f"{call.function}: {message}", hint=f"write {USAGE[call.function]}")
