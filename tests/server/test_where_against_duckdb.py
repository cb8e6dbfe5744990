"""Conditions keep the rows that DuckDB keeps: random conditions over random tables, compared row by row."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, given, settings

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight_server.sql.where import Filter, WhereCompiler
from support.conditions import conditions, tables


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


def _agree(compiler: WhereCompiler, database: duckdb.DuckDBPyConnection, table: pa.Table, text: str) -> None:
    try:
        made = compiler.compile(text, table.schema)
        ours = table.filter(made.expression)["row"].to_pylist()
        needed = table.select([*made.columns, "row"]).filter(made.expression)["row"].to_pylist()
    except (InvalidRequestError, pa.ArrowInvalid) as error:
        # to refuse, or fail on a value, is never wrong rows
        event(f"refused: {type(error).__name__}")
        return
    assert ours == needed
    assert set(ours) <= set(_unpruned_rows(table, made)), f"row groups that match were left out: {text}"
    database.register("subject", table)
    try:
        query = f"SELECT row FROM subject WHERE {text} ORDER BY row"
        theirs = [row[0] for row in database.execute(query).fetchall()]
    except duckdb.Error as error:
        event(f"DuckDB fails: {type(error).__name__}")
        return
    finally:
        database.unregister("subject")
    event("compared")
    assert ours == theirs, text


_QUICK = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@given(table=tables(), text=conditions())
@_QUICK
def test_conditions_keep_the_rows_that_duckdb_keeps(
    compiler: WhereCompiler, database: duckdb.DuckDBPyConnection, table: pa.Table, text: str
) -> None:
    _agree(compiler, database, table, text)


@pytest.mark.slow
@given(table=tables(), text=conditions(3))
@settings(_QUICK, max_examples=3000)
def test_many_conditions_keep_the_rows_that_duckdb_keeps(
    compiler: WhereCompiler, database: duckdb.DuckDBPyConnection, table: pa.Table, text: str
) -> None:
    _agree(compiler, database, table, text)
