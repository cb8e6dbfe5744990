"""The queries that docs/sql.md shows run, and what it says is refused is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datom_flight_server.settings import SqlSettings
from datom_flight_server.sql.allowed import TABLE_FUNCTIONS
from datom_flight_server.sql.frames import MAX_ROW_BYTES
from datom_flight_server.sql.history import USAGE
from datom_flight_server.sql.selects import MAX_BRACKETS, MAX_DEPTH, MAX_TEXT_BYTES, MAX_TOKENS
from support.expected import STORES
from support.sql import Sql, serving

PAGE = (Path(__file__).parent.parent.parent / "docs" / "sql.md").read_text()

SHOWN = [
    query.strip() for block in re.findall(r"^```sql\n(.*?)^```$", PAGE, re.M | re.S) for query in block.split(";\n")
]


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sql]:
    roots = {store.project: store.root / store.prefix for store in STORES}
    with serving(tmp_path_factory.mktemp("cache"), roots, "STUDY_001") as sql:
        yield sql


def stood_in(query: str) -> tuple[str, str]:
    """A query with versions that R's stores have for those of the page, and the project it is for."""
    basic, product = (
        next(store for store in STORES if store.name == name) for name in ("store-basic", "store-product")
    )
    oldest = basic.answer("dm", "datom_history.json")[-1]
    first_set = next(version for version in product.index["study001-adam"]["versions"] if version != "current")
    changed = query.replace("8a3b21cc", oldest["version"][:8]).replace("8c5e0d13", first_set[:8])
    changed = changed.replace("2026-01-15", basic.answer("lb", "datom_history.json")[-1]["timestamp"])
    return changed, product.project if "study001-adam" in query else basic.project


def test_there_are_queries() -> None:
    assert len(SHOWN) > 10


@pytest.mark.parametrize("query", SHOWN)
def test_a_query_that_is_shown_runs(sql: Sql, query: str) -> None:
    changed, project = stood_in(query)
    assert sql.rows(changed, project=project)


def test_every_function_is_described() -> None:
    for usage in USAGE.values():
        for written in usage.split(" or "):
            assert f"`{written}`" in PAGE
    for name in TABLE_FUNCTIONS:
        assert f"`{name}`" in PAGE


@pytest.mark.parametrize(
    ("name", "columns"), [("datom_tables()", 7), ("datom_versions('dm')", 7), ("datom_lineage('dm')", 5)]
)
def test_the_columns_of_history_are_those_described(sql: Sql, name: str, columns: int) -> None:
    found = sql.table(f"FROM {name}").column_names
    assert len(found) == columns
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name.split('(')[0]}("))
    assert re.search(r" \| " + r".*?".join(f"`{column}`" for column in found), line)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1; SELECT 2",
        "EXPLAIN SELECT 1",
        "SET threads = 1",
        "PRAGMA version",
        "COPY dm TO 'x'",
        "ATTACH 'x'",
        "CREATE TABLE x AS FROM dm",
        "DELETE FROM dm",
        "SELECT setseed(0.5)",
        "SELECT nextval('x')",
        "SELECT getenv('HOME')",
        "SELECT current_setting('threads')",
        *(f"FROM {name}" for name in ("read_parquet('x')", "query('FROM dm')", "query_table('dm')", "glob('*')")),
        *(f"FROM {name}" for name in ("duckdb_settings()", "summary((FROM dm))", "test_all_types()")),
        "FROM information_schema.tables",
        "FROM pg_catalog.pg_class",
        "PIVOT dm ON SEX USING count(*)",
        "FROM dm AT (TIMESTAMP => now())",
        "FROM datom_versions(lower('DM'))",
    ],
)
def test_what_is_said_to_be_refused_is(sql: Sql, query: str) -> None:
    assert sql.refusal(query).code == "sql_error"


def test_the_limits_are_those_of_the_settings_and_of_the_parser() -> None:
    named = set(re.findall(r"`sql\.(\w+)`", PAGE))
    assert named == set(SqlSettings.model_fields) - {"threads"}
    text = (
        f"{MAX_TEXT_BYTES // 1024} KiB, {MAX_TOKENS:,} words, {MAX_BRACKETS} nested brackets, {MAX_DEPTH} nested parts"
    )
    assert text in PAGE
    assert f"{MAX_ROW_BYTES // 2**20} MiB for one row" in PAGE


@pytest.mark.parametrize(
    ("written", "value", "type_"),
    [("?", "x", "VARCHAR"), ("$1", pa.scalar(1, pa.int32()), "INTEGER"), ("$d", date(2026, 1, 15), "DATE")],
)
def test_a_parameter_has_the_type_of_its_value(sql: Sql, written: str, value: Any, type_: str) -> None:
    row = pa.record_batch({written.strip("$?") or "1": pa.array([value])})
    assert sql.rows(f"SELECT typeof({written}), count(*) > 0 FROM dm", parameters=row) == [(type_, True)]
