"""What a query refers to: every table, with its place and the version written for it, and nothing else at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from datom_flight.protocol.errors import DatomError

from .allowed import TABLE_FUNCTIONS, is_allowed
from .constants import constant_text
from .frames import CATALOG
from .selects import Select, Tree

HISTORY_FUNCTIONS = frozenset({"datom_tables", "datom_versions", "datom_lineage", "datom_column_changes", "datom_diff"})

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_SOURCES = frozenset(
    {"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT", "SHOW_REF"}
)
_EXPRESSION_NAMES = """
BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION LAMBDA LAMBDA_REF OPERATOR PARAMETER
POSITIONAL_REFERENCE STAR SUBQUERY TYPE WINDOW
"""
_EXPRESSIONS = frozenset(_EXPRESSION_NAMES.split())
_SYSTEM_SCHEMAS = frozenset({"information_schema", "pg_catalog"})
_READ_ONLY = "this server is read-only: a query reads tables, in one SELECT"


@dataclass(frozen=True, slots=True)
class Reference:
    """A table as a query names it.

    Attributes:
        schema: a project or a set, as written; None where only the table is named.
        version: a full id or a prefix of one.
        as_of: ISO 8601.
    """

    schema: str | None
    table: str
    version: str | None = None
    as_of: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether the query itself says which version."""
        return self.version is not None or self.as_of is not None


@dataclass(frozen=True, slots=True)
class HistoryCall:
    """A call of a history function: its arguments as texts, named ones by name."""

    function: str
    arguments: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Site:
    """A place in the tree where a table is read; `rename` says which one from now on."""

    asked: Reference | HistoryCall
    node: Tree

    @property
    def name(self) -> str:
        """What columns of the table are qualified with, unless an alias is given."""
        return self.asked.function if isinstance(self.asked, HistoryCall) else _last(self.node)

    def rename(self, schema: str, table: str) -> None:
        """Let the place read ``schema.table``, with the same alias and the same columns' names."""
        node = self.node
        places = ("alias", "sample", "query_location", "query_location_length")
        kept = {key: node[key] for key in places if key in node}
        columns = node.get("column_name_alias", [])
        node.clear()
        node.update(kept, type="BASE_TABLE", column_name_alias=columns, at_clause=None)
        node.update(catalog_name=CATALOG, schema_name=schema, table_name=table)
        node.update(qualified_name={"path": [CATALOG, schema, table]})


@dataclass(slots=True)
class CheckedSelect:
    """A SELECT that only reads what `sites` name."""

    select: Select
    sites: list[Site] = field(default_factory=list)

    @property
    def unnamed(self) -> Iterator[Tree]:
        """The columns whose names are their own texts, with a site in them: `Site.rename` would change their names."""
        sites = {id(site.node) for site in self.sites}
        for node in nodes(self.select.tree, lambda part: "select_list" in part):
            for item in node["select_list"]:
                parts = list(nodes(item, lambda part: id(part) in sites or _gives_names(part)))
                if parts and not item.get("alias") and not any(map(_gives_names, parts)):
                    yield item


def check(select: Select) -> CheckedSelect:
    """The tables that `select` reads, once it is sure that it does nothing else.

    Raises:
        DatomError: ``sql_error`` naming the place of what is not allowed.
    """
    found = CheckedSelect(select)
    try:
        _Walk(found).query(select.tree, frozenset())
    except RecursionError:
        raise DatomError.of("too_large", "the query is nested too deep") from None
    return found


class _Walk:
    """One walk over a tree. A scope holds the names, in lower case, that WITH has given to subqueries."""

    def __init__(self, found: CheckedSelect) -> None:
        self._found = found
        self._select = found.select

    def query(self, node: Tree, scope: frozenset[str]) -> None:
        if node.get("type") not in _QUERIES:
            raise self._refuse("only SELECT may stand here", node)
        for entry in node["cte_map"]["map"]:
            self._any({key: value for key, value in entry["value"].items() if key != "query_node"}, scope)
            self.query(entry["value"]["query_node"], scope)
            scope |= {str(entry["key"]).lower()}
        for key, value in node.items():
            if key == "cte_map":
                continue
            # a recursive query knows itself in its second part; its first part is a query of its own
            inner = (
                scope | {str(node["cte_name"]).lower()}
                if node["type"] == "RECURSIVE_CTE_NODE" and key != "left"
                else scope
            )
            self._any(value, inner)

    def _any(self, value: Any, scope: frozenset[str]) -> None:
        if isinstance(value, list):
            for item in value:
                self._any(item, scope)
        elif isinstance(value, dict):
            if "cte_map" in value:
                self.query(value, scope)
                return
            if "class" in value:
                self._expression(value)
            elif "sample" in value and "alias" in value:
                if self._source(value, scope):
                    return
            elif value.get("type") in ("INSERT_QUERY_NODE", "UPDATE_QUERY_NODE", "DELETE_QUERY_NODE"):
                raise self._refuse("only SELECT may stand here", value)
            for item in list(value.values()):
                self._any(item, scope)

    def _expression(self, node: Tree) -> None:
        kind = node["class"]
        if kind not in _EXPRESSIONS:
            raise self._refuse(f"an expression of the kind {kind} cannot be part of a query", node)
        if kind in ("FUNCTION", "WINDOW"):
            path = _path(node, node.get("function_name"))
            # before the name: a schema of DuckDB's own, or the column that it is called of
            if not is_allowed(path[-1]):
                raise self._refuse(f'no function "{".".join(path)[:80]}" that a query may call', node)
            if node.get("export_state"):
                raise self._refuse("EXPORT_STATE cannot be part of a query", node)

    def _source(self, node: Tree, scope: frozenset[str]) -> bool:
        """Whether all that is in a node of FROM has been looked at."""
        kind = node.get("type")
        if kind not in _SOURCES:
            raise self._refuse(f"{str(kind).lower()} cannot be part of a query", node)
        if kind == "BASE_TABLE":
            self._table(node, scope)
            return True
        if kind == "TABLE_FUNCTION":
            return self._table_function(node, scope)
        if kind == "SHOW_REF":
            return self._show(node)
        if kind == "PIVOT" and any(pivot.get("pivot_enum") for pivot in node.get("pivots") or []):
            raise self._refuse("PIVOT over a type's values is not supported", node)
        return False

    def _show(self, node: Tree) -> bool:
        path = _path(node, node.get("table_name"))
        if node.get("show_type") == "SHOW_SPECIAL" and path == ['"tables"']:
            self._found.sites.append(Site(HistoryCall("datom_tables", ()), node))
            return True
        if node.get("show_type") == "SHOW":
            node.update(show_type="DESCRIBE", query=_all_of(path))
        if not (node.get("query") and node.get("show_type") in ("DESCRIBE", "SUMMARY")):
            raise self._refuse("this SHOW is not supported", node, hint="list tables with SHOW TABLES")
        return False

    def _table(self, node: Tree, scope: frozenset[str]) -> None:
        path = _path(node, node.get("table_name"))
        if len(path) == 3 and path[0].lower() == CATALOG:
            path = path[1:]
        if len(path) > 2 or not path:
            raise self._refuse(
                f'"{".".join(path)[:80]}" is not a table', node, hint="write table, PROJECT.table or set.table"
            )
        if not node.get("at_clause"):
            if len(path) == 1 and path[0].lower() in scope:
                return
            if len(path) == 2 and path[0].lower() == "recurring" and path[1].lower() in scope:
                return
        if len(path) == 2 and path[0].lower() in _SYSTEM_SCHEMAS:
            raise self._refuse(
                f'the schema "{path[0]}" is not served', node, hint="list tables with SELECT * FROM datom_tables()"
            )
        schema, name = (None, path[0]) if len(path) == 1 else path
        self._found.sites.append(Site(self._reference(schema, name, node), node))

    def _reference(self, schema: str | None, name: str, node: Tree) -> Reference:
        for part in (schema or "", name):
            if part.startswith("@") or part.endswith("@"):
                raise self._refuse(f'"{part[:80]}" is not a name and its version', node, hint='write "table@version"')
        table, at, written = name.rpartition("@")
        table = table if at else name
        at_clause = node.get("at_clause")
        if at_clause is None:
            return Reference(schema, table, written if at else None)
        if at:
            raise self._refuse(f'"{name[:80]}" names a version, and AT names another', node, hint="leave one out")
        text = constant_text(at_clause["expr"])
        if not text:
            raise self._refuse(
                "AT takes a constant text",
                at_clause["expr"],
                hint="write AT (VERSION => '8a3b21cc') or AT (TIMESTAMP => '2026-01-15'), an alias before it",
            )
        if str(at_clause["unit"]).upper() == "VERSION":
            return Reference(schema, table, version=text)
        return Reference(schema, table, as_of=text)

    def _table_function(self, node: Tree, scope: frozenset[str]) -> bool:
        function = node["function"]
        path = _path(function, function.get("function_name"))
        name = path[0].lower() if len(path) == 1 else ".".join(path)
        if name in HISTORY_FUNCTIONS:
            self._found.sites.append(Site(self._history_call(name, function), node))
            return True
        if name not in TABLE_FUNCTIONS:
            raise self._refuse(f'no table function "{name[:80]}" that a query may call', node, hint=_READ_ONLY)
        for key, value in node.items():
            # the function itself is no scalar one
            self._any(function["arguments"] if key == "function" else value, scope)
        return True

    def _history_call(self, name: str, function: Tree) -> HistoryCall:
        arguments: list[str] = []
        options: list[tuple[str, str]] = []
        for argument in function["arguments"]:
            text = constant_text(argument["expression"])
            if text is None:
                raise self._refuse(f"{name} takes constant texts", argument["expression"])
            if argument.get("name"):
                options.append((str(argument["name"]).lower(), text))
            else:
                arguments.append(text)
        return HistoryCall(name, tuple(arguments), tuple(options))

    def _refuse(self, message: str, node: Mapping[str, Any], hint: str = _READ_ONLY) -> DatomError:
        return self._select.error(message, node, hint=hint)


def nodes(tree: Any, wanted: Callable[[Tree], bool]) -> Iterator[Tree]:
    """Every node of a tree for which `wanted` holds, outermost first."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if wanted(value):
                yield value
            waiting.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _all_of(path: list[str]) -> Tree:
    """The tree of a SELECT of all that a table has."""
    return {
        "type": "SELECT_NODE",
        "cte_map": {"map": []},
        "modifiers": [],
        "select_list": [{"class": "STAR", "type": "STAR", "alias": ""}],
        "from_table": {"type": "BASE_TABLE", "alias": "", "sample": None, "qualified_name": {"path": path}},
        "aggregate_handling": "STANDARD_HANDLING",
    }


def _gives_names(node: Tree) -> bool:
    """Whether a node is COLUMNS(…), after whose columns an expression around it is named."""
    return node.get("class") == "STAR" and bool(node.get("columns"))


def _path(node: Mapping[str, Any], name: Any) -> list[str]:
    """A qualified name. What DuckDB goes by is the path, not the older fields beside it."""
    qualified = node.get("qualified_name")
    return [str(part) for part in qualified["path"]] if qualified else [str(name)]


def _last(node: Mapping[str, Any]) -> str:
    return _path(node, node.get("table_name"))[-1]
