"""Queries of many kinds, by the stock ADBC driver over a real server, beside DuckDB itself over the same files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest

from support import tpch
from support.adbc import adbc
from support.server import Server, running, write_config
from support.stores import write_store
from support.truth import Query, differences, queries, reading, study

QUERIES = queries()


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("truth")
    write_store(folder / "study", {name: [table] for name, table in study().items()})
    write_store(folder / "tpch", {name: [table] for name, table in tpch.tables(0.1).items()}, row_group_size=50_000)
    return {"STUDY_001": folder / "study", "TPCH": folder / "tpch"}


@pytest.fixture(scope="module")
def server(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    projects = {name: {"data": f"file://{root}"} for name, root in roots.items()}
    with running(write_config(tmp_path_factory.mktemp("server"), projects)) as server:
        yield server


@pytest.fixture(scope="module")
def conns(server: Server) -> Iterator[dict[str, Any]]:
    """A connection for each project: its tables need no prefix."""
    with ExitStack() as stack:
        yield {
            project: stack.enter_context(adbc(server, autocommit=True, headers={"x-datom-project": project}))
            for project in ("STUDY_001", "TPCH")
        }


@pytest.fixture(scope="module")
def truth(roots: dict[str, Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    with reading(roots, "STUDY_001") as connection:
        yield connection


def test_there_are_enough_of_them_and_no_two_are_the_same() -> None:
    assert len({" ".join(query.text.split()) for query in QUERIES}) == len(QUERIES) >= 300
    assert sum(query.place.startswith("tpch:") for query in QUERIES) == 22


@pytest.mark.parametrize(
    "other",
    [
        "VALUES (1, 'a', 'NaN'::DOUBLE), (2, 'b', 0.0)",
        "SELECT * FROM (VALUES (1, 'a', 'NaN'::DOUBLE), (2, 'b', 0.0::DOUBLE)) v (x, y, w)",
        "SELECT * FROM (VALUES (1::BIGINT, 'a', 'NaN'::DOUBLE), (2, 'b', 0.0::DOUBLE)) v (x, y, z)",
        "SELECT * FROM (VALUES (1, 'a', NULL::DOUBLE), (2, 'b', 0.0::DOUBLE)) v (x, y, z)",
        "SELECT * FROM (VALUES (1, 'a', 'NaN'::DOUBLE), (2, 'b', -0.0::DOUBLE)) v (x, y, z)",
        "SELECT * FROM (VALUES (1, 'a', 'NaN'::DOUBLE), (2, 'B', 0.0::DOUBLE)) v (x, y, z)",
        "SELECT * FROM (VALUES (1, 'a', 'NaN'::DOUBLE)) v (x, y, z)",
        "SELECT * FROM (VALUES (1, 'a', 'NaN'::DOUBLE), (2, 'b', 0.0::DOUBLE), (2, 'b', 0.0::DOUBLE)) v (x, y, z)",
    ],
)
def test_a_difference_is_one(truth: duckdb.DuckDBPyConnection, other: str) -> None:
    query = "SELECT * FROM (VALUES (1, 'a', 'NaN'::DOUBLE), (2, 'b', 0.0::DOUBLE)) v (x, y, z)"
    found = truth.sql(query).to_arrow_table()
    assert differences(found, truth.sql(query), True) == []
    assert differences(found, truth.sql(f"{query} ORDER BY x DESC"), False) == []
    assert differences(found, truth.sql(f"{query} ORDER BY x DESC"), True) != []
    assert differences(found, truth.sql(other), False) != []


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.place)
def test_it_gives_what_duckdb_gives(conns: dict[str, Any], truth: duckdb.DuckDBPyConnection, query: Query) -> None:
    project = "TPCH" if query.place.startswith("tpch") else "STUDY_001"
    truth.execute(f'USE "{project}"')
    with conns[project].cursor() as cursor:
        cursor.execute(query.text)
        found = cursor.fetch_arrow_table()
    assert (found.num_rows == 0) == query.empty
    assert differences(found, truth.sql(query.text), query.ordered) == []
