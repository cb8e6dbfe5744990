"""Plans: which queries are plain reads, and what comes back from a ticket."""

from __future__ import annotations

import base64
import json
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datom_flight.protocol.errors import DatomError
from datom_flight_server.sql.statements import Plan
from support.sql import ANN, SMALL, Sql, serving
from support.stores import write_store
from support.truth import queries, study

ODD = pa.table({"a": [1], "A": [2], "b c": [3], "d": pa.array(["x"]).dictionary_encode()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    write_store(folder / "study", {**{name: [table] for name, table in study().items()}, "odd": [ODD]})
    return folder


@pytest.fixture(scope="module")
def sql(folder: Path) -> Iterator[Sql]:
    with serving(folder / "cache", {"STUDY_001": folder / "study"}, "STUDY_001") as sql:
        yield sql


@pytest.mark.parametrize(
    ("query", "columns", "where", "limit"),
    [
        ("SELECT * FROM dm", None, None, None),
        ("FROM dm", None, None, None),
        ("TABLE STUDY_001.dm;", None, None, None),
        ("SELECT AGE, usubjid FROM dm", ("AGE", "USUBJID"), None, None),
        ("SELECT d.AGE FROM dm AS d", ("AGE",), None, None),
        ("SELECT dm.AGE FROM dm", ("AGE",), None, None),
        ("SELECT * FROM dm LIMIT 5", None, None, 5),
        ("SELECT * FROM dm LIMIT 0", None, None, 0),
        ("SELECT USUBJID FROM dm d WHERE d.age > 50 AND Sex = 'F'", ("USUBJID",), "((AGE > 50) AND (SEX = 'F'))", None),
        ("FROM dm WHERE AGE IS NULL LIMIT 1", None, "(AGE IS NULL)", 1),
        ('SELECT "b c" FROM odd', ("b c",), None, None),
        ("SELECT * FROM odd", None, None, None),
    ],
)
def test_columns_a_condition_and_a_limit_are_a_plain_read(
    sql: Sql, query: str, columns: tuple[str, ...] | None, where: str | None, limit: int | None
) -> None:
    plan = sql.plan(query)
    assert plan.simple is not None
    assert (plan.simple.columns, plan.simple.where, plan.simple.limit) == (columns, where, limit)
    assert (plan.simple.table, plan.simple.version) == (plan.pins[0].table, plan.pins[0].version)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "SELECT count(*) FROM dm",
        "SELECT AGE AS years FROM dm",
        "SELECT AGE, AGE FROM dm",
        "SELECT *, AGE FROM dm",
        "SELECT * EXCLUDE (AGE) FROM dm",
        "SELECT COLUMNS('A.*') FROM dm",
        "SELECT DISTINCT SEX FROM dm",
        "SELECT * FROM dm LIMIT 5 OFFSET 1",
        "SELECT * FROM dm OFFSET 1",
        "SELECT * FROM dm LIMIT 10%",
        "SELECT * FROM dm LIMIT (SELECT 3)",
        "SELECT * FROM dm ORDER BY AGE",
        "SELECT * FROM dm d (a, b)",
        "SELECT * FROM dm USING SAMPLE 10%",
        "SELECT * FROM dm QUALIFY row_number() OVER () = 1",
        "SELECT * FROM dm WHERE AGE > (SELECT 50)",
        "SELECT * FROM dm WHERE AGE = ANY([40])",
        "SELECT AGE FROM dm GROUP BY AGE",
        "SELECT * FROM dm, dm d2",
        "SELECT * FROM (FROM dm)",
        "WITH w AS (SELECT 1) FROM dm",
        "FROM dm UNION FROM dm",
        "FROM datom_tables()",
        "SELECT A FROM odd",
    ],
)
def test_whatever_else_is_computed(sql: Sql, query: str) -> None:
    assert sql.plan(query).simple is None


def test_many_of_the_queries_that_are_held_to_duckdb_are_plain_reads(sql: Sql) -> None:
    filters = [query for query in queries() if query.place.startswith("filters")]
    assert sum(sql.plan(query.text).simple is not None for query in filters) > 0.9 * len(filters)


def test_a_plain_read_keeps_the_stored_types(sql: Sql) -> None:
    assert sql.table("SELECT d FROM odd").schema.field("d").type == ODD.schema.field("d").type
    assert sql.table("SELECT * FROM odd").schema.names == ODD.column_names
    assert sql.table("SELECT d FROM odd ORDER BY d").schema.field("d").type == pa.string()


CONSTANTS = [
    ("SELECT 1", None, (1,)),
    ("SELECT 'a' AS x, NULL, -1.5, DATE '2026-01-15'", None, ("a", None, Decimal("-1.5"), date(2026, 1, 15))),
    ("SELECT ? AS n, ?", pa.record_batch({"1": [7], "2": ["b"]}), (7, "b")),
]


def test_constants_are_answered_while_other_queries_take_all_turns(folder: Path, tmp_path: Path) -> None:
    limits = replace(SMALL, concurrent=1, queue_seconds=0)
    with serving(tmp_path, {"STUDY_001": folder / "study"}, "STUDY_001", limits) as sql:
        for query, parameters, row in CONSTANTS:
            assert sql.rows(query, parameters=parameters) == [row]
        endless = sql.plan("SELECT range FROM range(1000000000)")
        with closing(cast("Generator[pa.RecordBatch]", sql.statements.run(ANN, endless))) as batches:
            next(batches)
            for query, parameters, row in CONSTANTS:
                assert sql.rows(query, parameters=parameters) == [row]
            assert (
                sql.refusal("SELECT ? AS n, ?", parameters=pa.record_batch({"1": [8], "2": ["b"]})).code == "overloaded"
            )


def test_constants_of_other_parameters_are_other_constants(sql: Sql) -> None:
    for value in (1, 2, "1", None):
        assert sql.rows("SELECT ? AS x", parameters=pa.record_batch({"1": [value]})) == [(value,)]


@pytest.mark.parametrize("query", ["SELECT uuid()", "SELECT random() + 1", "SELECT (SELECT uuid())"])
def test_what_comes_out_another_way_each_time_is_no_constant(sql: Sql, query: str) -> None:
    assert sql.rows(query) != sql.rows(query)


def test_a_plan_of_constants_is_run_where_it_was_not_made(sql: Sql, folder: Path, tmp_path: Path) -> None:
    plan = sql.plan("SELECT 'here' AS said")
    with serving(tmp_path, {"STUDY_001": folder / "study"}, "STUDY_001") as other:
        assert [batch.to_pylist() for batch in other.statements.run(ANN, plan)] == [[{"said": "here"}]]


@pytest.fixture(scope="module")
def body(sql: Sql) -> dict[str, Any]:
    """A plan with all that plans have, as JSON."""
    parameters = pa.record_batch({"1": [50]})
    plan = sql.plan("SELECT USUBJID FROM dm WHERE AGE > ?", parameters=parameters, as_of="2026-06-30")
    found: dict[str, Any] = json.loads(plan.to_bytes())
    assert set(found) == {"query", "project", "as_of", "names", "schema", "parameter_names", "parameters", "simple"}
    return found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
def test_a_plan_that_nobody_made_is_refused(sql: Sql, body: dict[str, Any], data: st.DataObject) -> None:
    forged = body | {data.draw(st.sampled_from(sorted(body))): data.draw(JSON)}
    with suppress(DatomError):
        plan = Plan.from_bytes(json.dumps(forged).encode())
        list(sql.statements.run(ANN, plan))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"query":"SELECT 1"}', b'{"query":"SELECT 1","schema":"AAAA"}', b'{"x":1}'],
)
def test_bytes_that_are_no_plan_are_refused(data: bytes) -> None:
    with pytest.raises(DatomError) as caught:
        Plan.from_bytes(data)
    assert caught.value.code == "invalid_argument"


def test_rows_are_of_the_schema_that_was_planned(sql: Sql, body: dict[str, Any]) -> None:
    other = base64.b64encode(pa.schema({"x": pa.int64()}).serialize()).decode()
    plan = Plan.from_bytes(json.dumps(body | {"schema": other}).encode())
    with pytest.raises(DatomError) as caught:
        list(sql.statements.run(ANN, plan))
    assert caught.value.code == "invalid_argument"


def test_a_plan_without_its_parameters_is_not_run(sql: Sql, body: dict[str, Any]) -> None:
    plan = Plan.from_bytes(json.dumps({key: value for key, value in body.items() if key != "parameters"}).encode())
    with pytest.raises(DatomError, match="no values are given"):
        list(sql.statements.run(ANN, plan))
