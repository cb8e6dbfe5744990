"""Random tables, and random SQL conditions over them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

# Each kind of value has few distinct ones, so that comparisons meet equal values often, and the awkward ones.

_INTEGERS = [0, 1, -1, 2, 3, 5, 64, 65, 100, 127, -128, 2**31 - 1, -(2**31), 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
_FLOATS = [0.0, -0.0, 0.1, 0.5, 1.0, 1.5, 2.5, -2.5, 65.0, 1e10, 2.0**53, 1e300, -1e300]
_FLOATS += [float("nan"), float("inf"), float("-inf")]
_TEXTS = [
    "",
    "a",
    "A",
    "b",
    "ab",
    "aB",
    "a b",
    " a ",
    "a%b",
    "a_b",
    "a\\b",
    "é",
    "É",
    "ß",
    "日本",
    "😀",
    "a\nb",
    "65",
    "-1",
]
_TEXTS += ["1.5", "abc", "abcabc", "2020-01-15", "O'Brien", "\t", "zz", "ſ", "K", "İ"]
_DAYS = [
    date(1970, 1, 1),
    date(1969, 12, 31),
    date(2020, 1, 15),
    date(2020, 2, 29),
    date(2026, 12, 31),
    date(1900, 1, 1),
]
_TIMES = [
    datetime(2020, 1, 15), datetime(1969, 12, 31, 23, 59, 59), datetime(2020, 2, 29, 10, 30), datetime(1970, 1, 1),
    datetime(2026, 7, 5, 12, 0, 1), datetime(1900, 1, 1, 6),
]  # fmt: skip
_CLOCKS = [time(0, 0), time(10, 30), time(23, 59, 59), time(9, 5, 1)]
_DECIMALS = [Decimal(text) for text in ("0.00", "1.25", "-1.25", "2.50", "65.00", "12345678.90", "99999999.99")]


def _fitting(values: list[int], kind: pa.DataType) -> list[Any]:
    low = 0 if str(kind).startswith("u") else -(2 ** (kind.bit_width - 1))
    high = 2**kind.bit_width - 1 if low == 0 else 2 ** (kind.bit_width - 1) - 1
    return [value for value in values if low <= value <= high]


def _with_subseconds(values: list[datetime]) -> list[datetime]:
    return [*values, *(value + timedelta(microseconds=500_000) for value in values[:3])]


COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "b": (pa.bool_(), [True, False]),
    **{
        name: (kind, _fitting(_INTEGERS, kind))
        for name, kind in {
            "i8": pa.int8(), "i16": pa.int16(), "i32": pa.int32(), "i64": pa.int64(), "u8": pa.uint8(),
            "u16": pa.uint16(), "u32": pa.uint32(), "u64": pa.uint64(),
        }.items()
    },
    "f32": (pa.float32(), _FLOATS),
    "f64": (pa.float64(), _FLOATS),
    "g64": (pa.float64(), _FLOATS),
    "d": (pa.decimal128(10, 2), _DECIMALS),
    "s": (pa.string(), _TEXTS),
    "ls": (pa.large_string(), _TEXTS),
    "fs": (pa.dictionary(pa.int8(), pa.string()), _TEXTS),
    "da": (pa.date32(), _DAYS),
    "db": (pa.date32(), _DAYS),
    "t": (pa.timestamp("us"), _with_subseconds(_TIMES)),
    "ts": (pa.timestamp("s"), _TIMES),
    "q": (pa.float64(), [0.0, 1.0, float("nan")]),
    "tn": (pa.timestamp("ns"), _with_subseconds(_TIMES)),
    "tz": (pa.timestamp("us", "UTC"), [value.replace(tzinfo=UTC) for value in _with_subseconds(_TIMES)]),
    "tb": (pa.timestamp("ms", "Europe/Berlin"), [value.replace(tzinfo=UTC) for value in _TIMES]),
    "c": (pa.time64("us"), _CLOCKS),
    "cs": (pa.time32("s"), _CLOCKS),
    "du": (pa.duration("us"), [timedelta(0), timedelta(days=1), timedelta(hours=36), timedelta(days=-2)]),
    "nothing": (pa.null(), [None]),
}  # fmt: skip
ROWS = 40


def _column(kind: pa.DataType, values: list[Any]) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(values, kind)


def random_table(seed: int) -> pa.Table:
    """A table of every column, some values missing; the same for the same `seed`."""
    random = Random(seed)
    arrays = {
        name: _column(kind, [random.choice([*values, None]) for _ in range(ROWS)])
        for name, (kind, values) in COLUMNS.items()
    }
    return pa.table(arrays).append_column("row", pa.array(range(ROWS), pa.int64()))


def tables() -> st.SearchStrategy[pa.Table]:
    """Random tables."""
    return st.integers(0, 2**32).map(random_table)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _float_text(value: float) -> str:
    return repr(value) if abs(value) < 1e308 else _quoted(str(value))


INTEGER_COLUMNS = ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"]
integer_literal = st.sampled_from([*map(str, _INTEGERS), "300", "18446744073709551615", "-129"])
decimal_literal = st.sampled_from(
    ["0.1", "1.5", "2.5", "-2.5", "65.0", "0.10", ".5", "1.", "9007199254740993.0", "1.254"]
)
float_literal = st.sampled_from(["1e0", "1.5e0", "-2.5e0", "1e300", "6.5e1", "9007199254740992e0", "1e-1"])
number_text = st.sampled_from(["'65'", "'1'", "'-1'"])
text_literal = st.sampled_from([_quoted(text) for text in _TEXTS])
day_text = st.sampled_from([_quoted(str(day)) for day in _DAYS])
day_literal = day_text.map(lambda text: f"DATE {text}")
time_text = st.sampled_from([_quoted(str(moment)) for moment in _TIMES])
time_literal = st.sampled_from([f"TIMESTAMP {_quoted(str(moment))}" for moment in _with_subseconds(_TIMES)])
zoned_literal = st.sampled_from(
    [f"TIMESTAMPTZ '{moment}{zone}'" for moment in _TIMES for zone in ("", "Z", "+02:00", "-05:30")]
)
clock_text = st.sampled_from([_quoted(str(clock)) for clock in _CLOCKS])
interval_literal = st.sampled_from(
    ["INTERVAL '1 day'", "INTERVAL 2 DAYS", "INTERVAL '36 hours'", "INTERVAL '90' MINUTE", "INTERVAL 1 WEEK"]
)


@st.composite
def integers(draw: st.DrawFn, depth: int = 2) -> str:
    choices = ["column", "column", "literal"]
    if depth:
        choices += ["arithmetic", "length", "part", "sign", "cast", "choice", "days"]
    match draw(st.sampled_from(choices)):
        case "column":
            return draw(st.sampled_from(INTEGER_COLUMNS))
        case "literal":
            return draw(integer_literal)
        case "arithmetic":
            sign = draw(st.sampled_from(["+", "-", "*", "//", "%"]))
            return f"({draw(integers(depth - 1))} {sign} {draw(integers(depth - 1))})"
        case "length":
            return f"{draw(st.sampled_from(['length', 'strlen']))}({draw(texts(depth - 1))})"
        case "part":
            part = draw(
                st.sampled_from(["year", "month", "day", "quarter", "week", "dayofweek", "isodow", "dayofyear"])
            )
            return f"{part}({draw(moments())})"
        case "sign":
            return f"{draw(st.sampled_from(['-', 'abs', 'round']))}({draw(integers(depth - 1))})"
        case "cast":
            kind = draw(st.sampled_from(["INTEGER", "BIGINT", "SMALLINT", "UINTEGER"]))
            source = draw(
                st.one_of(integers(depth - 1), floats(depth - 1), decimals(depth - 1), texts(0), conditions(0))
            )
            return f"CAST({source} AS {kind})"
        case "days":
            return f"({draw(days())} - {draw(days())})"
        case _:
            return draw(chosen(integers(depth - 1), depth))


@st.composite
def floats(draw: st.DrawFn, depth: int = 2) -> str:
    choices = ["column", "column", "column", "literal"]
    if depth:
        choices += ["arithmetic", "quotient", "function", "digits", "cast", "choice"]
    match draw(st.sampled_from(choices)):
        case "column":
            return draw(st.sampled_from(["f32", "f64", "g64", "q", "(q / 0)"]))
        case "literal":
            return draw(float_literal)
        case "arithmetic":
            sign = draw(st.sampled_from(["+", "-", "*", "/"]))
            return f"({draw(floats(depth - 1))} {sign} {draw(numbers(depth - 1))})"
        case "quotient":
            return f"({draw(integers(depth - 1))} / {draw(numbers(depth - 1))})"
        case "function":
            name = draw(st.sampled_from(["abs", "round", "floor", "ceil", "-", "trunc"]))
            return f"{name}({draw(floats(depth - 1))})"
        case "digits":
            return f"round({draw(st.sampled_from(['f64', 'g64']))}, {draw(st.integers(0, 6))})"
        case "cast":
            return f"CAST({draw(st.one_of(integers(depth - 1), texts(0), decimals(0)))} AS DOUBLE)"
        case _:
            return draw(chosen(floats(depth - 1), depth))


@st.composite
def decimals(draw: st.DrawFn, depth: int = 1) -> str:
    choices = ["column", "literal"] + (["arithmetic", "cast"] if depth else [])
    match draw(st.sampled_from(choices)):
        case "column":
            return "d"
        case "literal":
            return draw(decimal_literal)
        case "cast":
            return f"CAST({draw(st.one_of(decimals(0), integers(0)))} AS DECIMAL(12, 1))"
        case _:
            other = draw(st.one_of(integers(0), decimals(0)))
            return f"({draw(decimals(0))} {draw(st.sampled_from(['+', '-', '*']))} {other})"


def numbers(depth: int = 2) -> st.SearchStrategy[str]:
    return st.one_of(integers(depth), floats(depth), decimals(min(1, depth)), st.just("NULL"))


@st.composite
def texts(draw: st.DrawFn, depth: int = 2) -> str:
    choices = ["column", "column", "literal"]
    if depth:
        choices += ["function", "trim", "slice", "join", "cast", "choice", "replace"]
    match draw(st.sampled_from(choices)):
        case "column":
            return draw(st.sampled_from(["s", "ls", "fs"]))
        case "literal":
            return draw(text_literal)
        case "function":
            return f"{draw(st.sampled_from(['lower', 'upper']))}({draw(texts(depth - 1))})"
        case "trim":
            name = draw(st.sampled_from(["trim", "ltrim", "rtrim"]))
            return f"{name}({draw(texts(depth - 1))}{draw(trimmed)})"
        case "slice":
            name = draw(
                st.sampled_from(["substring(%s, 2)", "substr(%s, 1, 2)", "left(%s, 1)", "right(%s, 2)", "right(%s, 0)"])
            )
            return name % draw(texts(depth - 1))
        case "join":
            return f"({draw(texts(depth - 1))} || {draw(texts(depth - 1))})"
        case "cast":
            return f"CAST({draw(st.sampled_from([*INTEGER_COLUMNS, 'b', 'da', 's', 'fs']))} AS VARCHAR)"
        case "replace":
            return f"replace({draw(texts(depth - 1))}, {draw(text_literal)}, {draw(text_literal)})"
        case _:
            return draw(chosen(texts(depth - 1), depth))


@st.composite
def days(draw: st.DrawFn) -> str:
    match draw(st.sampled_from(["column", "literal", "shifted", "cast"])):
        case "column":
            return draw(st.sampled_from(["da", "db"]))
        case "literal":
            return draw(day_literal)
        case "shifted":
            by = draw(st.sampled_from(["1", "30", "i8"]))
            return f"({draw(st.sampled_from(['da', 'db']))} {draw(st.sampled_from('+-'))} {by})"
        case _:
            return f"CAST({draw(st.sampled_from(['t', 'ts', 'tz', 'tb', 'tn', 'da']))} AS DATE)"


@st.composite
def moments(draw: st.DrawFn) -> str:
    match draw(st.sampled_from(["column", "column", "literal", "day", "cut", "shifted", "cast"])):
        case "column":
            return draw(st.sampled_from(["t", "ts", "tn", "tz", "tb"]))
        case "literal":
            return draw(st.one_of(time_literal, zoned_literal))
        case "cut":
            unit = draw(st.sampled_from(["year", "quarter", "month", "week", "day", "hour", "minute"]))
            return f"date_trunc('{unit}', {draw(st.sampled_from(['t', 'ts', 'tz', 'da']))})"
        case "shifted":
            source = draw(st.sampled_from(["t", "ts", "tz", "da"]))
            return f"({source} {draw(st.sampled_from('+-'))} {draw(interval_literal)})"
        case "cast":
            kind = draw(st.sampled_from(["TIMESTAMP", "TIMESTAMPTZ"]))
            return f"CAST({draw(st.sampled_from(['da', 'tz', 'ts', 'tb']))} AS {kind})"
        case _:
            return draw(days())


@st.composite
def chosen(draw: st.DrawFn, values: st.SearchStrategy[str], depth: int) -> str:
    """One of several values of a kind."""
    first, second = draw(values), draw(st.one_of(values, st.just("NULL")))
    match draw(st.sampled_from(["coalesce", "case", "if", "nullif"])):
        case "coalesce":
            return f"coalesce({first}, {second})"
        case "case":
            return f"CASE WHEN {draw(conditions(depth - 1))} THEN {first} ELSE {second} END"
        case "if":
            return f"if({draw(conditions(depth - 1))}, {first}, {second})"
        case _:
            return f"nullif({first}, {second})"


PATTERNS = ["a%", "%b", "%a%", "a_b", "_", "", "%", "a\\%b", "A%", "É", "__", "a%b%", "日_", "%\n%", "a|%b", "é%"]
REGEXES = ["a.b", "^a", "b$", "[a-c]+", "(?i)AB", "a|b", "^.$", "\\d+", "é", ""]
trimmed = st.sampled_from(["", ", 'a'", ", 'ab '"])
escapes = st.sampled_from(["'|'", "'\\'"])
options = st.sampled_from(["", ", 'i'", ", 's'"])
comparison = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
distinction = st.sampled_from([" IS DISTINCT FROM ", " IS NOT DISTINCT FROM "])


@st.composite
def comparisons(draw: st.DrawFn, depth: int) -> str:
    sign = draw(st.one_of(comparison, comparison, distinction))
    sides = [
        (numbers(depth), numbers(depth)),
        (st.sampled_from([*INTEGER_COLUMNS, "f32", "f64", "d"]), st.one_of(numbers(0), number_text)),
        (texts(depth), texts(depth)),
        (moments(), moments()),
        (st.sampled_from(["da", "db"]), day_text),
        (st.sampled_from(["t", "ts", "tz", "tn"]), time_text),
        (st.sampled_from(["c", "cs"]), st.one_of(clock_text, st.sampled_from(["c", "cs"]))),
        (st.sampled_from(["du", "(t - t)", "(t - CAST(da AS TIMESTAMP))"]), st.one_of(interval_literal, st.just("du"))),
        (conditions(0), conditions(0)),
        (st.just("b"), st.sampled_from(["TRUE", "false", "'true'", "NULL"])),
        (st.just("f64"), st.sampled_from(["'NaN'", "'inf'", "'-inf'", "'1e3'"])),
    ]
    left, right = draw(st.sampled_from(sides))
    pair = [draw(left), draw(right)]
    if draw(st.booleans()):
        pair.reverse()
    return sign.join(pair)


@st.composite
def memberships(draw: st.DrawFn, depth: int) -> str:
    value, options = draw(
        st.sampled_from(
            [
                (integers(depth), st.one_of(integer_literal, decimal_literal, st.sampled_from(["'1'", "i32"]))),
                (
                    floats(depth),
                    st.one_of(integer_literal, decimal_literal, float_literal, st.sampled_from(["'NaN'", "f32"])),
                ),
                (decimals(depth), st.one_of(integer_literal, decimal_literal)),
                (texts(depth), st.one_of(text_literal, text_literal, st.just("s"))),
                (days(), st.one_of(day_text, day_literal, st.just("db"))),
                (st.sampled_from(["t", "ts", "tz", "tn", "tb"]), st.one_of(time_text, time_literal)),
                (st.sampled_from(["c", "cs"]), clock_text),
                (st.just("b"), st.sampled_from(["TRUE", "FALSE"])),
            ]
        )
    )
    inside = draw(st.lists(st.one_of(options, options, options, st.just("NULL")), min_size=1, max_size=5))
    negated = draw(st.sampled_from(["", "NOT "]))
    if len(inside) > 1 and draw(st.booleans()):
        return f"{draw(value)} {negated}BETWEEN {inside[0]} AND {inside[1]}"
    return f"{draw(value)} {negated}IN ({', '.join(inside)})"


@st.composite
def text_matches(draw: st.DrawFn, depth: int) -> str:
    text, literal = draw(texts(depth)), draw(text_literal)
    match draw(st.sampled_from(["like", "like", "escape", "function", "regex", "similar", "tilde"])):
        case "like":
            sign = draw(st.sampled_from(["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"]))
            return f"{text} {sign} {draw(st.one_of(st.sampled_from(PATTERNS).map(_quoted), text_literal))}"
        case "escape":
            sign = draw(st.sampled_from(["LIKE", "NOT LIKE", "ILIKE"]))
            return f"{text} {sign} {_quoted(draw(st.sampled_from(PATTERNS)))} ESCAPE {draw(escapes)}"
        case "function":
            name = draw(st.sampled_from(["starts_with", "ends_with", "contains", "prefix", "suffix"]))
            return f"{name}({text}, {literal})"
        case "regex":
            return f"regexp_matches({text}, {_quoted(draw(st.sampled_from(REGEXES)))}{draw(options)})"
        case "similar":
            return f"{text} SIMILAR TO {_quoted(draw(st.sampled_from(REGEXES)))}"
        case _:
            return f"{text} ~ {_quoted(draw(st.sampled_from(REGEXES)))}"


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> str:
    choices = ["comparison", "membership", "null", "boolean"]
    if depth:
        choices += ["text", "and", "or", "not", "is", "number"]
    match draw(st.sampled_from(choices)):
        case "comparison":
            return f"({draw(comparisons(max(0, depth - 1)))})"
        case "membership":
            return f"({draw(memberships(max(0, depth - 1)))})"
        case "null":
            return f"({draw(st.sampled_from(list(COLUMNS)))} IS {draw(st.sampled_from(['', 'NOT ']))}NULL)"
        case "boolean":
            return draw(st.sampled_from(["b", "TRUE", "FALSE", "b", "CAST(NULL AS BOOLEAN)"]))
        case "text":
            return f"({draw(text_matches(depth - 1))})"
        case "number":
            return f"{draw(st.sampled_from(['isnan', 'isinf', 'isfinite']))}({draw(floats(depth - 1))})"
        case "not":
            return f"(NOT {draw(conditions(depth - 1))})"
        case "is":
            test = draw(st.sampled_from(["TRUE", "FALSE", "NOT TRUE", "NOT FALSE", "UNKNOWN", "NOT NULL"]))
            return f"({draw(conditions(depth - 1))} IS {test})"
        case word:
            parts = [draw(conditions(depth - 1)) for _ in range(draw(st.integers(2, 3)))]
            return "(" + f" {word.upper()} ".join(parts) + ")"
