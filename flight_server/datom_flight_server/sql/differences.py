"""What differs between two versions of a table, as queries over both."""

# ruff: noqa: S608 - queries are made of quoted names and literals alone

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import pyarrow as pa

from .types import is_number, is_text, normal_type
from .views import StoredRows, literal, quoted

Change = Literal["added", "removed", "changed"]


def all_names(old: Iterable[str], new: Iterable[str]) -> list[str]:
    """The names of the newer version in its order, then those that only the older one has."""
    return list(dict.fromkeys([*new, *old]))


def change_of(name: str, old: Iterable[str], new: Iterable[str]) -> Change:
    """What happened to a column that is not the same in both versions."""
    if name not in old:
        return "added"
    return "changed" if name in new else "removed"


def column_changes(old: StoredRows, new: StoredRows) -> str:
    """A query for the columns that differ, the tables compared row by row in stored order."""
    known: list[str] = []
    compared: list[str] = []
    for name in all_names(old.schema.names, new.schema.names):
        change = literal(change_of(name, old.schema.names, new.schema.names))
        if same_kind(name, old.schema, new.schema):
            compared.append(f"coalesce(bool_or(before.{quoted(name)} IS DISTINCT FROM after.{quoted(name)}), false)")
            change = f"CASE WHEN rows_differ OR differs[{len(compared)}] THEN {change} END"
        known.append(f"{{'column': {literal(name)}, 'change': {change}}}")
    counts = [f"(SELECT count(*) FROM ({side.query}))" for side in (old, new)]
    return (
        "SELECT item.column AS column, item.change AS change, 'computed' AS basis FROM ("
        f"SELECT unnest([{', '.join(known)}]) AS item FROM ("
        f"SELECT [{', '.join(compared)}]::BOOLEAN[] AS differs, any_value({counts[0]} <> {counts[1]}) AS rows_differ "
        f"FROM ({old.query}) AS before POSITIONAL JOIN ({new.query}) AS after)"
        ") WHERE item.change IS NOT NULL"
    )


def row_changes(old: StoredRows, new: StoredRows) -> str:
    """A query for the rows that only one version has, as often as it has them more; both have the same columns."""
    columns = ", ".join(
        quoted(name) + ("" if same_kind(name, old.schema, new.schema) else f"::VARCHAR AS {quoted(name)}")
        for name in new.schema.names
    )
    before, after = (f"SELECT {columns} FROM ({side.query})" for side in (old, new))
    return (
        f"SELECT 'removed' AS change, * FROM ({before} EXCEPT ALL {after}) "
        f"UNION ALL SELECT 'added' AS change, * FROM ({after} EXCEPT ALL {before})"
    )


def keyed_changes(old: StoredRows, new: StoredRows, key: Sequence[str]) -> str:
    """A query for the rows added, removed and changed, told apart by the columns of `key`; it fails where two rows
    of one version have the same key.
    """
    keys = ", ".join(map(quoted, key))
    texts = {
        name: "" if same_kind(name, old.schema, new.schema) else "::VARCHAR"
        for name in all_names(old.schema.names, new.schema.names)
    }
    same_key = " AND ".join(
        f"before.{quoted(name)}{texts[name]} IS NOT DISTINCT FROM after.{quoted(name)}{texts[name]}" for name in key
    )
    here = "datom here"
    while here in old.schema.names or here in new.schema.names:
        here += "_"
    here = quoted(here)
    columns, changed = [], []
    for name, text in texts.items():
        column = quoted(name)
        if name not in new.schema.names:
            columns.append(f"before.{column}")
        elif name not in old.schema.names:
            columns.append(f"after.{column}")
        else:
            sides = f"after.{column}{text}", f"before.{column}{text}"
            columns.append(f"CASE WHEN after.{here} THEN {sides[0]} ELSE {sides[1]} END AS {column}")
            if name not in key:
                changed.append(f"CASE WHEN {sides[1]} IS DISTINCT FROM {sides[0]} THEN {literal(name)} END")
    listed = f"list_filter([{', '.join(changed)}]::VARCHAR[], lambda name: name IS NOT NULL)"
    message = literal(f"datom_diff: several rows of one version have the same {', '.join(key)}")
    twice = " OR ".join(
        f"EXISTS (SELECT 1 FROM ({rows}) GROUP BY {keys} HAVING count(*) > 1)" for rows in (old.query, new.query)
    )
    return (
        f"SELECT CASE WHEN before.{here} IS NULL THEN 'added' WHEN after.{here} IS NULL THEN 'removed' ELSE 'changed' "
        f"END AS change, CASE WHEN before.{here} AND after.{here} THEN {listed} END AS changed, {', '.join(columns)} "
        f"FROM (SELECT true AS {here}, * FROM ({old.query})) AS before "
        f"FULL JOIN (SELECT true AS {here}, * FROM ({new.query})) AS after ON {same_key} "
        f"WHERE (SELECT CASE WHEN {twice} THEN error({message}) ELSE true END) "
        f"AND (before.{here} IS NULL OR after.{here} IS NULL OR len({listed}) > 0)"
    )


def same_kind(name: str, old: pa.Schema, new: pa.Schema) -> bool:
    """Whether both versions have the column, with values that compare as they are."""
    if name not in old.names or name not in new.names:
        return False
    first, second = normal_type(old.field(name).type), normal_type(new.field(name).type)
    return bool(
        first.equals(second)
        or (is_text(first) and is_text(second))
        or (is_number(first) and is_number(second))
        or (_is_moment(first) and _is_moment(second))
    )


def _is_moment(kind: pa.DataType) -> bool:
    """Whether values are days, or instants of no zone."""
    return bool(pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None))
