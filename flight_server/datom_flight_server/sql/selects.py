"""Queries as syntax trees and back, by DuckDB's own parser; nothing of a caller's is ever executed here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from datom_flight.protocol.errors import DatomError

from .recent import Recent

if TYPE_CHECKING:
    import duckdb

Tree = dict[str, Any]
"""A node of a statement's tree as ``json_serialize_sql`` writes it: ours alone, so it may be changed in place."""

MAX_TEXT_BYTES = 512 * 1024
MAX_TOKENS = 30_000
MAX_BRACKETS = 100
MAX_DEPTH = 200

_KEPT_TREES = 256
_KEPT_TREE_BYTES = 256 * 1024

_EXPRESSION: Tree = {
    "type": "SELECT_NODE",
    "modifiers": [],
    "cte_map": {"map": []},
    "from_table": {"type": "EMPTY", "alias": "", "sample": None},
    "aggregate_handling": "STANDARD_HANDLING",
}
"""A SELECT of nothing yet."""

_READ_ONLY = "this server is read-only: write one SELECT (WITH, VALUES, FROM and PIVOT … IN included)"
_SETTINGS = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "threads": "1",
    "memory_limit": "512MB",
}


@dataclass(frozen=True, slots=True)
class Select:
    """One parsed SELECT.

    Attributes:
        text: what was written.
        tree: the statement's root node.
        parameters: what is written ``?``, ``$1`` or ``$name``: names in order, ``"1"`` for the first ``?``.
    """

    text: str
    tree: Tree
    parameters: tuple[str, ...]

    def error(self, message: str, node: Mapping[str, Any] | None = None, *, hint: str = "") -> DatomError:
        """The ``sql_error`` that `message` is, naming the place of `node`."""
        start, length = (node or {}).get("query_location"), (node or {}).get("query_location_length") or 0
        offset = start if isinstance(start, int) and start < 2**62 else None
        return located_error(self.text, message, offset, length, hint=hint)


def located_error(
    text: str, message: str, offset: int | None, length: int = 0, *, hint: str = "", code: str = "sql_error"
) -> DatomError:
    """The error about the place at `offset`, in bytes of UTF-8, of a query's text; None names no place."""
    data = text.encode(errors="replace")
    if offset is None or offset > len(data):
        return DatomError.of(code, message, hint=hint)
    before = data[:offset].decode(errors="ignore")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    fields: dict[str, Any] = {"position": len(before) + 1, "line": line, "column": column}
    if length:
        fields["text"] = data[offset : offset + length].decode(errors="ignore")[:200]
    return DatomError.of(code, f"line {line} column {column}: {message}", hint=hint, fields=fields)


class SelectParser:
    """Turns the text of a query into its tree, and trees into text. Safe to use from many threads.

    The database behind it is empty, in memory, without access to files or extensions, and only ever runs
    ``json_serialize_sql`` and ``json_deserialize_sql`` over a bound text.
    """

    def __init__(self) -> None:
        self._trees: Recent[str, str] = Recent(_KEPT_TREES)
        self._texts: Recent[str, str] = Recent(_KEPT_TREES)

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        connection = duckdb.connect(":memory:", config=dict(_SETTINGS))
        connection.execute(f"SET GLOBAL max_expression_depth = {MAX_DEPTH}")
        connection.execute("SET GLOBAL lock_configuration = true")
        return connection

    def close(self) -> None:
        """Let go of the database, if there is one. Parsing afterwards is an error."""
        if "_connection" in vars(self):
            self._connection.close()

    def parse(self, text: str) -> Select:
        """The one SELECT that `text` is.

        Raises:
            DatomError: ``sql_error`` naming the place when it is anything else; ``too_large`` when it is over
                `MAX_TEXT_BYTES`, `MAX_TOKENS`, `MAX_BRACKETS` or `MAX_DEPTH`.
        """
        try:
            answer = json.loads(self._trees.get(text) or self._parsed(text))
        except RecursionError:
            raise _too_deep() from None
        if answer.get("error", True):
            raise self._refusal(text, answer)
        statements = answer["statements"]
        if len(statements) != 1:
            raise DatomError.of(
                "sql_error", f"the query has {len(statements)} statements, expected one", hint=_READ_ONLY
            )
        named = sorted(statements[0].get("named_param_map") or [], key=lambda entry: int(entry["value"]))
        return Select(text, statements[0]["node"], tuple(str(entry["key"]) for entry in named))

    def text(self, tree: Tree) -> str:
        """The text of a tree, in DuckDB's own spelling."""
        try:
            body = json.dumps({"error": False, "statements": [{"node": tree, "named_param_map": []}]})
        except RecursionError:
            raise _too_deep() from None
        known = self._texts.get(body)
        if known is not None:
            return known
        text = self._run("SELECT json_deserialize_sql($1)", body)
        if len(body) <= _KEPT_TREE_BYTES:
            self._texts.put(body, text)
        return text

    def expression(self, node: Tree) -> str:
        """The text of a part of a SELECT's list, or of its WHERE."""
        return self.text(_EXPRESSION | {"select_list": [node]}).removeprefix("SELECT ")

    def _parsed(self, text: str) -> str:
        _check_size(text)
        tree = self._run("SELECT json_serialize_sql($1)", text)
        if len(tree) <= _KEPT_TREE_BYTES:
            self._trees.put(text, tree)
        return tree

    def _run(self, statement: str, argument: str) -> str:
        import duckdb

        with self._connection.cursor() as connection:
            try:
                row = connection.execute(statement, [argument]).fetchone()
            except duckdb.Error as error:
                raise DatomError.of("sql_error", f"cannot be parsed: {first_line(error)}", hint="") from None
        return str(row[0]) if row else "{}"

    def _refusal(self, text: str, answer: Mapping[str, Any]) -> DatomError:
        message, position = str(answer.get("error_message", "syntax error")), str(answer.get("position", ""))
        if "expression depth" in message:
            return _too_deep()
        if answer.get("error_type") == "not implemented":
            return self._not_a_select(text)
        return located_error(text, message.splitlines()[0], int(position) if position.isdigit() else None)

    def _not_a_select(self, text: str) -> DatomError:
        with self._connection.cursor() as connection:
            try:
                kinds = [statement.type.name for statement in connection.extract_statements(text)]
            except ValueError:
                # of a few kinds, the library does not know the names
                kinds = [""]
        if kinds == ["MULTI"]:
            return DatomError.of(
                "sql_error",
                "a PIVOT whose columns depend on the data has no schema before it runs",
                hint="name the values: PIVOT t ON x IN ('a', 'b') USING sum(y)",
            )
        other = next((kind for kind in kinds if kind != "SELECT"), "")
        return DatomError.of("sql_error", f'a statement of the kind "{other}" is not a SELECT', hint=_READ_ONLY)


def first_line(error: BaseException) -> str:
    """What DuckDB says is wrong, without the lines that quote the query."""
    text = str(error).strip()
    return text.splitlines()[0][:500] if text else type(error).__name__


def _check_size(text: str) -> None:
    """Return when the text is of lawful size; the parser's time grows with the square of the brackets left open."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise DatomError.of("sql_error", "the query is not Unicode", hint="") from None
    if size > MAX_TEXT_BYTES:
        raise DatomError.of("too_large", f"the query has {size} bytes, at most {MAX_TEXT_BYTES} are accepted")
    if "\0" in text:
        raise DatomError.of("sql_error", "a NUL character cannot be part of a query", hint="")
    if not text.strip():
        raise DatomError.of("sql_error", "the query is empty", hint=_READ_ONLY)
    import duckdb

    tokens = duckdb.tokenize(text)
    if len(tokens) > MAX_TOKENS:
        raise DatomError.of("too_large", f"the query has {len(tokens)} words, at most {MAX_TOKENS} are accepted")
    data, depth = text.encode(), 0
    for offset, kind in tokens:
        if kind == duckdb.token_type.operator and offset < len(data):
            depth += {40: 1, 91: 1, 123: 1, 41: -1, 93: -1, 125: -1}.get(data[offset], 0)
            if depth > MAX_BRACKETS:
                raise _too_deep()


def _too_deep() -> DatomError:
    return DatomError.of(
        "too_large", f"the query is nested more than {MAX_BRACKETS} brackets or {MAX_DEPTH} parts deep"
    )
