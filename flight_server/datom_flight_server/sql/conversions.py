"""From one type to another: what DuckDB does unasked when types meet, and what a CAST does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa

from .literals import MAX_DIGITS, adapted, parse
from .parser import Node
from .terms import Code, Refusal, Term, call, cast, constant, derived, protected, scalar, type_name

_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
_UNITS = ("s", "ms", "us", "ns")
_EXACT_IN_DOUBLE_DIGITS = 15


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
        return _common_moment(kinds)
    spans = [kind for kind in kinds if not pa.types.is_interval(kind)] or kinds
    if all(pa.types.is_time(kind) for kind in kinds) or all(pa.types.is_duration(kind) for kind in spans):
        return max(spans, key=lambda kind: _UNITS.index(kind.unit))
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


def _common_moment(kinds: Sequence[pa.DataType]) -> pa.DataType:
    stamps = [kind for kind in kinds if pa.types.is_timestamp(kind)]
    if not stamps:
        return pa.date32()
    unit = max((kind.unit for kind in stamps), key=_UNITS.index)
    return pa.timestamp(unit, "UTC" if any(kind.tz for kind in stamps) else None)


def converted(term: Term, kind: pa.DataType, guard: Code | None = None) -> Term:
    """`term` in the common type `kind`, as DuckDB casts unasked."""
    if term.type.equals(kind):
        return term
    if pa.types.is_null(term.type):
        return constant(pa.scalar(None, kind), term.node)
    if term.literal is not None and is_text(term.type):
        return adapted(term, kind)
    if term.literal is not None and is_float(kind) and is_number(term.type):
        return constant(parse(term.literal.replace("_", ""), kind, term.node), term.node)
    if is_float(kind):
        return _as_float(term, kind)
    if term.constant is not None:
        return constant(_cast_constant(term, kind), term.node)
    fallible = not is_text(kind)
    source = protected(term, guard) if fallible else term
    return derived(cast(source.code, kind), kind, term.node, [term], fallible=fallible)


def _cast_constant(term: Term, kind: pa.DataType) -> pa.Scalar:
    try:
        if pa.types.is_decimal128(kind) and term.constant is not None and term.constant.is_valid:
            return pa.scalar(Decimal(term.constant.as_py()), kind)
        return term.constant.cast(kind)  # type: ignore[union-attr]
    except pa.ArrowException as error:
        raise Refusal(f"is not a value of type {type_name(kind)}: {str(error).splitlines()[0][:200]}", term.node)


def _as_float(term: Term, kind: pa.DataType) -> Term:
    if pa.types.is_decimal128(term.type):
        if term.constant is not None:
            return constant(
                parse(str(term.constant), kind, term.node) if not term.is_null else pa.scalar(None, kind), term.node
            )
        if term.type.precision > _EXACT_IN_DOUBLE_DIGITS or kind == pa.float32():
            raise Refusal(
                f"a value of type {type_name(term.type)} cannot be compared or computed with floating point numbers",
                term.node,
                hint=f"only decimals of up to {_EXACT_IN_DOUBLE_DIGITS} digits can, with DOUBLE",
            )
    return derived(cast(term.code, kind, exact=False), kind, term.node, [term])


def explicit(term: Term, kind: pa.DataType, node: Node, guard: Code | None) -> Term:
    """What CAST(term AS kind) gives.

    Raises:
        Refusal: for a pair of types whose values pyarrow and DuckDB write differently.
    """
    held = term.type
    if held.equals(kind) and not is_text(kind):
        return replace(term, node=node, literal=None)
    if pa.types.is_null(held):
        return constant(pa.scalar(None, kind), node)
    if is_text(held) and term.constant is not None:
        return constant(parse(str(term.constant), kind, node) if not term.is_null else pa.scalar(None, kind), node)
    code = _cast_code(protected(term, guard), kind)
    if code is None:
        raise Refusal(
            f"CAST from {type_name(held)} to {type_name(kind)} is not supported",
            node,
            hint="see docs/where.md for the casts that are",
        )
    return derived(code, kind, node, [term], fallible=True)


def _cast_code(term: Term, kind: pa.DataType) -> Code | None:
    held, code = term.type, term.code
    if is_text(held):
        return _text_code(code, kind)
    if is_text(kind):
        plain = pa.types.is_integer(held) or pa.types.is_boolean(held) or pa.types.is_date32(held)
        return cast(code, kind) if plain else None
    if pa.types.is_boolean(kind):
        return call("not_equal", code, scalar(0, held)) if pa.types.is_integer(held) else None
    if pa.types.is_boolean(held):
        return cast(code, kind) if pa.types.is_integer(kind) else None
    if pa.types.is_integer(held) or pa.types.is_decimal128(held):
        return _exact_code(term, kind)
    if is_float(held):
        return _float_code(code, held, kind)
    if is_moment(held) and is_moment(kind):
        return _moment_code(code, held, kind)
    return None


def _text_code(code: Code, kind: pa.DataType) -> Code | None:
    if is_text(kind):
        return cast(code, kind)
    if kind == pa.int64() or kind == pa.int32() or kind == pa.int16() or kind == pa.float64():
        return cast(_plain_number(code, whole=pa.types.is_integer(kind)), kind)
    if pa.types.is_date32(kind):
        return cast(_checked(code, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), kind)
    if kind == pa.timestamp("us"):
        return cast(_checked(code, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?)?$"), kind)
    return None


def _plain_number(code: Code, *, whole: bool) -> Code:
    digits = r"[0-9]+" if whole else r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    trimmed = call("utf8_trim", code, characters=" ")
    return _checked(trimmed, rf"^-?{digits}$" if whole else rf"^-?{digits}$|^[+-]?([iI]nf(inity)?|[nN]a[nN])$")


def _checked(code: Code, pattern: str) -> Code:
    """`code`, made a text that no cast accepts where it is not of a form both engines read alike."""
    fine = call("match_substring_regex", code, pattern=pattern)
    return call("if_else", fine, code, call("binary_join_element_wise", scalar("not plain: "), code, scalar("")))


def _exact_code(term: Term, kind: pa.DataType) -> Code | None:
    held, code = term.type, term.code
    if is_float(kind):
        return _as_float(term, kind).code if not (pa.types.is_decimal128(held) and kind == pa.float32()) else None
    if pa.types.is_decimal128(held) and (pa.types.is_integer(kind) or kind.scale < held.scale):
        digits = 0 if pa.types.is_integer(kind) else kind.scale
        wider = cast(code, pa.decimal128(min(MAX_DIGITS, held.precision + 1), held.scale))
        return cast(call("round", wider, ndigits=digits, round_mode="half_towards_infinity"), kind)
    return cast(code, kind) if pa.types.is_integer(kind) or pa.types.is_decimal128(kind) else None


def _float_code(code: Code, held: pa.DataType, kind: pa.DataType) -> Code | None:
    if pa.types.is_integer(kind):
        return cast(call("round", code, ndigits=0, round_mode="half_to_even"), kind)
    return cast(code, kind) if held == pa.float32() and kind == pa.float64() else None


def _moment_code(code: Code, held: pa.DataType, kind: pa.DataType) -> Code | None:
    if pa.types.is_date32(kind):
        # a time before 1970 belongs to the day it is in, so the rest of the day goes first
        day = call("floor_temporal", cast(code, pa.timestamp(held.unit)), unit="day")
        return cast(day, kind)
    if pa.types.is_date32(held) or _UNITS.index(held.unit) <= _UNITS.index(kind.unit):
        return cast(code, kind)
    return None


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
