"""SQL expressions as syntax trees, by DuckDB's own lexer and parser; nothing of a caller's is ever executed."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from datom_flight.protocol.errors import InvalidRequestError

if TYPE_CHECKING:
    import duckdb

Node = Mapping[str, Any]

MAX_TEXT_BYTES = 512 * 1024
MAX_TOKENS = 30_000
MAX_DEPTH = 100

_BEFORE = "SELECT * FROM t WHERE ("
_AFTER = ")"
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_PLAIN_SELECT = {"type", "select_list", "from_table", "where_clause", "aggregate_handling"}
_SETTINGS = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "threads": "1",
    "memory_limit": "256MB",
}


@dataclass(frozen=True, slots=True)
class Source:
    """The text of an expression, for naming places in it."""

    text: str

    def error(
        self, message: str, offset: int | None, *, length: int = 0, hint: str = "", code: str | None = None
    ) -> InvalidRequestError:
        """The `InvalidRequestError` for the place at `offset`, in bytes of UTF-8; None names no place."""
        if offset is None:
            return InvalidRequestError(f"where: {message}", hint=hint, code=code)
        data = self.text.encode()
        before = data[:offset].decode(errors="ignore")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        fields: dict[str, Any] = {"position": len(before) + 1, "line": line, "column": column}
        if length:
            fields["text"] = data[offset : offset + length].decode(errors="ignore")[:200]
        return InvalidRequestError(
            f"where, line {line} column {column}: {message}", hint=hint, code=code, fields=fields
        )


class ExpressionParser:
    """Turns the text of one SQL expression into its syntax tree.

    Safe to use from many threads, one at a time inside. Parsing the first text loads DuckDB, 40 MB in a tenth of a
    second; a typical text takes under a millisecond. The database behind it is empty, in memory, without access to
    files or extensions, and only ever runs ``json_serialize_sql`` over a bound text.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        connection = duckdb.connect(":memory:", config=dict(_SETTINGS))
        connection.execute(f"SET max_expression_depth = {MAX_DEPTH}")
        connection.execute("SET lock_configuration = true")
        return connection

    def close(self) -> None:
        """Let go of the database, if there is one. Parsing afterwards is an error."""
        with self._lock:
            if "_connection" in vars(self):
                self._connection.close()

    def parse(self, source: Source) -> Node:
        """The syntax tree of `source`, as ``json_serialize_sql`` writes one; see `place` for where its nodes stand.

        Raises:
            InvalidRequestError: ``invalid_argument`` naming the place when the text is not exactly one expression;
                ``too_large`` when it is over `MAX_TEXT_BYTES`, `MAX_TOKENS` or `MAX_DEPTH`.
        """
        import duckdb

        check_tokens(source)
        try:
            with self._lock:
                self._connection.execute("SELECT json_serialize_sql($1)", [_BEFORE + source.text + _AFTER])
                row = self._connection.fetchone()
        except duckdb.Error as error:
            raise source.error(f"cannot be parsed: {str(error).splitlines()[0][:200]}", None) from None
        try:
            answer = json.loads(row[0]) if row else {}
        except RecursionError:
            raise _too_deep(source, None) from None
        if answer.get("error", True):
            raise _syntax_error(source, answer)
        return _only_expression(source, answer)


def place(node: Node) -> tuple[int, int] | None:
    """Where `node` begins in the expression's text and how long it is, in bytes; None for what has no place."""
    start, length = node.get("query_location"), node.get("query_location_length") or 0
    if isinstance(start, int) and len(_BEFORE) <= start < 2**62 and length:
        return start - len(_BEFORE), length
    return None


def check_tokens(source: Source) -> None:
    """Return when DuckDB's lexer finds a text of lawful size, its brackets in pairs, nothing after its end.

    The parser's time grows with the square of the brackets left open, so they are refused before it starts.

    Raises:
        InvalidRequestError: as `ExpressionParser.parse` does.
    """
    try:
        data = source.text.encode()
    except UnicodeEncodeError:
        raise source.error("the text is not Unicode", None) from None
    if len(data) > MAX_TEXT_BYTES:
        raise source.error(
            f"the text has {len(data)} bytes, at most {MAX_TEXT_BYTES} are accepted", None, code="too_large"
        )
    if b"\0" in data:
        raise source.error("a NUL character cannot be part of an expression", data.index(b"\0"), length=1)
    if not source.text.strip():
        raise source.error("the text is empty", None, hint='write a condition on the columns, like "AGE >= 65"')
    import duckdb

    tokens = duckdb.tokenize(source.text)
    if len(tokens) > MAX_TOKENS:
        raise source.error(
            f"the text has {len(tokens)} words, at most {MAX_TOKENS} are accepted", None, code="too_large"
        )
    waiting: list[str] = []
    for offset, kind in tokens:
        if kind == duckdb.token_type.comment:
            raise source.error("a comment cannot be part of an expression", offset, length=2, hint="leave comments out")
        if kind != duckdb.token_type.operator:
            continue
        sign = chr(data[offset])
        if sign == ";":
            raise source.error('";" cannot be part of an expression', offset, length=1, hint="write one expression")
        if sign in _CLOSING:
            waiting.append(_CLOSING[sign])
            if len(waiting) > MAX_DEPTH:
                raise _too_deep(source, offset)
        elif sign in ")]}" and (not waiting or waiting.pop() != sign):
            raise source.error(f'"{sign}" closes nothing', offset, length=1)
    if waiting:
        raise source.error(f'"{waiting[-1]}" is missing at the end', len(data))


def _only_expression(source: Source, answer: Mapping[str, Any]) -> Node:
    """The one expression of an answer that is exactly our own SELECT around it."""
    statements = answer.get("statements", [])
    node = statements[0].get("node", {}) if len(statements) == 1 else {}
    star, table = (node.get("select_list") or [{}])[0], node.get("from_table") or {}
    present = {key for key, value in node.items() if value and value != {"map": []}}
    if not (
        present == _PLAIN_SELECT
        and node["type"] == "SELECT_NODE"
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and len(node["select_list"]) == 1
        and star.get("class") == "STAR"
        and table.get("type") == "BASE_TABLE"
        and table.get("table_name") == "t"
        and not table.get("sample")
        and not table.get("at_clause")
    ):
        raise source.error(
            "the text is not one expression", None, hint="write one condition, without clauses around it"
        )
    expression: Node = node["where_clause"]
    return expression


def _syntax_error(source: Source, answer: Mapping[str, Any]) -> InvalidRequestError:
    message = str(answer.get("error_message", "syntax error"))
    if "expression depth" in message:
        return _too_deep(source, None)
    position = str(answer.get("position", ""))
    size = len(source.text.encode())
    offset = min(int(position) - len(_BEFORE), size) if position.isdigit() else None
    # DuckDB names the bracket we put after the text when the text ends too early.
    message = "the expression ends too early" if offset == size else message.splitlines()[0]
    return source.error(message, offset, hint="see docs/where.md for what may be written")


def _too_deep(source: Source, offset: int | None) -> InvalidRequestError:
    return source.error(
        f"the expression is nested more than {MAX_DEPTH} deep",
        offset,
        code="too_large",
        hint="nest less, or write alternatives as IN (…)",
    )
