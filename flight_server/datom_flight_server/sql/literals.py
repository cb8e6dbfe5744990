"""What literals and texts mean as values of a type: the forms DuckDB reads the same way, and only those."""

from __future__ import annotations

import re
from datetime import date
from decimal import Context, Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from .parser import Node
from .terms import Refusal, Term, constant
from .types import MAX_DIGITS, integer_range, type_name

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,60}\s*")
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,5})?\s*")
_SPECIAL = re.compile(r"\s*[+-]?(inf|infinity|nan)\s*", re.IGNORECASE)
_DATE = re.compile(r"\s*([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})\s*")
_TIME = re.compile(r"\s*([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?\s*")
_ZONE = re.compile(r"(Z|[+-][0-9]{2}(?::?[0-9]{2})?)\s*$")
_INTERVAL = re.compile(r"\s*([+-]?[0-9]{1,9})\s*([a-zA-Z]+)\s*")
_EXACT = Context(prec=200)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MICROSECONDS = {
    "microsecond": 1,
    "millisecond": 1000,
    "second": 10**6,
    "minute": 60 * 10**6,
    "hour": 3600 * 10**6,
}
_DAYS = {"day": 1, "week": 7}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


def literal(node: Node) -> Term:
    """The term of a VALUE_CONSTANT node."""
    kind, text = node["literal"]["kind"], node["literal"].get("text", "")
    if kind == "NULL_LITERAL":
        return constant(pa.scalar(None, pa.null()), node, literal="NULL")
    if kind == "BOOLEAN":
        return constant(pa.scalar(text.lower() == "true"), node)
    if kind == "STRING":
        return constant(pa.scalar(text, pa.string()), node, literal=text)
    if kind == "INTEGER":
        return constant(_integer(text.replace("_", ""), node), node, literal=text)
    if kind == "NUMERIC":
        return constant(_numeric(text.replace("_", ""), node), node, literal=text)
    raise Refusal(f'a literal of the kind "{kind.lower()}" is not supported', node, hint="write a number or a text")


def _integer(text: str, node: Node) -> pa.Scalar:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise Refusal(f"a number has at most {MAX_DIGITS} digits", node)
    value = int(text)
    for kind, bits in ((pa.int32(), 31), (pa.int64(), 63)):
        if -(2**bits) <= value < 2**bits:
            return pa.scalar(value, kind)
    return pa.scalar(Decimal(value), pa.decimal128(MAX_DIGITS, 0))


def _numeric(text: str, node: Node) -> pa.Scalar:
    if "e" in text.lower():
        return pa.scalar(float(text))
    whole, _, fraction = text.lstrip("-").partition(".")
    width = len(whole) + len(fraction)
    if width > MAX_DIGITS:
        raise Refusal(f"a number has at most {MAX_DIGITS} digits", node, hint="write it with an exponent, like 1.5e0")
    return pa.scalar(_EXACT.create_decimal(text), pa.decimal128(width, len(fraction)))


def adapted(term: Term, kind: pa.DataType) -> Term:
    """A literal text or NULL as a value of `kind`.

    Raises:
        Refusal: when the text is not one that `kind` has.
    """
    if term.is_null:
        return constant(pa.scalar(None, kind), term.node, literal=term.literal)
    return constant(parse(str(term.constant), kind, term.node), term.node)


def parse(text: str, kind: pa.DataType, node: Node) -> pa.Scalar:
    """The value of `kind` that `text` stands for."""
    value: pa.Scalar | None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        value = pa.scalar(text, kind)
    elif pa.types.is_boolean(kind):
        value = {"true": pa.scalar(True), "false": pa.scalar(False)}.get(text.strip().lower())
    elif pa.types.is_integer(kind):
        value = _fit(int(text), kind) if _INTEGER.fullmatch(text) else None
    elif pa.types.is_floating(kind):
        known = _NUMBER.fullmatch(text) or _SPECIAL.fullmatch(text)
        value = pa.scalar(text.strip().removeprefix("+")).cast(kind) if known else None
    elif pa.types.is_decimal128(kind):
        value = _decimal(text, kind)
    elif pa.types.is_date32(kind):
        day = _days(text)
        value = None if day is None else pa.scalar(day, pa.int32()).cast(kind)
    elif pa.types.is_timestamp(kind):
        value = _timestamp(text, kind)
    elif pa.types.is_time(kind):
        ticks = _time_of_day(text, kind.unit)
        value = None if ticks is None else _of_ticks(ticks, kind)
    elif pa.types.is_interval(kind) or pa.types.is_duration(kind):
        value = interval(text)
    else:
        raise Refusal(f"a text cannot be compared with a value of type {type_name(kind)}", node)
    if value is None:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise Refusal(f'"{shown}" is not a value of type {type_name(kind)}', node, hint=_expected(kind))
    return value


def _expected(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "write TRUE or FALSE"
    if pa.types.is_integer(kind):
        return "write a whole number in the type's range, like 65"
    if pa.types.is_decimal(kind):
        return "write a number with no more digits than the type has"
    if pa.types.is_floating(kind):
        return "write a number, like 6.5"
    if pa.types.is_date(kind):
        return "write a date like '2026-01-15'"
    if pa.types.is_timestamp(kind):
        zone = ", with Z or an offset like +02:00 if not in UTC" if kind.tz else ", without a zone"
        return f"write a time like '2026-01-15 10:30:00' in the column's own precision{zone}"
    if pa.types.is_time(kind):
        return "write a time of day like '10:30:00' in the column's own precision"
    return "write an interval like '3 days'"


def _fit(value: int, kind: pa.DataType) -> pa.Scalar | None:
    low, high = integer_range(kind)
    return pa.scalar(value, kind) if low <= value <= high else None


def _decimal(text: str, kind: pa.DataType) -> pa.Scalar | None:
    # an exponent, or a digit too many, DuckDB rounds; here it is refused
    if not _NUMBER.fullmatch(text) or "e" in text.lower() or len(text) > 100:
        return None
    try:
        value = _EXACT.create_decimal(text.strip())
        if value != value.quantize(Decimal(1).scaleb(-kind.scale, _EXACT), context=_EXACT):
            return None
        return pa.scalar(value, kind)
    except (InvalidOperation, pa.ArrowInvalid):
        return None


def _days(text: str) -> int | None:
    found = _DATE.fullmatch(text)
    try:
        return date(*map(int, found.groups())).toordinal() - date(1970, 1, 1).toordinal() if found else None
    except ValueError:
        return None


def _time_of_day(text: str, unit: str) -> int | None:
    """Ticks since midnight; None when it is no time of day, or has more digits than `unit`."""
    found = _TIME.fullmatch(text)
    if not found:
        return None
    hour, minute, second = int(found[1]), int(found[2]), int(found[3] or 0)
    nanoseconds = int((found[4] or "").ljust(9, "0"))
    per_tick = 10**9 // _PER_SECOND[unit]
    if hour > 23 or minute > 59 or second > 59 or nanoseconds % per_tick:
        return None
    return ((hour * 60 + minute) * 60 + second) * _PER_SECOND[unit] + nanoseconds // per_tick


def _timestamp(text: str, kind: pa.DataType) -> pa.Scalar | None:
    text = text.strip()
    day_text, separator, clock = text[:10], text[10:11], text[11:]
    if not separator:
        day_text, clock = text, "00:00"
    elif separator not in "T ":
        return None
    zone = _ZONE.search(clock) if separator else None
    if zone:
        clock = clock[: zone.start()]
    day, ticks = _days(day_text), _time_of_day(clock, kind.unit)
    if day is None or ticks is None or (zone and kind.tz is None):
        return None
    ticks += (day * 86_400 - (_offset_seconds(zone[1]) if zone else 0)) * _PER_SECOND[kind.unit]
    return _of_ticks(ticks, kind) if -(2**63) < ticks < 2**63 else None


def _offset_seconds(zone: str) -> int:
    if zone == "Z":
        return 0
    digits = zone[1:].replace(":", "")
    seconds = int(digits[:2]) * 3600 + int(digits[2:] or 0) * 60
    return -seconds if zone[0] == "-" else seconds


def _of_ticks(ticks: int, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(ticks, pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(kind)


def interval(text: str) -> pa.Scalar | None:
    """An interval written as whole numbers of units, like ``1 day 12 hours``; None when it is something else."""
    months = days = microseconds = end = 0
    while end < len(text):
        found = _INTERVAL.match(text, end)
        unit = found[2].lower().removesuffix("s") if found else ""
        if found is None or unit not in _MONTHS | _DAYS | _MICROSECONDS:
            return None
        count, end = int(found[1]), found.end()
        months += count * _MONTHS.get(unit, 0)
        days += count * _DAYS.get(unit, 0)
        microseconds += count * _MICROSECONDS.get(unit, 0)
    fits = text.strip() and abs(microseconds) < 2**63 // 1000 and abs(months) < 2**31 and abs(days) < 2**31
    return interval_scalar(months, days, microseconds) if fits else None


def interval_of(count: Any, unit: str) -> pa.Scalar | None:
    """The interval of `count` units; None when there is none of that size."""
    return interval(f"{int(count)} {unit}") if abs(count) < 10**9 and count == int(count) else None


def interval_scalar(months: int, days: int, microseconds: int) -> pa.Scalar:
    """An interval as a value."""
    return pa.scalar(pa.MonthDayNano([months, days, microseconds * 1000]))
