"""Conditions keep the rows that DuckDB keeps: random conditions over random tables, compared row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from pyarrow import acero

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight_server.sql.where import Filter, WhereCompiler
from support.conditions import conditions, random_table, tables


@pytest.fixture(scope="module")
def compiler() -> Iterator[WhereCompiler]:
    made = WhereCompiler()
    yield made
    made.close()


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(":memory:", config={"threads": "1"})
    connection.execute("SET TimeZone = 'UTC'")
    yield connection
    connection.close()


def _unpruned_rows(table: pa.Table, made: Filter) -> list[int]:
    """The rows of the row groups that statistics leave when the table is stored."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, row_group_size=3)
    fragment = ds.ParquetFileFormat().make_fragment(pa.BufferReader(buffer.getvalue()))
    left = fragment.subset(made.pruning, schema=table.schema)
    return [row for group in left.row_groups for row in range(3 * group.id, 3 * group.id + 3)]


def _agree(compiler: WhereCompiler, database: duckdb.DuckDBPyConnection, table: pa.Table, text: str) -> str:
    try:
        made = compiler.compile(text, table.schema)
        ours = table.filter(made.expression)["row"].to_pylist()
        needed = table.select([*made.columns, "row"]).filter(made.expression)["row"].to_pylist()
    except (InvalidRequestError, pa.ArrowInvalid) as error:
        # to refuse, or fail on a value, is never wrong rows
        return f"refused: {type(error).__name__}"
    assert ours == needed
    assert set(ours) <= set(_unpruned_rows(table, made)), f"row groups that match were left out: {text}"
    database.register("subject", table)
    try:
        query = f"SELECT row FROM subject WHERE {text} ORDER BY row"
        theirs = [row[0] for row in database.execute(query).fetchall()]
    except duckdb.Error as error:
        return f"DuckDB fails: {type(error).__name__}"
    finally:
        database.unregister("subject")
    assert ours == theirs, text
    return "compared"


# Every column with every awkward value of its kind, in every form; all three outcomes are compared.

# fmt: off
KINDS = {
    "numbers": (
        ["i8", "i64", "u64", "f32", "q", "d", "(i32 + 1)"],
        [
            "0", "65", "-1", "300", "9007199254740993", "18446744073709551615", "0.1", "2.5", "65.0", "1.254",
            "9007199254740993.0", "1e0", "6.5e1", "1e300", "9007199254740992e0", "'65'", "NULL", "i64", "f64", "u64",
        ],
    ),
    "special floats": (
        ["f32", "f64", "q", "(q / 0)", "(-f64)"],
        ["'NaN'", "'inf'", "'-inf'", "0e0", "-0e0", "q", "g64"],
    ),
    "texts": (
        ["s", "ls", "fs", "lower(fs)", "(s || ls)"],
        ["''", "'a'", "'B'", "'é'", "'日本'", "'a\nb'", "'O''Brien'", "'65'", "NULL", "fs", "ls", "upper(s)"],
    ),
    "moments": (
        ["da", "t", "ts", "tn", "tz", "tb", "(da + 1)", "date_trunc('month', t)"],
        [
            "'2020-01-15'", "DATE '1969-12-31'", "TIMESTAMP '2020-01-15 00:00:00.5'", "TIMESTAMP '1969-12-31 23:59:59'",
            "TIMESTAMPTZ '2020-01-15 00:00:00+02:00'", "TIMESTAMPTZ '2020-02-29T10:30:00Z'", "NULL", "db", "t", "tz",
        ],
    ),
    "others": (
        ["b", "c", "cs", "du", "nothing", "(b IS NULL)"],
        [
            "TRUE", "'false'", "'10:30'", "'23:59:59'", "TIME '10:30:00.5'", "NULL", "c", "b", "du",
            "INTERVAL '1 day'", "INTERVAL 36 HOURS",
        ],
    ),
}
# fmt: on
FORMS = (
    "{0} = {1}",
    "{0} <> {1}",
    "{0} < {1}",
    "{0} >= {1}",
    "{1} < {0}",
    "{0} IS DISTINCT FROM {1}",
    "{0} IN ({1})",
    "{0} NOT IN ({1}, NULL)",
    "{0} BETWEEN {1} AND {1}",
    "NOT ({0} <= {1} AND b)",
    "{0} > {1} OR b",
    "coalesce({0}, {1}) = {1}",
    "nullif({0}, {1}) IS NULL",
    "CASE WHEN b THEN {0} ELSE {1} END < {1}",
)


def _outcomes(made: Filter, table: pa.Table) -> list[bool | None]:
    source = acero.Declaration("table_source", acero.TableSourceNodeOptions(table))
    project = acero.Declaration("project", acero.ProjectNodeOptions([made.expression], ["outcome"]))
    outcomes: list[bool | None] = acero.Declaration.from_sequence([source, project]).to_table()["outcome"].to_pylist()
    return outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_every_comparison_of_awkward_values_has_duckdbs_outcome(
    compiler: WhereCompiler, database: duckdb.DuckDBPyConnection, kind: str
) -> None:
    table = random_table(1)
    database.register("subject", table)
    columns, values = KINDS[kind]
    texts = [form.format(column, value) for column in columns for value in values for form in FORMS]
    compared = 0
    for text in texts:
        try:
            ours = _outcomes(compiler.compile(text, table.schema), table)
        except (InvalidRequestError, pa.ArrowInvalid):
            continue
        try:
            theirs = [row[0] for row in database.execute(f"SELECT {text} FROM subject ORDER BY row").fetchall()]
        except duckdb.Error:
            continue
        compared += 1
        assert ours == theirs, text
    database.unregister("subject")
    print(kind, compared / len(texts))


def _compare_many(
    compiler: WhereCompiler, database: duckdb.DuckDBPyConnection, examples: int, depth: int
) -> Counter[str]:
    """What came of so many random conditions."""
    outcomes: Counter[str] = Counter()

    @given(table=tables(), text=conditions(depth))
    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def compare(table: pa.Table, text: str) -> None:
        outcomes[_agree(compiler, database, table, text)] += 1

    compare()
    return outcomes


def test_conditions_keep_the_rows_that_duckdb_keeps(
    compiler: WhereCompiler, database: duckdb.DuckDBPyConnection
) -> None:
    outcomes = _compare_many(compiler, database, examples=300, depth=2)
    assert outcomes["compared"] > 0.8 * outcomes.total(), outcomes


@pytest.mark.slow
def test_many_conditions_keep_the_rows_that_duckdb_keeps(
    compiler: WhereCompiler, database: duckdb.DuckDBPyConnection
) -> None:
    outcomes = _compare_many(compiler, database, examples=3000, depth=3)
    assert outcomes["compared"] > 0.8 * outcomes.total(), outcomes
