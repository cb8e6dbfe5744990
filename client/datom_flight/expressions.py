"""pyarrow's filters as conditions in SQL: those that the server takes and that mean the same there.

An expression of pyarrow's shows nothing of its inside, but the form it is pickled in does. That form is not promised to
stay, so what is read from it is put together again and compared: where it is not the same, nothing is translated.
"""

from __future__ import annotations

import io
import operator
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

MAX_TEXT_LENGTH = 100_000
MAX_PARTS = 500
"""Of one condition; the server takes twice as many."""
MAX_VALUES = 5_000
"""Of one ``IN``."""

_LINE = re.compile(r"^(call|end|field_ref|nested_field_ref|literal|options): '(.*)'$")
_COMPARISONS = {
    "equal": ("=", operator.eq),
    "not_equal": ("<>", operator.ne),
    "less": ("<", operator.lt),
    "less_equal": ("<=", operator.le),
    "greater": (">", operator.gt),
    "greater_equal": (">=", operator.ge),
}
_JUNCTIONS = {"and_kleene": (" AND ", operator.and_), "or_kleene": (" OR ", operator.or_)}


@dataclass(frozen=True, slots=True)
class Split:
    """A filter in two parts, both of which a row must pass.

    Attributes:
        where: SQL; None is no condition.
        rest: what has no such form; None is nothing.
        rest_columns: that `rest` reads.
    """

    where: str | None = None
    rest: pc.Expression | None = None
    rest_columns: frozenset[str] = frozenset()


def split(expression: pc.Expression, schema: pa.Schema) -> Split:
    """The filter of rows of `schema`, as much of it in SQL as can be."""
    tree = _decoded(expression)
    if tree is None:
        return Split(rest=expression, rest_columns=frozenset(schema.names))
    texts: list[str] = []
    rest: list[_Node] = []
    room, parts = MAX_TEXT_LENGTH, MAX_PARTS
    for node in tree.flat("and_kleene"):
        text, size = _condition(node, schema), node.parts
        if text is None or len(text) > room or size > parts:
            rest.append(node)
        else:
            texts.append(text)
            room, parts = room - len(text) - 5, parts - size
    return Split(
        " AND ".join(texts) or None,
        reduce(operator.and_, [node.expression() for node in rest]) if rest else None,
        frozenset(name for node in rest for name in node.columns()),
    )


@dataclass(frozen=True, slots=True)
class _Node:
    """A part of an expression: a call of a function on such parts, a column, a field in a column, or a value."""

    name: str = ""
    arguments: tuple[_Node, ...] = ()
    options: Mapping[str, Any] | None = None
    path: tuple[str, ...] = ()
    value: pa.Scalar | None = None

    @property
    def column(self) -> str | None:
        return self.path[0] if len(self.path) == 1 else None

    @property
    def parts(self) -> int:
        return 1 + sum(argument.parts for argument in self.arguments)

    def columns(self) -> Iterator[str]:
        yield from self.path[:1]
        for argument in self.arguments:
            yield from argument.columns()

    def flat(self, name: str) -> Iterator[_Node]:
        """The parts that calls of `name` put together, however deep."""
        if self.name != name:
            yield self
            return
        for argument in self.arguments:
            yield from argument.flat(name)

    def expression(self) -> pc.Expression:
        """The part as pyarrow has it. Raises LookupError, TypeError or ValueError: it is of no kind known here."""
        if self.path:
            return pc.field(*self.path)
        if self.value is not None:
            return pc.scalar(self.value)
        given = [argument.expression() for argument in self.arguments]
        return _MAKERS[self.name](*given, **_keywords(self.name, self.options or {}))


def _keywords(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if name == "is_in":
        return {"value_set": options["value_set"]}
    return {"nan_is_null": options["nan_is_null"]} if name == "is_null" else {}


_MAKERS: Mapping[str, Callable[..., pc.Expression]] = {
    **{name: make for name, (_, make) in (_COMPARISONS | _JUNCTIONS).items()},
    "invert": operator.invert,
    "is_valid": lambda part: part.is_valid(),
    "is_null": lambda part, nan_is_null: part.is_null(nan_is_null=nan_is_null),
    "is_in": lambda part, value_set: part.isin(value_set),
    "if_else": pc.if_else,
}


# From pyarrow


def _decoded(expression: pc.Expression) -> _Node | None:
    """What `expression` is made of; None where it holds something that is not known here."""
    try:
        with pa.ipc.open_file(io.BytesIO(expression.__reduce__()[1][0])) as reader:
            batch = reader.get_batch(0)
        tokens = deque(_tokens(batch.schema))
        tree = _parsed(tokens, batch)
        same = not tokens and tree.expression().equals(expression)
    except (LookupError, TypeError, ValueError, RecursionError, OSError, pa.ArrowException):
        return None
    return tree if same else None


def _tokens(schema: pa.Schema) -> Iterator[tuple[str, str]]:
    # As a dict, the metadata would have lost all but one of the keys that are the same; as text it has them.
    text = schema.to_string(truncate_metadata=False, show_field_metadata=False)
    for line in text.partition("-- schema metadata --\n")[2].splitlines():
        found = _LINE.match(line)
        if found is None:
            raise ValueError(line)
        yield found[1], found[2]


def _parsed(tokens: deque[tuple[str, str]], batch: pa.RecordBatch) -> _Node:
    kind, text = tokens.popleft()
    if kind == "field_ref":
        return _Node(path=(text,))
    if kind == "nested_field_ref":
        return _Node(path=tuple(tokens.popleft()[1] for _ in range(int(text))))
    if kind == "literal":
        return _Node(value=batch.column(int(text))[0])
    if kind != "call":
        raise ValueError(kind)
    arguments: list[_Node] = []
    options: Mapping[str, Any] | None = None
    while tokens[0] != ("end", text):
        if tokens[0][0] == "options":
            held = batch.column(int(tokens.popleft()[1]))[0]
            options = {key: held[key].values if key == "value_set" else held[key].as_py() for key in held}
        else:
            arguments.append(_parsed(tokens, batch))
    tokens.popleft()
    return _Node(text, tuple(arguments), options)


# To SQL


def _condition(node: _Node, schema: pa.Schema, of: str | None = None) -> str | None:
    """The node as a condition; None where SQL has none that is true, false and NULL of the same rows.

    Args:
        of: the column whose NULLs make the condition NULL, whatever the node makes of them.
    """
    for name, (word, _) in _JUNCTIONS.items():
        if node.name == name:
            parts = [_condition(part, schema, of) for part in node.flat(name)]
            return None if None in parts else f"({word.join(part for part in parts if part)})"
    if node.name == "invert":
        negated = _condition(node.arguments[0], schema, of)
        return None if negated is None else f"NOT ({negated})"
    if node.name in _COMPARISONS and not _differs_for_nan(node, schema):
        column, text = _column(node.arguments[0], schema, of), _value(node, schema)
        return None if column is None or text is None else f"{column} {_COMPARISONS[node.name][0]} {text}"
    if of is not None:
        return _membership(node, schema, of)
    if node.name in ("is_valid", "is_null") and not (node.options or {}).get("nan_is_null"):
        column = _column(node.arguments[0], schema)
        return column and f"{column} IS {'NOT ' if node.name == 'is_valid' else ''}NULL"
    if node.name == "if_else":
        known, condition, otherwise = node.arguments
        if known.name == "is_valid" and otherwise.value is not None and not otherwise.value.is_valid:
            return _condition(condition, schema, known.arguments[0].column)
    return None


def _differs_for_nan(node: _Node, schema: pa.Schema) -> bool:
    """Whether a column may hold NaN, which in SQL, and not in pyarrow, is greater than any number."""
    name = node.arguments[0].column
    is_float = name is not None and pa.types.is_floating(schema.field(name).type)
    return is_float and node.name in ("greater", "greater_equal")


def _membership(node: _Node, schema: pa.Schema, of: str) -> str | None:
    """``IN``: pyarrow makes it false of NULL, and SQL NULL."""
    if node.name != "is_in":
        return None
    column, values = _column(node.arguments[0], schema, of), (node.options or {})["value_set"]
    if column is None or not 0 < len(values) <= MAX_VALUES:
        return None
    texts = [_literal(value, schema.field(of).type) for value in values]
    return None if None in texts else f"{column} IN ({', '.join(text for text in texts if text)})"


def _column(node: _Node, schema: pa.Schema, of: str | None = None) -> str | None:
    name = node.column
    if (
        name is None
        or of not in (None, name)
        or schema.get_field_index(name) < 0
        or not _is_plain(schema.field(name).type)
        or "\0" in name
    ):
        return None
    return '"' + name.replace('"', '""') + '"'


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        _is_text(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or kind in (pa.float32(), pa.float64(), pa.date32())
        or pa.types.is_decimal128(kind)
        or ((pa.types.is_time(kind) or pa.types.is_timestamp(kind)) and kind.unit != "ns")
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _value(node: _Node, schema: pa.Schema) -> str | None:
    value = node.arguments[1].value
    if value is None or node.arguments[0].column is None:
        return None
    return _literal(value, schema.field(node.arguments[0].column).type)


def _literal(value: pa.Scalar, kind: pa.DataType) -> str | None:
    """`value` as a text in SQL, which takes the type `kind` of the column it is compared with."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    try:
        # safe: a value between two that the column can hold is not rounded to one of them
        text = _text(value.cast(kind, safe=True), kind) if value.is_valid else None
    except (pa.ArrowException, ValueError, OverflowError):
        return None
    return None if text is None or "\0" in text else "'" + text.replace("'", "''") + "'"


def _text(value: pa.Scalar, kind: pa.DataType) -> str | None:
    if _is_text(kind):
        return str(value)
    if pa.types.is_boolean(kind):
        return "true" if value.as_py() else "false"
    if pa.types.is_integer(kind):
        return str(value.as_py())
    if pa.types.is_decimal(kind):
        return format(value.as_py(), "f")
    if pa.types.is_floating(kind):
        number = value.as_py()
        return repr(number) if number == number else None
    # The server reads years of four digits.
    text = value.cast(pa.string()).as_py()
    return text if pa.types.is_time(kind) or re.match(r"[0-9]{4}-", text) else None
