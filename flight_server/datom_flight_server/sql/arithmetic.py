"""Arithmetic as DuckDB does it: overflow is an error, ``/`` gives a DOUBLE, ``//`` and ``%`` cut towards zero."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from .conversions import converted, explicit
from .parser import Node
from .terms import Code, Refusal, Term, call, cast, constant, derived, protected, scalar
from .types import as_decimal, common_integer, decimal_type, integer_range, is_float, is_moment, is_number, type_name

_CHECKED = {"+": "add_checked", "-": "subtract_checked", "*": "multiply_checked"}
_FLOAT = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}


def arithmetic(sign: str, terms: Sequence[Term], node: Node, guard: Code | None) -> Term:
    """``left sign right`` or ``sign operand``; `sign` is one of ``+ - * / // %``.

    Raises:
        Refusal: for types that cannot be computed with, or that the two engines compute differently.
    """
    for term in terms:
        if term.is_null:
            return constant(pa.scalar(None, term.type), node)
    if len(terms) == 1:
        return _signed(sign, terms[0], node, guard)
    left, right = terms
    if is_number(left.type) and is_number(right.type):
        return _numbers(sign, left, right, node, guard)
    if sign in ("+", "-") and (is_moment(left.type) or is_moment(right.type)):
        return _moments(sign, left, right, node, guard)
    return _unknown(sign, terms, node)


def _unknown(sign: str, terms: Sequence[Term], node: Node) -> Term:
    kinds = " and ".join(dict.fromkeys(type_name(term.type) for term in terms))
    hint = "numbers can be; for texts use ||, and CAST to say what a text means"
    raise Refusal(f'"{sign}" cannot be applied to {kinds}', node, hint=hint)


def _signed(sign: str, term: Term, node: Node, guard: Code | None) -> Term:
    if not is_number(term.type) or sign not in ("+", "-") or pa.types.is_unsigned_integer(term.type):
        return _unknown(sign, [term], node)
    if sign == "+":
        return term
    term = protected(term, guard)
    fallible = pa.types.is_integer(term.type)
    code = call("negate_checked" if fallible else "negate", term.code)
    return derived(code, term.type, node, [term], fallible=fallible)


def _numbers(sign: str, left: Term, right: Term, node: Node, guard: Code | None) -> Term:
    if sign == "/" or is_float(left.type) or is_float(right.type):
        return _floats(sign, left, right, node)
    if pa.types.is_decimal128(left.type) or pa.types.is_decimal128(right.type):
        return _decimals(sign, left, right, node, guard)
    kind = _integer_type(left, right, node)
    left, right = protected(converted(left, kind), guard), protected(converted(right, kind), guard)
    if sign in _CHECKED:
        return derived(call(_CHECKED[sign], left.code, right.code), kind, node, [left, right], fallible=True)
    quotient = call("divide_checked", left.code, right.code)
    if sign == "//":
        return derived(quotient, kind, node, [left, right], fallible=True)
    rest = call("subtract_checked", left.code, call("multiply_checked", quotient, right.code))
    return derived(rest, kind, node, [left, right], fallible=True)


def _integer_type(left: Term, right: Term, node: Node) -> pa.DataType:
    """The type the sum of two whole numbers has: of the column when a literal fits it, else one that holds both."""
    for literal, other in ((left, right), (right, left)):
        if literal.literal is not None and other.literal is None and literal.constant is not None:
            low, high = integer_range(other.type)
            if low <= literal.constant.as_py() <= high:
                return other.type
    kind = common_integer([left.type, right.type], node)
    if pa.types.is_decimal128(kind):
        raise Refusal("UBIGINT and signed numbers cannot be computed with together", node, hint="use CAST(… AS DOUBLE)")
    return kind


def _floats(sign: str, left: Term, right: Term, node: Node) -> Term:
    if sign not in _FLOAT:
        raise Refusal(f'"{sign}" takes whole numbers', node, hint="use CAST(… AS BIGINT), or / for a quotient")
    # a FLOAT stays one unless it meets a DOUBLE; whole numbers and decimals alone are divided as DOUBLE
    single = pa.float32() in (left.type, right.type) and pa.float64() not in (left.type, right.type)
    kind = pa.float32() if single else pa.float64()
    left, right = converted(left, kind), converted(right, kind)
    return derived(call(_FLOAT[sign], left.code, right.code), kind, node, [left, right])


def _decimals(sign: str, left: Term, right: Term, node: Node, guard: Code | None) -> Term:
    if sign not in _CHECKED:
        raise Refusal(f'"{sign}" takes whole numbers', node, hint="use CAST(… AS BIGINT), or / for a quotient")
    first, second = as_decimal(left.type), as_decimal(right.type)
    if sign == "*":
        kind = decimal_type(first.precision + second.precision + 1, first.scale + second.scale, node)
    else:
        scale = max(first.scale, second.scale)
        whole = max(first.precision - first.scale, second.precision - second.scale)
        kind = decimal_type(whole + scale + 1, scale, node)
        first = second = pa.decimal128(whole + scale, scale)
    left, right = protected(converted(left, first), guard), converted(right, second)
    return derived(cast(call(_CHECKED[sign], left.code, right.code), kind), kind, node, [left, right], fallible=True)


def _moments(sign: str, left: Term, right: Term, node: Node, guard: Code | None) -> Term:
    if sign == "+" and not is_moment(left.type):
        left, right = right, left
    left = protected(left, guard)
    if pa.types.is_interval(right.type):
        return _shifted(sign, left, right, node)
    if pa.types.is_date32(left.type) and pa.types.is_integer(right.type) and right.type.bit_width <= 32:
        days, by = _days(left), explicit(right, pa.int32(), node, guard)
        code = cast(call(_CHECKED[sign], days, by.code), pa.date32())
        return derived(code, pa.date32(), node, [left, by], fallible=True)
    if sign == "-" and pa.types.is_date32(left.type) and pa.types.is_date32(right.type):
        code = call("subtract", cast(_days(left), pa.int64()), cast(_days(right), pa.int64()))
        return derived(code, pa.int64(), node, [left, right])
    if sign == "-" and pa.types.is_timestamp(left.type) and left.type.equals(right.type) and left.type.unit != "ns":
        code = call("subtract_checked", left.code, right.code)
        return derived(code, pa.duration(left.type.unit), node, [left, right], fallible=True)
    return _unknown(sign, [left, right], node)


def _days(term: Term) -> Code:
    return cast(term.code, pa.int32())


def _shifted(sign: str, moment: Term, interval: Term, node: Node) -> Term:
    """A date or time before or after by an interval; a date becomes a TIMESTAMP, as in DuckDB."""
    if interval.constant is None or not interval.constant.is_valid:
        raise Refusal(
            "only an interval written as a constant can be added", node, hint="write it like INTERVAL '3 days'"
        )
    months, days, nanoseconds = interval.constant.as_py()
    if months:
        hint = "write the interval in days or shorter units"
        raise Refusal("an interval of months or years cannot be added to a date or time", node, hint=hint)
    if pa.types.is_timestamp(moment.type) and moment.type.unit == "ns":
        raise Refusal("an interval cannot be added to a time in nanoseconds", node, hint="use CAST(… AS TIMESTAMP)")
    kind = pa.timestamp("us", getattr(moment.type, "tz", None))
    by = pa.scalar(days * 86_400 * 10**6 + nanoseconds // 1000, pa.int64()).cast(pa.duration("us"))
    function = "add_checked" if sign == "+" else "subtract_checked"
    code = call(function, cast(moment.code, kind), scalar(by))
    return derived(code, kind, node, [moment], fallible=True)
