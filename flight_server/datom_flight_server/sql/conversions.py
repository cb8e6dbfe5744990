"""From one type to another: what DuckDB does unasked when types meet, and what a CAST does."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pyarrow as pa

from .literals import adapted, parse
from .parser import Node
from .terms import Code, Refusal, Term, call, cast, constant, derived, protected, scalar
from .types import MAX_DIGITS, UNITS, is_float, is_moment, is_number, is_text, type_name

_EXACT_IN_DOUBLE_DIGITS = 15
_NUMBER = r"^ *-?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[iI]nf(inity)?|[nN]a[nN]) *$"


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
        raise Refusal(
            f"is not a value of type {type_name(kind)}: {str(error).splitlines()[0][:200]}", term.node
        ) from None


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
        return _text_code(term, kind)
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


def _text_code(term: Term, kind: pa.DataType) -> Code | None:
    if is_text(kind):
        return cast(term.code, kind)
    if kind in (pa.int64(), pa.int32(), pa.int16()):
        return cast(_plain(term, r"^ *-?[0-9]+ *$"), kind)
    if kind == pa.float64():
        return cast(
            _plain(term, r"^ *(-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|-?[iI]nf(inity)?|-?[nN]a[nN]) *$"), kind
        )
    if pa.types.is_date32(kind):
        return cast(_plain(term, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), kind)
    if kind == pa.timestamp("us"):
        return cast(_plain(term, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?)?$"), kind)
    return None


def _plain(term: Term, pattern: str) -> Code:
    """A text without spaces around it, and one that no cast accepts where it is not of a form both engines read."""
    trimmed = call("utf8_trim", term.code, characters=" ")
    fine = call("match_substring_regex", term.code, pattern=pattern)
    other = call("binary_join_element_wise", scalar("not plain: ", term.type), term.code, scalar("", term.type))
    return call("if_else", fine, trimmed, other)


def _exact_code(term: Term, kind: pa.DataType) -> Code | None:
    held, code = term.type, term.code
    if is_float(kind):
        return _as_float(term, kind).code
    if not pa.types.is_integer(kind) and not pa.types.is_decimal128(kind):
        return None
    digits = 0 if pa.types.is_integer(kind) else kind.scale
    if pa.types.is_decimal128(held) and digits < held.scale:
        wider = cast(code, pa.decimal128(min(MAX_DIGITS, held.precision + 1), held.scale))
        code = call("round", wider, ndigits=digits, round_mode="half_towards_infinity")
    return cast(code, kind)


def _float_code(code: Code, held: pa.DataType, kind: pa.DataType) -> Code | None:
    if pa.types.is_integer(kind):
        return cast(call("round", code, ndigits=0, round_mode="half_to_even"), kind)
    return cast(code, kind) if held == pa.float32() and kind == pa.float64() else None


def _moment_code(code: Code, held: pa.DataType, kind: pa.DataType) -> Code | None:
    if pa.types.is_date32(kind):
        # a time before 1970 belongs to the day it is in, so the rest of the day goes first
        day = call("floor_temporal", cast(code, pa.timestamp(held.unit)), unit="day")
        return cast(day, kind)
    if pa.types.is_date32(held) or UNITS.index(held.unit) <= UNITS.index(kind.unit):
        return cast(code, kind)
    return None
