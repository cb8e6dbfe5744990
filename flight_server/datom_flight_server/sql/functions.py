"""The functions an expression may call: those whose every answer agrees with DuckDB's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from .arithmetic import arithmetic
from .conversions import converted
from .literals import interval_of
from .parser import Node
from .patterns import like, matches
from .terms import Code, Refusal, Term, call, cast, constant, derived, protected, scalar
from .types import is_float, is_moment, is_text, type_name

_SPACES = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_MAX_COUNT = 2**31 - 1
_MIDDLE_DAY = 5_211_478
_DAYS_AROUND_MIDDLE = 5_930_640
_TICKS_PER_DAY = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6}
_DATE_PARTS = ("year", "quarter", "month", "week", "day", "dow", "isodow", "doy")
_TIME_PARTS = ("hour", "minute", "second")
_PART_KERNELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "week": ("iso_week", {}),
    "dow": ("day_of_week", {"count_from_zero": True, "week_start": 7}),
    "isodow": ("day_of_week", {"count_from_zero": False, "week_start": 1}),
    "doy": ("day_of_year", {}),
}
_PART_ALIASES = {"dayofweek": "dow", "weekday": "dow", "dayofyear": "doy", "weekofyear": "week", "dayofmonth": "day"}
_TRUNCATED_TO = ("year", "quarter", "month", "week", "day", "hour", "minute", "second")


@dataclass(frozen=True, slots=True)
class Call:
    """A call to compile: its name and arguments, and where the answer is wanted."""

    name: str
    terms: Sequence[Term]
    node: Node
    guard: Code | None

    def text(self, index: int) -> Term:
        """The argument there, which must be a text."""
        return self._of(index, is_text, "a text")

    def moment(self, index: int) -> Term:
        """The argument there, which must be a date or timestamp."""
        return self._of(index, is_moment, "a date or timestamp")

    def number(self, index: int) -> Term:
        """The argument there, which must be a whole number or floating point."""
        return self._of(index, lambda kind: pa.types.is_integer(kind) or is_float(kind), "a whole number or DOUBLE")

    def floating(self, index: int) -> Term:
        """The argument there, which must be floating point."""
        return self._of(index, is_float, "a FLOAT or DOUBLE")

    def known_text(self, index: int) -> str:
        """The text there, which must be a constant."""
        term = self.text(index)
        if term.constant is None:
            raise Refusal(f'argument {index + 1} of "{self.name}" must be a constant text', term.node)
        return str(term.constant)

    def known_count(self, index: int, least: int) -> int:
        """The whole number there, which must be a constant of at least `least`."""
        term = self.terms[index]
        value = term.constant.as_py() if term.constant is not None and pa.types.is_integer(term.type) else None
        if value is None or not least <= value <= _MAX_COUNT:
            what = f"a constant whole number from {least}"
            raise Refusal(f'argument {index + 1} of "{self.name}" must be {what}', term.node)
        return int(value)

    def _of(self, index: int, fits: Callable[[pa.DataType], bool], what: str) -> Term:
        term = self.terms[index]
        if not fits(term.type):
            hint = "use CAST to say what is meant"
            shown = type_name(term.type)
            raise Refusal(f'argument {index + 1} of "{self.name}" must be {what}, not {shown}', term.node, hint=hint)
        return term

    def answer(self, code: Code, kind: pa.DataType, *, fallible: bool = False) -> Term:
        """The term of this call."""
        return derived(code, kind, self.node, self.terms, fallible=fallible)


@dataclass(frozen=True, slots=True)
class Function:
    """A function: how it is called, how many arguments it takes, and what compiles a call of it."""

    usage: str
    least: int
    most: int
    compile: Callable[[Call], Term]


def compile_call(name: str, terms: Sequence[Term], node: Node, guard: Code | None) -> Term:
    """The call of the function `name`.

    Raises:
        Refusal: when there is no such function, or not for these arguments.
    """
    function = FUNCTIONS.get(name)
    if function is None:
        hint = "known: " + ", ".join(sorted(known for known in FUNCTIONS if known[0].isalpha()))
        raise Refusal(f'no function "{name[:60]}" in expressions', node, hint=hint)
    if not function.least <= len(terms) <= function.most:
        raise Refusal(f'"{name}" does not take {len(terms)} arguments', node, hint=f"write {function.usage}")
    if any(term.is_null for term in terms):
        return constant(pa.scalar(None, pa.null()), node)
    return function.compile(Call(name, terms, node, guard))


# Texts


def _kernel(function: str, kind: pa.DataType | None = None, **options: Any) -> Callable[[Call], Term]:
    def compiled(asked: Call) -> Term:
        text = asked.text(0)
        code = call(function, text.code, **options)
        return asked.answer(code if kind is None else cast(code, kind), kind or text.type)

    return compiled


def _trim(function: str) -> Callable[[Call], Term]:
    def compiled(asked: Call) -> Term:
        characters = asked.known_text(1) if len(asked.terms) == 2 else _SPACES
        text = asked.text(0)
        return asked.answer(call(function, text.code, characters=characters) if characters else text.code, text.type)

    return compiled


def _match(function: str) -> Callable[[Call], Term]:
    def compiled(asked: Call) -> Term:
        return asked.answer(call(function, asked.text(0).code, pattern=asked.known_text(1)), pa.bool_())

    return compiled


def _slice(asked: Call, start: int, stop: int | None) -> Term:
    text = asked.text(0)
    return asked.answer(call("utf8_slice_codeunits", text.code, start=start, stop=stop), text.type)


def _substring(asked: Call) -> Term:
    start = asked.known_count(1, 1) - 1
    return _slice(asked, start, start + asked.known_count(2, 0) if len(asked.terms) == 3 else None)


def _left(asked: Call) -> Term:
    return _slice(asked, 0, asked.known_count(1, 0))


def _right(asked: Call) -> Term:
    count = asked.known_count(1, 0)
    return _slice(asked, -count, None) if count else _slice(asked, 0, 0)


def _replace(asked: Call) -> Term:
    old, new, text = asked.known_text(1), asked.known_text(2), asked.text(0)
    if len(new.encode()) > len(old.encode()):
        raise Refusal("the new text must not be longer than the old", asked.terms[2].node)
    code = call("replace_substring", text.code, pattern=old, replacement=new) if old else text.code
    return asked.answer(code, text.type)


def _concatenated(asked: Call) -> Term:
    kind = pa.large_string() if any(pa.types.is_large_string(term.type) for term in asked.terms) else pa.string()
    texts = [converted(asked.text(index), kind) for index in range(len(asked.terms))]
    return asked.answer(call("binary_join_element_wise", *(text.code for text in texts), scalar("", kind)), kind)


def _like(asked: Call) -> Term:
    """All of LIKE: ``~~``, ``!~~``, ``~~*``, ``!~~*``, ``like_escape`` and its relatives."""
    escape = asked.known_text(2) if len(asked.terms) == 3 else ""
    text, pattern = asked.text(0), asked.known_text(1)
    if asked.name in ("~~*", "!~~*", "ilike_escape", "not_ilike_escape"):
        # DuckDB lowers both sides and then compares, so an escape that is itself a letter would lose its meaning
        if escape.lower() != escape.upper():
            raise Refusal("a letter cannot be the escape character of ILIKE", asked.terms[2].node)
        lowered = call("utf8_lower", text.code)
        text = derived(lowered, text.type, text.node, [text])
        pattern = str(_evaluated_lower(pattern, asked.node))
    condition = like(text, pattern, escape, asked.node)
    return inverted(condition, asked.node) if asked.name.startswith(("!", "not_")) else condition


def _evaluated_lower(text: str, node: Node) -> pa.Scalar | None:
    known = constant(pa.scalar(text), node)
    return derived(call("utf8_lower", known.code), pa.string(), node, [known]).constant


def inverted(condition: Term, node: Node) -> Term:
    """``NOT condition``."""
    return derived(call("invert", condition.code), pa.bool_(), node, [condition])


def _regexp(*, whole: bool) -> Callable[[Call], Term]:
    def compiled(asked: Call) -> Term:
        flags = asked.known_text(2) if len(asked.terms) == 3 else ""
        return matches(asked.text(0), asked.known_text(1), flags, asked.node, whole=whole)

    return compiled


# Numbers


def _abs(asked: Call) -> Term:
    number = protected(asked.number(0), asked.guard)
    return asked.answer(call("abs_checked", number.code), number.type, fallible=pa.types.is_integer(number.type))


def _round(asked: Call) -> Term:
    if pa.types.is_integer(asked.number(0).type) and len(asked.terms) == 1:
        return asked.number(0)
    number = asked.floating(0)
    half_away = {"ndigits": 0, "round_mode": "half_towards_infinity"}
    if len(asked.terms) == 1:
        return asked.answer(call("round", number.code, **half_away), number.type)
    if number.type != pa.float64():
        raise Refusal('"round" to digits takes a DOUBLE', number.node, hint="use CAST(… AS DOUBLE)")
    digits = asked.known_count(1, 0)
    if digits > 15:
        raise Refusal('"round" takes 0 to 15 digits', asked.terms[1].node)
    # the same steps as DuckDB's, so that the last bit agrees; what is too large to scale stays as it is
    factor = scalar(float(10**digits))
    scaled = call("divide", call("round", call("multiply", number.code, factor), **half_away), factor)
    return asked.answer(call("if_else", call("is_finite", scaled), scaled, number.code), number.type)


def _whole(function: str) -> Callable[[Call], Term]:
    def compiled(asked: Call) -> Term:
        number = asked.number(0)
        if pa.types.is_integer(number.type):
            return converted(replace(number, literal=None), pa.float64())
        return asked.answer(call(function, number.code), number.type)

    return compiled


def _float_check(function: str) -> Callable[[Call], Term]:
    def compiled(asked: Call) -> Term:
        return asked.answer(call(function, asked.floating(0).code), pa.bool_())

    return compiled


# Dates and times


def _part(asked: Call) -> Term:
    if asked.name in ("date_part", "datepart"):
        name, index = asked.known_text(0).lower(), 1
    else:
        name, index = asked.name, 0
    name = _PART_ALIASES.get(name, name)
    if name not in _DATE_PARTS + _TIME_PARTS:
        raise Refusal(
            f'"{name[:40]}" is not a part of a date', asked.node, hint="parts: " + ", ".join(_DATE_PARTS + _TIME_PARTS)
        )
    term = asked.terms[index]
    if pa.types.is_time(term.type) and name in _TIME_PARTS:
        code = term.code
    elif name in _TIME_PARTS and not pa.types.is_timestamp(term.type):
        raise Refusal(f'"{name}" takes a timestamp or time, not {type_name(term.type)}', term.node)
    else:
        code = _in_utc(protected(asked.moment(index), asked.guard))
    function, options = _PART_KERNELS.get(name, (name, {}))
    return asked.answer(cast(call(function, code, **options), pa.int64()), pa.int64(), fallible=True)


def _in_utc(moment: Term) -> Code:
    """A date or time, in UTC, that fails beyond the years 1 to 32,000: there pyarrow's calendar counts wrong."""
    if pa.types.is_date32(moment.type):
        kind, ticks_per_day, raw = moment.type, 1, pa.int32()
    else:
        kind, raw = pa.timestamp(moment.type.unit), pa.int64()
        if kind.unit == "ns":
            return cast(moment.code, kind)
        ticks_per_day = _TICKS_PER_DAY[kind.unit]
    # within so many days of the middle, the product still fits the integer
    middle = scalar(_MIDDLE_DAY * ticks_per_day, raw)
    factor = (2**31 if raw == pa.int32() else 2**63) // (_DAYS_AROUND_MIDDLE * ticks_per_day)
    ticks = cast(moment.code, raw)
    away = call("subtract_checked", ticks, middle)
    checked = call("multiply_checked", away, scalar(factor, raw))
    rest = call("multiply", away, scalar(factor - 1, raw))
    return cast(call("add", call("subtract", checked, rest), middle), kind)


def _truncated(asked: Call) -> Term:
    unit, moment = asked.known_text(0).lower(), asked.moment(1)
    if unit not in _TRUNCATED_TO:
        raise Refusal(
            f'"{unit[:40]}" is not a unit to cut dates at', asked.node, hint="units: " + ", ".join(_TRUNCATED_TO)
        )
    kind = pa.timestamp("us", getattr(moment.type, "tz", None))
    if pa.types.is_timestamp(moment.type) and moment.type.unit == "ns":
        raise Refusal('"date_trunc" does not take nanoseconds', moment.node, hint="use CAST(… AS TIMESTAMP)")
    start = call("floor_temporal", cast(_in_utc(protected(moment, asked.guard)), pa.timestamp("us")), unit=unit)
    return asked.answer(cast(start, kind), kind, fallible=True)


def _interval(asked: Call) -> Term:
    unit = asked.name.removeprefix("to_")
    count = asked.terms[0].constant
    value = interval_of(count.as_py(), unit) if count is not None else None
    if value is None:
        raise Refusal(
            "an interval is a constant whole number of units", asked.node, hint="write it like INTERVAL '3 days'"
        )
    return constant(value, asked.node)


def _operator(asked: Call) -> Term:
    return arithmetic(asked.name, asked.terms, asked.node, asked.guard)


def _truncate(asked: Call) -> Term:
    return asked.answer(call("trunc", asked.floating(0).code), asked.floating(0).type)


def _functions() -> dict[str, Function]:
    known: dict[str, Function] = {}

    def add(names: str, usage: str, least: int, most: int, compiled: Callable[[Call], Term]) -> None:
        for name in names.split():
            known[name] = Function(usage, least, most, compiled)

    add("lower lcase", "lower(text)", 1, 1, _kernel("utf8_lower"))
    add("upper ucase", "upper(text)", 1, 1, _kernel("utf8_upper"))
    add("length len char_length character_length", "length(text)", 1, 1, _kernel("utf8_length", pa.int64()))
    add("strlen", "strlen(text)", 1, 1, _kernel("binary_length", pa.int64()))
    for side in ("trim", "ltrim", "rtrim"):
        add(side, f"{side}(text) or {side}(text, 'characters')", 1, 2, _trim(f"utf8_{side}"))
    add("substring substr", "substring(text, start, length)", 2, 3, _substring)
    add("left", "left(text, count)", 2, 2, _left)
    add("right", "right(text, count)", 2, 2, _right)
    add("starts_with prefix ^@", "starts_with(text, 'start')", 2, 2, _match("starts_with"))
    add("ends_with suffix", "ends_with(text, 'end')", 2, 2, _match("ends_with"))
    add("contains", "contains(text, 'part')", 2, 2, _match("match_substring"))
    add("replace", "replace(text, 'old', 'new')", 3, 3, _replace)
    add("||", "text || text", 2, 2, _concatenated)
    add("~~ !~~ ~~* !~~*", "text LIKE 'pattern'", 2, 2, _like)
    add("like_escape not_like_escape ilike_escape not_ilike_escape", "text LIKE 'pattern' ESCAPE 'c'", 3, 3, _like)
    add("regexp_matches", "regexp_matches(text, 'pattern', 'options')", 2, 3, _regexp(whole=False))
    add("regexp_full_match", "regexp_full_match(text, 'pattern', 'options')", 2, 3, _regexp(whole=True))
    add("+ -", "number + number", 1, 2, _operator)
    add("* / // %", "number * number", 2, 2, _operator)
    add("mod", "mod(number, number)", 2, 2, lambda asked: _operator(replace(asked, name="%")))
    add("abs @", "abs(number)", 1, 1, _abs)
    add("round", "round(number) or round(number, digits)", 1, 2, _round)
    add("floor", "floor(number)", 1, 1, _whole("floor"))
    add("ceil ceiling", "ceil(number)", 1, 1, _whole("ceil"))
    add("trunc", "trunc(number)", 1, 1, _truncate)
    add("isnan", "isnan(number)", 1, 1, _float_check("is_nan"))
    add("isinf", "isinf(number)", 1, 1, _float_check("is_inf"))
    add("isfinite", "isfinite(number)", 1, 1, _float_check("is_finite"))
    for part in (*_DATE_PARTS, *_TIME_PARTS, *_PART_ALIASES):
        if part not in ("dow", "doy"):
            add(part, f"{part}(date)", 1, 1, _part)
    add("date_part datepart", "date_part('part', date)", 2, 2, _part)
    add("date_trunc datetrunc", "date_trunc('unit', date)", 2, 2, _truncated)
    for unit in ("years", "quarters", "months", "weeks", "days", "hours", "minutes", "seconds", "milliseconds"):
        add(f"to_{unit}", f"INTERVAL '3 {unit}'", 1, 1, _interval)
    return known


FUNCTIONS: Mapping[str, Function] = _functions()
