"""pyarrow's filters in SQL: what is translated means the same, and the rest is left as it was."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datom_flight.conditions import MAX_PARTS, MAX_VALUES, split

NOON = datetime(2026, 1, 15, 12, 30, 0, 123000)
TABLE = pa.table(
    {
        "n": pa.array([1, 2, 3, None], pa.int64()),
        "u64": pa.array([0, 2**63, 2**64 - 1, None], pa.uint64()),
        "f32": pa.array([0.1, -0.0, math.nan, None], pa.float32()),
        "f64": pa.array([0.1, 0.0, math.nan, None]),
        "yes": pa.array([True, False, True, None]),
        "dec": pa.array([Decimal("1.50"), Decimal("-1.50"), Decimal("0.00"), None]),
        "text": pa.array(["", "it's", 'a "b"\n', None]),
        "sex": pa.array(["F", "M", "F", None]).dictionary_encode(),
        "day": pa.array([date(2026, 1, 15), date(1, 1, 1), date(9999, 12, 31), None]),
        "s": pa.array([0, 10**9, -1, None], pa.timestamp("s")),
        "us": pa.array([NOON, NOON, datetime(1, 1, 1), None], pa.timestamp("us")),
        "ns": pa.array([1, 2, 3, None], pa.timestamp("ns")),
        "tz": pa.array([NOON.replace(tzinfo=UTC), NOON, NOON, None], pa.timestamp("us", "America/New_York")),
        "t": pa.array([time(12, 30), time(0), time(23, 59, 59, 999999), None], pa.time64("us")),
        "blob": pa.array([b"a", b"\x00", b"'", None]),
        "pair": pa.array([{"a": 1}, {"a": None}, None, {"a": 2}]),
        "it's": [1, 2, 3, None],
        'odd "name"': [1, 2, 3, None],
        "two\nlines": [1, 2, 3, None],
        "field_ref: 'n'": [1, 2, 3, None],
        "row": [0, 1, 2, 3],
    }
)


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.register("stored", TABLE)
        yield database


def rows(database: duckdb.DuckDBPyConnection, expression: pc.Expression) -> list[int]:
    """The rows that pass both parts of the filter, the one in SQL as DuckDB has it."""
    parts = split(expression, TABLE.schema)
    found = database.execute(f"SELECT row FROM stored WHERE {parts.where or 'true'}").fetchall()
    left = TABLE if parts.rest is None else TABLE.filter(parts.rest)
    return sorted({row for (row,) in found} & set(left["row"].to_pylist()))


def is_member(name: str, values: pa.Array) -> pc.Expression:
    """``IN`` as DuckDB asks pyarrow for it."""
    return pc.if_else(pc.field(name).is_valid(), pc.field(name).isin(values), pa.scalar(None, pa.bool_()))


N = pc.field("n")


@pytest.mark.parametrize(
    ("expression", "where"),
    [
        (N == 1, "\"n\" = '1'"),
        ((N > 1) & (pc.field("text") != "it's"), "\"n\" > '1' AND \"text\" <> 'it''s'"),
        ((N < 2) | (N >= 3) | N.is_null(), '("n" < \'2\' OR "n" >= \'3\' OR "n" IS NULL)'),
        (~(N <= 2), "NOT (\"n\" <= '2')"),
        (N.is_valid(), '"n" IS NOT NULL'),
        (is_member("n", pa.array([1, 3])), "\"n\" IN ('1', '3')"),
        (~is_member("sex", pa.array(["F"])), "NOT (\"sex\" IN ('F'))"),
        (pc.field("u64") == pa.scalar(2**64 - 1, pa.uint64()), "\"u64\" = '18446744073709551615'"),
        (pc.field("f64") <= 0.1, "\"f64\" <= '0.1'"),
        (pc.field("f32") == pa.scalar(0.1, pa.float32()), "\"f32\" = '0.10000000149011612'"),
        (pc.field("yes") == pa.scalar(True), "\"yes\" = 'true'"),
        (pc.field("dec") == Decimal("1.5"), "\"dec\" = '1.50'"),
        (pc.field("day") > date(1, 1, 1), "\"day\" > '0001-01-01'"),
        (pc.field("us") == pa.scalar(NOON), "\"us\" = '2026-01-15 12:30:00.123000'"),
        (pc.field("t") == time(12, 30), "\"t\" = '12:30:00.000000'"),
        (pc.field("it's") == 1, "\"it's\" = '1'"),
        (pc.field('odd "name"') == 1, '"odd ""name""" = \'1\''),
        (pc.field("field_ref: 'n'") == 1, "\"field_ref: 'n'\" = '1'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_server_knows_is_translated_whole(
    database: duckdb.DuckDBPyConnection, expression: pc.Expression, where: str
) -> None:
    parts = split(expression, TABLE.schema)
    assert (parts.where, parts.rest, parts.rest_columns) == (where, None, frozenset())
    assert rows(database, expression) == TABLE.filter(expression)["row"].to_pylist()


@pytest.mark.parametrize(
    "expression",
    [
        N + 1 > 2,
        N.isin(pa.array([1])),
        pc.field("row") == N,
        pc.scalar(True),
        pc.field("f64") > 0,
        pc.field("f64") == math.nan,
        pc.field("f64").is_null(nan_is_null=True),
        pc.field("blob") == b"a",
        pc.field("pair", "a") == 1,
        pc.field("ns") == pa.scalar(1, pa.timestamp("ns")),
        pc.field("s") == pa.scalar(1_500_000, pa.timestamp("us")),
        pc.field("text") == "\0",
        pc.field("two\nlines") == 1,
        pc.field("yes"),
        pc.match_substring(pc.field("text"), "b"),
        pc.if_else(N.is_valid(), pc.field("row").isin(pa.array([1])), pa.scalar(None, pa.bool_())),
        pc.if_else(N.is_valid(), N == 1, pa.scalar(True)),
        is_member("n", pa.array([], pa.int64())),
        is_member("n", pa.array([1, None])),
        is_member("f64", pa.array([-0.0, 1.5])),
        is_member("n", pa.array(range(MAX_VALUES + 1))),
        pc.field("row") == pa.scalar(None, pa.int64()),
    ],
    ids=lambda expression: str(expression)[:40],
)
def test_the_rest_is_left_as_it_was_beside_what_is_translated(
    database: duckdb.DuckDBPyConnection, expression: pc.Expression
) -> None:
    alone = split(expression, TABLE.schema)
    assert alone.where is None
    assert str(alone.rest) == str(expression)
    beside = expression & (N > 1)
    assert rows(database, beside) == TABLE.filter(beside)["row"].to_pylist()


def test_only_what_the_rest_reads_has_to_be_fetched_for_it() -> None:
    parts = split((N > 1) & (pc.field("blob") == b"a") & (pc.field("pair", "a") == 1), TABLE.schema)
    assert (parts.where, parts.rest_columns) == ("\"n\" > '1'", frozenset({"blob", "pair"}))
    unknown = split((N > 1) & (pc.field("two\nlines") == 1), TABLE.schema)
    assert unknown.rest_columns == set(TABLE.schema.names)


def test_a_condition_stays_of_a_size_that_the_server_takes() -> None:
    level = [pc.field("n") == number for number in range(MAX_PARTS)]
    while len(level) > 1:
        level = [left | right for left, right in zip(level[::2], level[1::2], strict=False)]
    many = level[0]
    assert split(many, TABLE.schema).where is None
    both = split(many & (N > 1), TABLE.schema)
    assert both.where == "\"n\" > '1'"
    assert str(both.rest) == str(many)
    long = pc.field("text") == "x" * 200_000
    assert split(long, TABLE.schema).where is None


@pytest.mark.parametrize("depth", [50, 200, 320, 450, 700, 2000])
def test_a_filter_of_any_depth_is_split(depth: int) -> None:
    deep, chain = pc.field("n") == 0, pc.field("n") == 0
    for number in range(depth):
        deep, chain = ~deep, chain | (pc.field("n") == number)
    for expression in (deep, chain):
        parts = split(expression & (N > 1), TABLE.schema)
        assert parts.where is not None or parts.rest is not None
        if depth == 50:
            assert parts.rest is None


CONSTANTS: dict[str, Any] = {
    "n": st.integers(-(2**63), 2**63 - 1).map(lambda n: pa.scalar(n, pa.int64())) | st.sampled_from([1, 2, 3]),
    "f64": st.floats(allow_nan=False) | st.sampled_from([0.1, -0.0]),
    "text": st.text(max_size=3) | st.sampled_from(["it's", 'a "b"\n']),
    "sex": st.sampled_from(["F", "M", "'"]),
    "dec": st.decimals(-9, 9, places=2),
    "day": st.dates() | st.just(date(2026, 1, 15)),
    "us": st.datetimes().map(lambda at: pa.scalar(at, pa.timestamp("us"))) | st.just(NOON),
    "tz": st.datetimes().map(lambda at: pa.scalar(at, pa.timestamp("us", "America/New_York"))),
    "two\nlines": st.sampled_from([1, 2, 3]),
}


@st.composite
def comparisons(draw: st.DrawFn) -> pc.Expression:
    name = draw(st.sampled_from(list(CONSTANTS)))
    constants = CONSTANTS[name]
    kind = draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "null", "valid", "in"]))
    field = pc.field(name)
    if kind in ("null", "valid"):
        return field.is_null() if kind == "null" else field.is_valid()
    if kind == "in":
        values = draw(
            st.lists(constants.filter(lambda value: not isinstance(value, pa.Scalar)), min_size=1, max_size=3)
        )
        held = TABLE.schema.field(name).type
        return is_member(name, pa.array(values, held.value_type if pa.types.is_dictionary(held) else held))
    value = draw(constants)
    made = {
        "=": field == value,
        "<>": field != value,
        "<": field < value,
        "<=": field <= value,
        ">": field > value,
        ">=": field >= value,
    }
    return made[kind]


EXPRESSIONS = st.recursive(
    comparisons(),
    lambda parts: st.tuples(parts, parts, st.sampled_from(["and", "or", "not"])).map(
        lambda made: {"and": made[0] & made[1], "or": made[0] | made[1], "not": ~made[0]}[made[2]]
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_rows_pass_however_a_filter_is_split(
    database: duckdb.DuckDBPyConnection, expression: pc.Expression
) -> None:
    assert rows(database, expression) == TABLE.filter(expression)["row"].to_pylist()


class Asked(ds.InMemoryDataset):  # type: ignore[misc]
    """A dataset that keeps the filters it is asked for."""

    filters: list[pc.Expression]

    def scanner(self, *arguments: Any, **options: Any) -> ds.Scanner:
        self.filters.append(options["filter"])
        return super().scanner(*arguments, **options)


@pytest.mark.parametrize(
    "condition",
    [
        "n > 1 AND text = 'it''s'",
        "n IN (1, 2)",
        "n NOT IN (1, 2)",
        "sex IN ('F', 'X') OR n IS NULL",
        "f64 IN (0, 0.1)",
        "f64 < 1",
        "day BETWEEN '2020-01-01' AND '2030-01-01'",
        "us >= '2026-01-15'",
        "s >= '2001-01-01'",
        "tz < '2030-01-01'",
        "t > '01:00:00'",
        "dec = 1.5",
        "u64 > 5",
        "yes = true",
    ],
)
def test_what_duckdb_asks_of_a_dataset_is_translated_whole(database: duckdb.DuckDBPyConnection, condition: str) -> None:
    asked = Asked(TABLE)
    asked.filters = []
    with duckdb.connect() as other:
        other.register("stored", asked)
        found = other.sql(f"SELECT row FROM stored WHERE {condition}").fetchall()
    (expression,) = asked.filters
    parts = split(expression, TABLE.schema)
    assert parts.where is not None
    assert parts.rest is None
    assert rows(database, expression) == [row for (row,) in found]
