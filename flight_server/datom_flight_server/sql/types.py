"""The types that expressions know: their SQL names, and the one in which values of several meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from .parser import Node
from .terms import Refusal, Term

MAX_DIGITS = 38
UNITS = ("s", "ms", "us", "ns")

_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}


def normal_type(stored: pa.DataType) -> pa.DataType:
    """The type that values of a stored Arrow type are computed in: as DuckDB reads them, never a dictionary."""
    if pa.types.is_dictionary(stored):
        return normal_type(stored.value_type)
    if pa.types.is_string_view(stored):
        return pa.large_string()
    if pa.types.is_date64(stored):
        return pa.date32()
    if pa.types.is_timestamp(stored) and stored.tz is not None:
        return pa.timestamp(stored.unit, "UTC")
    if pa.types.is_decimal32(stored) or pa.types.is_decimal64(stored):
        return pa.decimal128(stored.precision, stored.scale)
    return stored


def is_text(kind: pa.DataType) -> bool:
    """Whether values are texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether values are numbers that can be computed with."""
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal128(kind) or kind in (pa.float32(), pa.float64()))


def is_float(kind: pa.DataType) -> bool:
    """Whether values are floating point numbers, which know NaN."""
    return bool(pa.types.is_floating(kind))


def is_moment(kind: pa.DataType) -> bool:
    """Whether values are dates or times of a day in history."""
    return bool(pa.types.is_date32(kind) or pa.types.is_timestamp(kind))


def integer_range(kind: pa.DataType) -> tuple[int, int]:
    """The least and greatest value of an integer type."""
    if pa.types.is_unsigned_integer(kind):
        return 0, 2**kind.bit_width - 1
    return -(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1


def as_decimal(kind: pa.DataType) -> pa.DataType:
    """The decimal type with exactly the values of a whole number type, or the decimal type itself."""
    if pa.types.is_decimal128(kind):
        return kind
    digits = 20 if kind == pa.uint64() else _INTEGER_DIGITS[kind.bit_width]
    return pa.decimal128(digits, 0)


def common_type(terms: Sequence[Term], node: Node) -> pa.DataType:
    """The type in which `terms` can be compared, or stand for each other.

    Literal texts and NULL adapt to the rest.

    Raises:
        Refusal: when they have none.
    """
    fixed = [term for term in terms if not (term.literal is not None and (is_text(term.type) or term.is_null))]
    kinds = [term.type for term in fixed or terms if not pa.types.is_null(term.type)]
    if not kinds:
        return pa.null()
    if all(is_text(kind) for kind in kinds):
        return pa.string() if all(pa.types.is_string(kind) for kind in kinds) else pa.large_string()
    if all(is_number(kind) for kind in kinds):
        return _common_number(kinds, node)
    if all(is_moment(kind) for kind in kinds):
        return _common_moment(kinds, node)
    spans = [kind for kind in kinds if not pa.types.is_interval(kind)] or kinds
    if all(pa.types.is_time(kind) for kind in kinds) or all(pa.types.is_duration(kind) for kind in spans):
        return max(spans, key=lambda kind: UNITS.index(kind.unit))
    if all(kind == kinds[0] for kind in kinds):
        return kinds[0]
    names = list(dict.fromkeys(map(type_name, kinds)))
    raise Refusal(
        f"values of type {' and '.join(names)} do not go together", node, hint="use CAST to say which is meant"
    )


def _common_number(kinds: Sequence[pa.DataType], node: Node) -> pa.DataType:
    if pa.float64() in kinds:
        return pa.float64()
    if pa.float32() in kinds:
        return pa.float32()
    if any(pa.types.is_decimal128(kind) for kind in kinds):
        decimals = [as_decimal(kind) for kind in kinds]
        scale = max(kind.scale for kind in decimals)
        whole = max(kind.precision - kind.scale for kind in decimals)
        return pa.decimal128(min(MAX_DIGITS, whole + scale), scale)
    return common_integer(kinds, node)


def common_integer(kinds: Sequence[pa.DataType], node: Node) -> pa.DataType:
    """The integer type that holds the values of all of `kinds`; for BIGINT with UBIGINT a decimal."""
    signed = [kind for kind in kinds if pa.types.is_signed_integer(kind)]
    unsigned = [kind for kind in kinds if not pa.types.is_signed_integer(kind)]
    if not signed or not unsigned:
        return max(kinds, key=lambda kind: kind.bit_width)
    bits = max(max(kind.bit_width for kind in signed), 2 * max(kind.bit_width for kind in unsigned))
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64(), 128: pa.decimal128(20, 0)}[bits]


def decimal_type(precision: int, scale: int, node: Node) -> pa.DataType:
    """The decimal type of so many digits.

    Raises:
        Refusal: when that is more than there can be.
    """
    if precision > MAX_DIGITS:
        raise Refusal(f"needs decimals of more than {MAX_DIGITS} digits", node, hint="use CAST(… AS DOUBLE)")
    return pa.decimal128(precision, scale)


def _common_moment(kinds: Sequence[pa.DataType], node: Node) -> pa.DataType:
    stamps = [kind for kind in kinds if pa.types.is_timestamp(kind)]
    if not stamps:
        return pa.date32()
    unit = max((kind.unit for kind in stamps), key=UNITS.index)
    zones = {kind.tz for kind in stamps}
    if unit == "ns" and len(zones) > 1:
        message = "times in nanoseconds do not go together with times of the other kind, with and without a zone"
        raise Refusal(message, node, hint="use CAST(… AS TIMESTAMPTZ)")
    return pa.timestamp(unit, max(zones, key=bool))


_SQL_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("BOOLEAN", "BOOL", "LOGICAL"), pa.bool_()),
    **dict.fromkeys(("TINYINT", "INT1"), pa.int8()),
    **dict.fromkeys(("SMALLINT", "INT2", "SHORT"), pa.int16()),
    **dict.fromkeys(("INTEGER", "INT", "INT4", "SIGNED"), pa.int32()),
    **dict.fromkeys(("BIGINT", "INT8", "LONG"), pa.int64()),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    **dict.fromkeys(("FLOAT", "REAL", "FLOAT4"), pa.float32()),
    **dict.fromkeys(("DOUBLE", "FLOAT8"), pa.float64()),
    **dict.fromkeys(("VARCHAR", "TEXT", "STRING", "CHAR", "BPCHAR"), pa.string()),
    "DATE": pa.date32(),
    **dict.fromkeys(("TIMESTAMP", "DATETIME", "TIMESTAMP_US"), pa.timestamp("us")),
    "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP_NS": pa.timestamp("ns"),
    **dict.fromkeys(("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"), pa.timestamp("us", "UTC")),
    "TIME": pa.time64("us"),
    "INTERVAL": pa.month_day_nano_interval(),
}
_SQL_NAMES = (
    "BOOLEAN, TINYINT, SMALLINT, INTEGER, BIGINT, UTINYINT, USMALLINT, UINTEGER, UBIGINT, FLOAT, DOUBLE, "
    "DECIMAL(p,s), VARCHAR, DATE, TIME, TIMESTAMP, TIMESTAMPTZ, INTERVAL"
)


def type_of(node: Node) -> pa.DataType:
    """The type that a TYPE node names.

    Raises:
        Refusal: for a type expressions do not know.
    """
    name = str(node.get("type_name", "")).upper()
    parts: list[Any] = [child.get("literal", {}).get("text") for child in node.get("children") or []]
    plain = not node.get("schema") and not node.get("catalog")
    if plain and name in ("DECIMAL", "NUMERIC", "DEC") and len(parts) <= 2:
        digits = [int(part) for part in parts if isinstance(part, str) and part.isdigit() and len(part) < 3]
        precision, scale = {0: (18, 3), 1: (*digits, 0)}.get(len(digits), digits)[:2]
        if len(digits) == len(parts) and 1 <= precision <= MAX_DIGITS and scale <= precision:
            return pa.decimal128(precision, scale)
    elif plain and name in _SQL_TYPES and not parts:
        return _SQL_TYPES[name]
    raise Refusal(f'"{name[:60] or "this"}" is not a type that expressions know', node, hint="types: " + _SQL_NAMES)


_NAMES: Mapping[str, str] = {
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "large_string": "VARCHAR",
    "date32[day]": "DATE",
    "null": "NULL",
    "month_day_nano_interval": "INTERVAL",
}


def type_name(kind: pa.DataType) -> str:
    """The SQL name of a type, for people."""
    if pa.types.is_decimal128(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz is None else "TIMESTAMPTZ"
    if pa.types.is_time(kind):
        return "TIME"
    if pa.types.is_duration(kind):
        return "INTERVAL"
    return _NAMES.get(str(kind), str(kind))
