"""The queries that docs/sql.md shows run, and what it says is refused is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from datom_flight_server.sql.allowed import TABLE_FUNCTIONS
from datom_flight_server.sql.history import USAGE
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
