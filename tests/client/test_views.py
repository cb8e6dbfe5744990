"""A table as DuckDB scans it: what is fetched for a query, and what the query then sees."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import duckdb
import pyarrow as pa
import pytest

from datom_flight import Connection, DatomError
from datom_flight.protocol.errors import UnavailableError
from datom_flight.views import RemoteTable
from support.rows import rows
from support.wire_server import WireServer

TABLE = pa.table(
    {
        "n": pa.array(range(1000), pa.int64()),
        "sex": pa.array(["F", "M", None, "U"] * 250).dictionary_encode(),
        "blob": pa.array([b"a", b"b", None, b"d"] * 250),
        "pair": pa.array([{"a": row % 7, "b": "x"} for row in range(1000)]),
        "list": pa.array([[row] * (row % 3) for row in range(1000)]),
    }
)


class Stored:
    """Rows somewhere else, and what was fetched of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str] | None, str | None]] = []
        self.given = 0
        self.closed = 0

    def fetch(self, columns: Sequence[str] | None, where: str | None) -> Iterator[pa.RecordBatch]:
        self.asked.append((None if columns is None else list(columns), where))
        with duckdb.connect() as database:
            database.register("stored", TABLE)
            query = f"SELECT n FROM stored WHERE {where or 'true'}"
            passing = TABLE.take(database.sql(query).to_arrow_table()["n"])
        try:
            for batch in passing.select(columns or TABLE.schema.names).to_batches(100):
                yield batch
                self.given += batch.num_rows
        finally:
            self.closed += 1


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def remote(stored: Stored) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as database:
        database.register("t", RemoteTable(TABLE.schema, stored.fetch))
        yield database


@pytest.fixture
def local() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as database:
        database.register("t", TABLE)
        yield database


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("SELECT * FROM t", [(None, None)]),
        ("SELECT n, sex, blob, pair, list FROM t", [(None, None)]),
        ("SELECT sex FROM t WHERE n < 5", [(["sex"], "\"n\" < '5'")]),
        ("SELECT count(*) FROM t", [(["n"], None)]),
        ("SELECT count(*) FROM t WHERE sex = 'F'", [(["n"], "\"sex\" = 'F'")]),
        ("SELECT n FROM t WHERE blob = 'a'::BLOB AND n > 990", [(["n", "blob"], "\"n\" > '990'")]),
        ("SELECT n FROM t WHERE pair.a = 3", [(["n", "pair"], None)]),
        ("SELECT n FROM t WHERE pair.a = 3 AND sex IN ('F', 'U')", [(["n", "pair"], "\"sex\" IN ('F', 'U')")]),
        ("SELECT len(list), sex FROM t WHERE n > 10 AND len(list) = 2", [(["sex", "list"], "\"n\" > '10'")]),
        ("SELECT n FROM t WHERE sex LIKE 'F%' AND n < 9", [(["n", "sex"], "\"n\" < '9'")]),
        ("SELECT pair.b FROM t WHERE n = 5", [(["pair"], "\"n\" = '5'")]),
    ],
)
def test_a_query_fetches_what_it_uses_and_sees_the_same_rows(
    remote: duckdb.DuckDBPyConnection,
    local: duckdb.DuckDBPyConnection,
    stored: Stored,
    query: str,
    asked: list[tuple[list[str] | None, str | None]],
) -> None:
    found = remote.sql(query).fetchall()
    assert found == local.sql(query).fetchall()
    assert stored.asked == asked


def test_each_use_fetches_anew(remote: duckdb.DuckDBPyConnection, stored: Stored) -> None:
    for _ in range(2):
        assert remote.sql("SELECT max(n) FROM t").fetchall() == [(999,)]
    assert len(stored.asked) == stored.closed == 2


def test_rows_that_are_not_wanted_any_more_are_let_go_of(remote: duckdb.DuckDBPyConnection, stored: Stored) -> None:
    assert len(remote.sql("SELECT n FROM t LIMIT 3").fetchall()) == 3
    assert stored.given < 1000
    assert stored.closed == 1


def test_an_error_while_rows_arrive_is_told(stored: Stored) -> None:
    def broken(columns: Sequence[str] | None, where: str | None) -> Iterator[pa.RecordBatch]:
        yield TABLE.select(columns or TABLE.schema.names).to_batches()[0]
        raise UnavailableError("the rows keep ending early", code="truncated")

    with duckdb.connect() as database:
        database.register("t", RemoteTable(TABLE.schema, broken))
        with pytest.raises(duckdb.Error, match="truncated: the rows keep ending early") as caught:
            database.sql("SELECT sum(n) FROM t").fetchall()
    assert str(caught.value).count("File ") == 1


def test_a_table_is_read_by_its_version_in_one_round_trip(server: WireServer, conn: Connection) -> None:
    stored = server.put("dm", rows(30))
    with conn.duckdb(["dm"]) as database:
        server.calls.clear()
        server.put("dm", rows(40))
        assert database.sql("SELECT * FROM dm").to_arrow_table().num_rows == 30
    assert server.calls == [
        ("DoGet", {"project": "STUDY_001", "table": "dm", "version": stored.version}),
    ]


def test_a_token_that_is_refused_is_no_table_that_is_not_there(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(3))
    server.tokens["other"] = "ann"
    with pytest.raises(DatomError) as caught:
        conn.duckdb()
    assert caught.value.code == "unauthenticated"


@pytest.mark.parametrize(
    ("package", "module", "extra", "call"),
    [
        ("duckdb", "views", "duckdb", lambda conn: conn.duckdb()),
        ("adbc_driver_flightsql", "drivers", "adbc", lambda conn: conn.adbc()),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    module: str,
    extra: str,
    call: Callable[[Connection], object],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"datom_flight.{module}", raising=False)
    with pytest.raises(DatomError) as caught:
        call(conn)
    assert caught.value.code == "unsupported"
    assert package in caught.value.message
    assert caught.value.hint == f"pip install 'datom-flight[{extra}]'"
