"""Queries that need no DuckDB: a plain read of one table (columns, a condition, a limit), or a row of constants."""

from __future__ import annotations

import copy

import pyarrow as pa

from datom_flight.protocol.errors import DatomError
from datom_flight.protocol.messages import ReadRequest

from .references import CheckedSelect, Reference, nodes
from .resolving import Pinned
from .selects import SelectParser, Tree
from .where import WhereCompiler

_PLAIN = frozenset({"type", "select_list", "from_table", "where_clause", "aggregate_handling", "modifiers"})
_CONSTANT = _PLAIN - {"where_clause", "modifiers"}
_CONSTANTS = frozenset({"CONSTANT", "CAST", "TYPE"})


def is_constant(checked: CheckedSelect) -> bool:
    """Whether a SELECT is one row of constants, of nothing else, so that it comes out the same whenever it runs."""
    node = checked.select.tree
    return (
        _present(node) <= _CONSTANT
        and node["type"] == "SELECT_NODE"
        and node["from_table"]["type"] == "EMPTY"
        and all(part["class"] in _CONSTANTS for part in nodes(node["select_list"], lambda part: "class" in part))
    )


def table_of(checked: CheckedSelect) -> Reference | None:
    """The one table of a SELECT that may be a plain read; None when it is none."""
    node = checked.select.tree
    table = node.get("from_table") or {}
    if not (
        node["type"] == "SELECT_NODE"
        and _present(node) <= _PLAIN
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and table.get("type") == "BASE_TABLE"
        and not table.get("sample")
        and not table.get("column_name_alias")
        and len(checked.sites) == 1
        and _limit(node) != -1
    ):
        return None
    asked = checked.sites[0].asked
    return asked if isinstance(asked, Reference) else None


def read_request(
    checked: CheckedSelect, pinned: Pinned, schema: pa.Schema, parser: SelectParser, where: WhereCompiler
) -> ReadRequest | None:
    """The read that gives the same rows as a query for which `table_of` gave a table; None when there is none.

    Args:
        schema: of the stored table.
    """
    node = copy.deepcopy(checked.select.tree)
    names = _qualifiers(checked)
    if not _unqualify(node, names, schema):
        return None
    columns = _columns(node["select_list"], schema)
    if columns == ():
        return None
    text = None
    if node.get("where_clause") is not None:
        text = parser.expression(node["where_clause"])
        try:
            where.compile(text, schema)
        except DatomError:
            return None
    return ReadRequest(
        project=pinned.project,
        table=pinned.table,
        version=pinned.version,
        columns=columns,
        where=text,
        limit=_limit(node),
        data_sha=None if pinned.version else pinned.data_sha,
    )


def _present(node: Tree) -> set[str]:
    """The clauses that a SELECT has."""
    return {key for key, value in node.items() if value and value != {"map": []}}


def _limit(node: Tree) -> int | None:
    """The rows asked for: None is all, -1 is something other than a number."""
    modifiers = node.get("modifiers") or []
    if not modifiers:
        return None
    limit = modifiers[0].get("limit") or {}
    literal = limit.get("literal") or {}
    text = str(literal.get("text", ""))
    plain = (
        len(modifiers) == 1
        and modifiers[0]["type"] == "LIMIT_MODIFIER"
        and modifiers[0].get("limit_type") == "ROW_COUNT"
        and not modifiers[0].get("offset")
        and literal.get("kind") == "INTEGER"
        and text.isdigit()
        and int(text) < 2**63
    )
    return int(text) if plain else -1


def _qualifiers(checked: CheckedSelect) -> set[str]:
    site = checked.sites[0]
    return {str(site.node.get("alias") or site.name).lower()}


def _unqualify(node: Tree, names: set[str], schema: pa.Schema) -> bool:
    """Leave of every column its stored name alone; False when one is no column of the table."""
    scope = {"select_list": node["select_list"], "where_clause": node.get("where_clause")}
    for found in nodes(scope, lambda part: part.get("class") == "COLUMN_REF"):
        path = found["column_names"]
        if len(path) == 2 and path[0].lower() in names:
            path = path[1:]
        stored = _stored(path[0], schema) if len(path) == 1 else None
        if stored is None:
            return False
        found["column_names"] = [stored]
    return True


def _stored(name: str, schema: pa.Schema) -> str | None:
    matching = [stored for stored in schema.names if stored.lower() == name.lower()]
    return matching[0] if len(matching) == 1 else None


def _columns(listed: list[Tree], schema: pa.Schema) -> tuple[str, ...] | None:
    """The columns selected, None for all of them; an empty tuple when something else is."""
    if len(listed) == 1 and listed[0]["class"] == "STAR":
        star = listed[0]
        plain = not any(
            star.get(key)
            for key in ("alias", "relation_name", "exclude_list", "replace_list", "columns", "expr", "rename_list")
        ) and not star.get("qualified_exclude_list")
        return None if plain and len(set(schema.names)) == len(schema.names) else ()
    if not all(item["class"] == "COLUMN_REF" and item.get("alias", "") == "" for item in listed):
        return ()
    names = tuple(str(item["column_names"][0]) for item in listed)
    return names if len(set(names)) == len(names) else ()
