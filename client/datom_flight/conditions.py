"""Filters of pyarrow's as conditions in SQL: those that the server takes, and that mean the same there."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from .expressions import Node, decoded

MAX_TEXT_LENGTH = 100_000
MAX_PARTS = 500
"""Of one condition; the server takes twice as many."""
MAX_VALUES = 5_000
"""Of one ``IN``."""

_COMPARISONS = {
    "equal": "=",
    "not_equal": "<>",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
_JUNCTIONS = {"and_kleene": " AND ", "or_kleene": " OR "}


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
    tree = decoded(expression)
    try:
        if tree is not None:
            return _split(tree, schema)
    except RecursionError:
        # As of what could not be decoded: nothing is known of it but that it is a filter.
        pass
    return Split(rest=expression, rest_columns=frozenset(schema.names))


def _split(tree: Node, schema: pa.Schema) -> Split:
    texts: list[str] = []
    rest: list[Node] = []
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


def _condition(node: Node, schema: pa.Schema, of: str | None = None) -> str | None:
    """The node as a condition; None where SQL has none that is true, false and NULL of the same rows.

    Args:
        of: the column whose NULLs make the condition NULL, whatever the node makes of them.
    """
    for name, word in _JUNCTIONS.items():
        if node.name == name:
            parts = [_condition(part, schema, of) for part in node.flat(name)]
            return None if None in parts else f"({word.join(part for part in parts if part)})"
    if node.name == "invert":
        negated = _condition(node.arguments[0], schema, of)
        return None if negated is None else f"NOT ({negated})"
    if node.name in _COMPARISONS and not _differs_for_nan(node, schema):
        column, text = _column(node.arguments[0], schema, of), _value(node, schema)
        return None if column is None or text is None else f"{column} {_COMPARISONS[node.name]} {text}"
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


def _differs_for_nan(node: Node, schema: pa.Schema) -> bool:
    """Whether a column may hold NaN, which in SQL, and not in pyarrow, is greater than any number."""
    name = node.arguments[0].column
    is_float = name is not None and pa.types.is_floating(schema.field(name).type)
    return is_float and node.name in ("greater", "greater_equal")


def _membership(node: Node, schema: pa.Schema, of: str) -> str | None:
    """``IN``: pyarrow makes it false of NULL, and SQL NULL; pyarrow tells 0.0 from -0.0 there, and SQL does not."""
    if node.name != "is_in":
        return None
    column, values = _column(node.arguments[0], schema, of), (node.options or {})["value_set"]
    if column is None or not 0 < len(values) <= MAX_VALUES:
        return None
    kind = schema.field(of).type
    if pa.types.is_floating(kind) and 0.0 in values.to_pylist():
        return None
    texts = [_literal(value, kind) for value in values]
    return None if None in texts else f"{column} IN ({', '.join(text for text in texts if text)})"


def _column(node: Node, schema: pa.Schema, of: str | None = None) -> str | None:
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


def _value(node: Node, schema: pa.Schema) -> str | None:
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
