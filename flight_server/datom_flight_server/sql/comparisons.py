"""Comparisons as DuckDB makes them: three-valued, NaN equal to itself and above all numbers, numbers exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import pyarrow as pa

from .conversions import converted
from .literals import adapted
from .parser import Node
from .terms import Code, Refusal, Term, call, constant, derived, scalar
from .types import common_type, integer_range, is_float, is_moment, is_text, type_name

_FUNCTIONS = {"=": "equal", "<>": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
_MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def compare(sign: str, left: Term, right: Term, node: Node, guard: Code | None = None) -> Term:
    """The condition ``left sign right``; `sign` is one of ``= <> < <= > >=``.

    Raises:
        Refusal: when the two do not go together.
    """
    kind = common_type([left, right], node)
    if pa.types.is_null(kind) or left.is_null or right.is_null:
        return constant(pa.scalar(None, pa.bool_()), node)
    _check_comparable(kind, node)
    left, right = _adapted(left, right, kind), _adapted(right, left, kind)
    if left.constant is not None and right.constant is None:
        left, right, sign = right, left, _MIRRORED[sign]
    if right.constant is not None and left.constant is None:
        code = _with_ticks(sign, left, right, kind)
        if code is not None:
            return derived(code, pa.bool_(), node, [left], pruning=code if left.column is not None else None)
    stored = left.column if left.type.equals(kind) else None
    left, right = converted(left, kind, guard), converted(right, kind, guard)
    if not is_float(kind):
        code = call(_FUNCTIONS[sign], left.code, right.code)
        prunes = stored is not None and right.constant is not None
        return derived(code, pa.bool_(), node, [left, right], pruning=code if prunes else None)
    code = _compare_floats(sign, left, right)
    prunes = stored is not None and _is_finite(right) and sign in ("=", "<", "<=")
    return derived(code, pa.bool_(), node, [left, right], pruning=code if prunes else None)


def _adapted(term: Term, other: Term, kind: pa.DataType) -> Term:
    """A literal text as the other side's own type; with two sides only, that is the type they meet in."""
    if term.literal is not None and is_text(term.type) and not is_text(kind):
        return adapted(term, other.type if not is_text(other.type) else kind)
    return term


def _check_comparable(kind: pa.DataType, node: Node) -> None:
    if pa.types.is_nested(kind) or pa.types.is_decimal256(kind) or kind == pa.float16() or pa.types.is_interval(kind):
        raise Refusal(f"values of type {type_name(kind)} cannot be compared", node)


# Comparing a column with a constant in the column's own units needs no conversion of the column, loses nothing, and
# lets statistics rule out row groups.


def _with_ticks(sign: str, left: Term, right: Term, kind: pa.DataType) -> Code | None:
    """The comparison in units of `left`'s type; None where it cannot be made there."""
    span = _span(left.type)
    value = _seconds_or_number(right)
    if span is None or value is None or (is_float(kind) and not _exact_as_double(left.type, value, kind)):
        return None
    ticks = value / span.tick
    below, above = math.floor(ticks), math.ceil(ticks)
    if sign in ("=", "<>") and (below != above or not span.low <= below <= span.high):
        return _known(left, sign == "<>")
    bound = below if sign in ("<=", ">") else above
    if not span.low <= bound <= span.high:
        return _known(left, (bound > span.high) == (sign in ("<", "<=")))
    return call(_FUNCTIONS[sign], left.code, scalar(span.make(bound)))


@dataclass(frozen=True, slots=True)
class _Span:
    """The values of an exact type: from `low` to `high` ticks, each worth `tick`."""

    low: int
    high: int
    tick: Fraction
    make: Callable[[int], pa.Scalar]


def _span(kind: pa.DataType) -> _Span | None:
    if pa.types.is_integer(kind):
        return _Span(*integer_range(kind), Fraction(1), lambda ticks: pa.scalar(ticks, kind))
    if pa.types.is_decimal128(kind):
        most, tick = 10**kind.precision - 1, Fraction(1, 10**kind.scale)
        return _Span(-most, most, tick, lambda ticks: pa.scalar(Decimal(ticks).scaleb(-kind.scale), kind))
    if pa.types.is_date32(kind):
        limit = 2**31 - 1
        return _Span(-limit, limit, Fraction(86_400), lambda ticks: _of_raw(ticks, kind))
    if pa.types.is_time(kind):
        per_second = _TICKS_PER_SECOND[kind.unit]
        return _Span(0, 86_400 * per_second, Fraction(1, per_second), lambda ticks: _of_raw(ticks, kind))
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        limit, tick = 2**63 - 1, Fraction(1, _TICKS_PER_SECOND[kind.unit])
        return _Span(-limit, limit, tick, lambda ticks: _of_raw(ticks, kind))
    return None


def _raw_type(kind: pa.DataType) -> pa.DataType:
    return pa.int32() if pa.types.is_date32(kind) or pa.types.is_time32(kind) else pa.int64()


def _of_raw(ticks: int, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(ticks, _raw_type(kind)).cast(kind)


def _seconds_or_number(term: Term) -> Fraction | None:
    """A constant as a number, or as seconds since 1970, or of an interval (a month is 30 days, as DuckDB compares)."""
    value, kind = term.constant, term.type
    if value is None or not value.is_valid:
        return None
    if pa.types.is_integer(kind) or pa.types.is_decimal128(kind):
        return Fraction(value.as_py())
    if is_float(kind):
        return Fraction(value.as_py()) if math.isfinite(value.as_py()) else None
    if pa.types.is_date32(kind):
        return Fraction(value.cast(pa.int32()).as_py() * 86_400)
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind):
        return Fraction(value.cast(_raw_type(kind)).as_py(), _TICKS_PER_SECOND[kind.unit])
    if pa.types.is_interval(kind):
        months, days, nanoseconds = value.as_py()
        return Fraction((months * 30 + days) * 86_400) + Fraction(nanoseconds, 10**9)
    return None


def _exact_as_double(kind: pa.DataType, value: Fraction, common: pa.DataType) -> bool:
    """Whether comparing whole numbers with `value` exactly is the same as comparing them as floats, as DuckDB does."""
    return bool(pa.types.is_integer(kind)) and abs(value) < (2**53 if common == pa.float64() else 2**24)


def _known(term: Term, outcome: bool) -> Code:
    return call("if_else", call("is_valid", term.code), scalar(outcome), scalar(None, pa.bool_()))


# Floating point


def _is_finite(term: Term) -> bool:
    return term.constant is not None and math.isfinite(term.constant.as_py())


def _is_nan_constant(term: Term) -> bool:
    return term.constant is not None and math.isnan(term.constant.as_py())


def _compare_floats(sign: str, left: Term, right: Term) -> Code:
    if right.constant is not None and left.constant is None:
        return _compare_with_float(sign, left, right)
    if sign in ("<>", "<=", ">="):
        opposite = {"<>": "=", "<=": ">", ">=": "<"}[sign]
        return call("invert", _compare_floats(opposite, left, right))
    if sign == ">":
        left, right = right, left
    left_nan, right_nan = call("is_nan", left.code), call("is_nan", right.code)
    plain = call("equal" if sign == "=" else "less", left.code, right.code)
    beyond = call("and_kleene", left_nan if sign == "=" else call("invert", left_nan), right_nan)
    return call("or_kleene", plain, beyond)


def _compare_with_float(sign: str, left: Term, right: Term) -> Code:
    nan = call("is_nan", left.code)
    if _is_nan_constant(right):
        if sign not in ("=", "<>") and left.column is None:
            # DuckDB 2.0 turns -x < 'NaN' into x > 'NaN', against its own order
            raise Refusal("NaN is ordered beside a column only", right.node, hint="use isnan(…)")
        if sign in ("=", ">="):
            return nan
        return _known(left, sign == "<=") if sign in ("<=", ">") else call("invert", nan)
    plain = call(_FUNCTIONS[sign], left.code, right.code)
    return call("or_kleene", plain, nan) if sign in (">", ">=") else plain


def distinct(left: Term, right: Term, node: Node, guard: Code | None, *, wanted: bool) -> Term:
    """``left IS [NOT] DISTINCT FROM right``: as ``<>``, and NULL equal to NULL."""
    if left.is_null or right.is_null:
        other = right if left.is_null else left
        code = call("is_valid" if wanted else "is_null", other.code)
        return derived(code, pa.bool_(), node, [other])
    equal = compare("=", left, right, node, guard)
    both_null = call("and_kleene", call("is_null", left.code), call("is_null", right.code))
    same = call("coalesce", equal.code, both_null)
    return derived(call("invert", same) if wanted else same, pa.bool_(), node, [left, right, equal])


def one_of(value: Term, options: Sequence[Term], node: Node, guard: Code | None = None) -> Term:
    """``value IN (options)``: NULL where it is none of them and one of them is NULL."""
    kind = common_type([value, *options], node)
    if value.is_null or pa.types.is_null(kind):
        return constant(pa.scalar(None, pa.bool_()), node)
    _check_comparable(kind, node)
    if value.constant is not None or any(option.constant is None for option in options):
        return _any_equal(value, options, kind, node, guard)
    known = [option for option in options if not option.is_null]
    if not is_float(kind) and not is_text(kind) and _span(value.type) is not None:
        held, values = value, _values_of_type(known, value.type, kind)
    else:
        held = converted(value, kind, guard)
        scalars = [option.constant for option in (converted(option, kind) for option in known)]
        values = _array([held for held in scalars if held is not None], kind)
    found = call("is_in", held.code, value_set=values)
    wants_nan = is_float(kind) and any(math.isnan(option) for option in values.to_pylist())
    if wants_nan:
        # the lookup tells one NaN from another
        found = call("or_kleene", call("is_nan", held.code), found)
    otherwise = scalar(None if len(known) < len(options) else False, pa.bool_())
    answer = call("if_else", found, scalar(True), otherwise)
    code = call("if_else", call("is_valid", held.code), answer, scalar(None, pa.bool_()))
    prunes = held.column is not None and not wants_nan
    return derived(code, pa.bool_(), node, [held], pruning=found if prunes else None)


def _values_of_type(options: Sequence[Term], stored: pa.DataType, kind: pa.DataType) -> pa.Array:
    """The options that a value of the type `stored` can be equal to, as such values."""
    span = _span(stored)
    values = []
    for option in options:
        exact = _seconds_or_number(converted(option, kind) if is_text(option.type) else option)
        if span is not None and exact is not None:
            ticks = exact / span.tick
            if ticks.denominator == 1 and span.low <= ticks <= span.high:
                values.append(span.make(int(ticks)))
    return _array(values, stored)


def _array(scalars: Sequence[pa.Scalar], kind: pa.DataType) -> pa.Array:
    if is_moment(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind):
        raw = _raw_type(kind)
        return pa.array([held.cast(raw).as_py() for held in scalars], raw).cast(kind)
    values = [held.as_py() for held in scalars]
    if is_float(kind) and 0.0 in values:
        # the lookup tells the two zeros apart
        values += [0.0, -0.0]
    return pa.array(values, kind)


def _any_equal(value: Term, options: Sequence[Term], kind: pa.DataType, node: Node, guard: Code | None) -> Term:
    held = converted(value, kind, guard)
    equals = [compare("=", held, converted(option, kind, guard), node, guard) for option in options]
    return derived(combine("or_kleene", [term.code for term in equals]), pa.bool_(), node, [held, *equals])


def combine(function: str, codes: Sequence[Code]) -> Code:
    """The codes joined by a function of two, as a balanced tree, so that many stay shallow."""
    while len(codes) > 1:
        joined = [call(function, *codes[index : index + 2]) for index in range(0, len(codes) - 1, 2)]
        codes = [*joined, codes[-1]] if len(codes) % 2 else joined
    return codes[0]
