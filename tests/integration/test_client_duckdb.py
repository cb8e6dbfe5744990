"""`conn.duckdb()` on the real server: the same rows as of local files, and of what is stored only what a query uses."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datom_flight import Connection, DatomError, DatomWarning
from support.relay import Relay, relaying
from support.server import Server, running, write_config
from support.stores import write_store
from support.writable import empty_place

LB_ROWS = 200_000

DM = pa.table(
    {
        "USUBJID": ["01-001", "01-002", "01-003", "it's", None],
        "AGE": pa.array([71, 64, None, -5, 2**31 - 1], pa.int32()),
        "SEX": pa.array(["F", "M", "F", None, "U"]).dictionary_encode(),
    }
)
LB = pa.table(
    {
        "USUBJID": [f"01-{row % 3 + 1:03d}" for row in range(LB_ROWS)],
        "LBSEQ": pa.array(range(LB_ROWS), pa.int64()),
        "LBTESTCD": pa.array([("ALT", "AST", "BILI", "CREAT")[row % 4] for row in range(LB_ROWS)]).dictionary_encode(),
        "LBSTRESN": [row % 1000 / 4 for row in range(LB_ROWS)],
        "LBCOMMENT": [f"a comment of the laboratory, {row:09d}" for row in range(LB_ROWS)],
    }
)
DAY = date(2026, 1, 15)
NOON = datetime(2026, 1, 15, 12, 30, 0, 123000)
TYPES = pa.table(
    {
        "n": pa.array([1, 2, 3, 4, None], pa.int64()),
        "i8": pa.array([-128, 0, 127, 5, None], pa.int8()),
        "u64": pa.array([0, 1, 2**63, 2**64 - 1, None], pa.uint64()),
        "f32": pa.array([0.1, -0.0, math.nan, math.inf, None], pa.float32()),
        "f64": pa.array([0.1, 0.0, math.nan, -math.inf, None]),
        "yes": pa.array([True, False, True, False, None]),
        "dec": pa.array([Decimal("1.50"), Decimal("-1.50"), Decimal("0.00"), Decimal("12345678.90"), None]),
        "text": pa.array(["", "it's", 'a "b"', "line\nbreak", None]),
        "large": pa.array(["a", "b", "ä", "%", None], pa.large_string()),
        "day": pa.array([DAY, date(1, 1, 1), date(9999, 12, 31), DAY + timedelta(1), None]),
        "s": pa.array([NOON.replace(microsecond=0), NOON + timedelta(1), NOON, NOON, None], pa.timestamp("us")).cast(
            pa.timestamp("s"), safe=False
        ),
        "ms": pa.array([NOON, NOON + timedelta(1), NOON, NOON, None], pa.timestamp("ms")),
        "us": pa.array([NOON, NOON + timedelta(1), NOON, NOON, None], pa.timestamp("us")),
        "ns": pa.array([NOON, NOON + timedelta(1), NOON, NOON, None], pa.timestamp("ns")),
        "tz": pa.array([NOON.replace(tzinfo=UTC)] * 4 + [None], pa.timestamp("us", "Europe/Berlin")),
        "t": pa.array([time(12, 30), time(0), time(23, 59, 59, 999999), time(1), None], pa.time64("us")),
        "span": pa.array([timedelta(1), timedelta(2), timedelta(0), timedelta(-1), None], pa.duration("us")),
        'odd "name"': [1, 2, 3, 4, 5],
        "two\nlines": [1, 2, 3, 4, 5],
    }
)
TWICE = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("client_duckdb")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    tables = {"dm": [DM.slice(0, 2), DM], "lb": [LB], "types": [TYPES], "My table (v2)": [DM]}
    write_store(folder / "one", tables, row_group_size=50_000)
    write_store(folder / "odd", {"dm": [DM], "Dm": [DM], "twice": [TWICE], "main": [DM]})
    projects = {
        "STUDY_001": {"data": f"file://{folder / 'one'}"},
        "STUDY_ODD": {"data": f"file://{folder / 'odd'}"},
        "STUDY_W": empty_place(folder / "writable", "STUDY_W").settings,
    }
    with running(write_config(folder, projects)) as server:
        yield server


@pytest.fixture(scope="module")
def relay(server: Server) -> Iterator[Relay]:
    with relaying(server.url) as relay:
        yield relay


@pytest.fixture(scope="module")
def remote(server: Server, relay: Relay) -> Iterator[duckdb.DuckDBPyConnection]:
    import datom_flight

    with datom_flight.connect(relay.url, "STUDY_001", token=server.token()) as conn, conn.duckdb() as database:
        yield database


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as database:
        for name, table in (("dm", DM), ("lb", LB), ("types", TYPES)):
            pq.write_table(table, folder / f"{name}.parquet")
            database.register(name, pq.read_table(folder / f"{name}.parquet"))
        yield database


@pytest.fixture
def writer(server: Server) -> Iterator[Connection]:
    with server.connect("STUDY_W", token=server.token("developer", "STUDY_W")) as connection:
        yield connection


QUERIES = [
    "SELECT * FROM dm",
    "SELECT SEX, AGE FROM dm WHERE AGE > 60 AND SEX = 'F'",
    "SELECT count(*) FROM lb",
    "SELECT 1 FROM lb LIMIT 3",
    "SELECT * FROM dm ORDER BY AGE DESC NULLS LAST LIMIT 2",
    "SELECT LBTESTCD, count(*), sum(LBSTRESN) FROM lb GROUP BY LBTESTCD ORDER BY 1",
    "SELECT LBTESTCD, avg(LBSTRESN) FROM lb WHERE LBSEQ < 5000 AND LBTESTCD IN ('ALT', 'AST') GROUP BY 1 ORDER BY 1",
    "SELECT dm.SEX, max(lb.LBSTRESN) FROM dm JOIN lb USING (USUBJID) WHERE dm.AGE IS NOT NULL GROUP BY 1 ORDER BY 1",
    "SELECT count(*) FROM dm a JOIN dm b ON a.AGE < b.AGE",
    "SELECT USUBJID FROM dm WHERE USUBJID NOT IN (SELECT USUBJID FROM lb WHERE LBSEQ < 2) ORDER BY 1",
    "SELECT LBSEQ, row_number() OVER (PARTITION BY LBTESTCD ORDER BY LBSEQ) FROM lb WHERE LBSEQ < 50 ORDER BY 1",
    "SELECT count(*) FROM lb WHERE LBCOMMENT LIKE '%000123' OR LBSEQ = 5",
    "SELECT count(*) FROM lb WHERE upper(LBTESTCD) = 'ALT' AND LBSEQ < 100",
    "WITH old AS (SELECT * FROM dm WHERE AGE > 65) SELECT AGE FROM old UNION SELECT AGE FROM dm ORDER BY 1",
    "SELECT DISTINCT SEX FROM dm ORDER BY SEX",
    "SELECT * FROM types",
]
CONDITIONS = [
    "n = 1",
    "n <> 1",
    "n IS NULL",
    "n IS NOT NULL",
    "n IN (1, 3, NULL)",
    "n NOT IN (1, 3)",
    "NOT (n = 1 OR text = '')",
    "n = 1 OR n = 3 OR text IS NULL",
    "n > -9223372036854775808",
    "n + 1 = 3",
    "n % 2 = 0 AND n > 1",
    "i8 = -128",
    "i8 >= 0 AND i8 <= 127",
    "u64 = 18446744073709551615",
    "u64 > 9223372036854775807",
    "f32 = 0.1::FLOAT",
    "f32 < 1",
    "f32 IN (0, 'inf')",
    "f64 = 0",
    "f64 IN (0, 0.1)",
    "f64 > 0",
    "f64 >= 'nan'::DOUBLE",
    "f64 <> 0.1",
    "f64 <= 0.1",
    "NOT (f64 > 0)",
    "f64 BETWEEN -1 AND 1",
    "yes",
    "NOT yes",
    "yes = false",
    "yes IS DISTINCT FROM true",
    "dec = 1.5",
    "dec > -1.5",
    "dec IN (1.50, 12345678.9)",
    "dec = 1.501",
    "text = ''",
    "text = 'it''s'",
    "text = 'line' || chr(10) || 'break'",
    "text > 'a' AND text < 'z'",
    "text IN ('it''s', 'a \"b\"', '%')",
    "text LIKE 'a%'",
    "text IN ('', 'it''s') AND n > 1",
    "large = 'ä'",
    "large >= '%'",
    "day = '2026-01-15'",
    "day > DATE '2026-01-15'",
    "day < '2026-01-01'",
    "day = '9999-12-31'",
    "day = '0001-01-01'",
    "s = '2026-01-15 12:30:00'",
    "s > TIMESTAMP '2026-01-15 12:29:59.5'",
    "ms = '2026-01-15 12:30:00.123'",
    "us >= '2026-01-15 12:30:00.123'",
    "us IN ('2026-01-15 12:30:00.123', '2026-01-16 12:30:00.123')",
    "ns = '2026-01-15 12:30:00.123'",
    "tz = '2026-01-15 12:30:00.123+00'",
    "tz < '2026-01-15 13:30:00+01'",
    "t = '12:30:00'",
    "t > '23:59:59.999998'",
    "span > INTERVAL 1 DAY",
    '"odd ""name""" = 2',
    '"two\nlines" = 2 AND n = 2',
]


@pytest.mark.parametrize("query", [*QUERIES, *(f"SELECT n FROM types WHERE {condition}" for condition in CONDITIONS)])
def test_a_query_gives_the_same_rows_as_of_local_tables(
    remote: duckdb.DuckDBPyConnection, local: duckdb.DuckDBPyConnection, query: str
) -> None:
    expected, found = local.sql(query).to_arrow_table(), remote.sql(query).to_arrow_table()
    assert found.schema.equals(expected.schema)
    assert str(found.to_pylist()) == str(expected.to_pylist()), "as text, because NaN is not equal to itself"
    assert "ORDER BY" in query or found.num_rows == expected.num_rows


def received(relay: Relay, database: duckdb.DuckDBPyConnection, query: str) -> int:
    """How many bytes the server sends for a query."""
    before = relay.received
    database.sql(query).fetchall()
    return relay.received - before


def test_only_the_columns_that_are_used_are_fetched(remote: duckdb.DuckDBPyConnection, relay: Relay) -> None:
    whole = received(relay, remote, "SELECT * FROM lb")
    one = received(relay, remote, "SELECT sum(LBSEQ) FROM lb")
    assert whole > LB_ROWS * 50
    assert LB_ROWS * 8 < one < LB_ROWS * 9


@pytest.mark.parametrize(
    "condition",
    [
        "LBSEQ = 77",
        "LBSEQ IN (1, 100000, 199999)",
        "LBSEQ BETWEEN 1000 AND 1010",
        "LBSEQ < 10 OR LBSEQ > 199990",
        "LBTESTCD = 'NONE'",
        "LBTESTCD = 'ALT' AND LBSTRESN = 0.25",
        "NOT (LBSEQ >= 10)",
        "USUBJID = '01-004'",
        "LBCOMMENT = 'a comment of the laboratory, 000000077'",
        "LBSEQ = 77 AND upper(LBTESTCD) = 'AST'",
    ],
)
def test_only_the_rows_that_pass_are_fetched(remote: duckdb.DuckDBPyConnection, relay: Relay, condition: str) -> None:
    assert received(relay, remote, f"SELECT LBCOMMENT FROM lb WHERE {condition}") < 8_000


def test_rows_that_are_not_wanted_any_more_are_not_fetched(server: Server, relay: Relay, writer: Connection) -> None:
    import datom_flight

    rows = 2_000_000
    writer.write("long", pa.table({"n": pa.array(range(rows), pa.int64()), "m": pa.array(range(rows), pa.int64())}))
    with (
        datom_flight.connect(relay.url, "STUDY_W", token=server.token()) as conn,
        conn.duckdb(["long"]) as database,
    ):
        assert received(relay, database, "SELECT * FROM long LIMIT 5") < rows * 16 * 0.8
        assert received(relay, database, "SELECT count(*) FROM long") > rows * 8


def test_nothing_is_fetched_before_it_is_used(server: Server, relay: Relay) -> None:
    import datom_flight

    with datom_flight.connect(relay.url, "STUDY_001", token=server.token()) as conn:
        before = relay.received
        with conn.duckdb() as database:
            assert relay.received - before < 60_000
            assert sorted(database.sql("SHOW TABLES").fetchall()) == [("My table (v2)",), ("dm",), ("lb",), ("types",)]
            assert database.sql('SELECT count(*) FROM STUDY_001."My table (v2)"').fetchall() == [(5,)]


def test_versions_stay_what_they_were_when_it_was_opened(writer: Connection) -> None:
    first = writer.write("ae", DM)
    with writer.duckdb(["ae"]) as database:
        writer.write("ae", DM.slice(0, 1))
        assert database.sql("SELECT count(*) FROM ae").fetchall() == [(5,)]
        comments = database.sql("SELECT DISTINCT comment FROM duckdb_views() WHERE view_name = 'ae'").fetchall()
        assert comments == [(f"STUDY_W.ae@{first.version}",)]
    with writer.duckdb(["ae"]) as database:
        assert database.sql("SELECT count(*) FROM ae").fetchall() == [(1,)]


def test_an_instant_or_a_pin_says_which_versions(server: Server) -> None:
    count = "SELECT count(*) FROM dm"
    with server.connect("STUDY_001") as conn:
        with conn.duckdb(as_of="2026-01-15") as database:
            assert database.sql(count).fetchall() == [(2,)]
        pin = conn.pin(["dm"], as_of="2026-01-15")
        with conn.duckdb(pin=pin) as database:
            assert database.sql(count).fetchall() == [(2,)]
            assert database.sql("SHOW TABLES").fetchall() == [("dm",)]
        with pytest.raises(DatomError, match="version_not_found"):
            conn.duckdb(["lb"], pin=pin)
        with pytest.raises(DatomError, match="version_not_found"):
            conn.duckdb(["dm"], as_of="2025-01-01")
        with conn.duckdb(as_of="2025-01-01") as database:
            assert database.sql("SHOW TABLES").fetchall() == []
    with server.connect() as nowhere, nowhere.duckdb(pin=pin) as database:
        assert database.sql(count).fetchall() == [(2,)]


def test_a_set_is_a_schema_of_the_versions_it_holds(writer: Connection) -> None:
    old = writer.write("cm", DM)
    writer.write("cm", DM.slice(0, 1))
    other = writer.write("mh", DM.slice(0, 2))
    ids = [("cm", old), ("mh", other), ("mh", writer.write("mh", DM))]
    members = [{"id": {"project": "STUDY_W", "name": name, "kind": "table", "version": at.version}} for name, at in ids]
    writer.write_set("final (1)", members[:2])
    with writer.duckdb(["cm", "final (1)"]) as database:
        counts = [
            database.sql(f"SELECT count(*) FROM {name}").fetchall()
            for name in ("cm", '"final (1)".cm', '"final (1)".mh')
        ]
        assert counts == [[(1,)], [(5,)], [(2,)]]
    writer.write_set("final (1)", members)
    with pytest.raises(DatomError, match="member_ambiguous"):
        writer.duckdb(["final (1)"])


def test_cursors_and_threads_see_the_views(remote: duckdb.DuckDBPyConnection) -> None:
    found: list[Any] = []

    def count(cursor: duckdb.DuckDBPyConnection) -> None:
        found.append(cursor.execute("SELECT count(*) FROM lb WHERE LBTESTCD = 'ALT'").fetchall())

    threads = [threading.Thread(target=count, args=(remote.cursor(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [[(LB_ROWS // 4,)]] * 4


def test_what_a_query_cannot_have_is_said(server: Server) -> None:
    with server.connect("STUDY_001") as conn:
        database = conn.duckdb(["lb"])
        with pytest.raises(DatomError, match="not_found"):
            conn.duckdb(["nowhere"])
    with database, pytest.raises(duckdb.Error, match="the connection is closed"):
        database.sql("SELECT * FROM lb").fetchall()


def test_a_view_that_cannot_be_is_left_out_with_a_warning_unless_it_was_named(server: Server) -> None:
    with server.connect("STUDY_ODD") as conn:
        with pytest.warns(DatomWarning, match="there is no view of") as told:
            database = conn.duckdb()
        with database:
            assert database.sql("SELECT count(*) FROM STUDY_ODD.main").fetchall() == [(5,)]
            assert len(database.sql("SHOW TABLES").fetchall()) == 2
        assert len(told) == 2
        for names in (["twice"], ["dm", "Dm"]):
            with pytest.raises(DatomError) as caught:
                conn.duckdb(names)
            assert caught.value.code == "invalid_argument"
