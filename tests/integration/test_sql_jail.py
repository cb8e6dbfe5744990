"""The jail that queries run in: known tricks against a live server, through the stock driver and plain Flight."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pyarrow.parquet as pq
import pytest
from adbc_driver_manager import Error

from datom_flight_server.flight.sql import flight_sql_pb2 as sql
from datom_flight_server.flight.sql.messages import packed, unpacked
from support.adbc import adbc, rows
from support.answers import FLIGHT_ERRORS, assert_reveals_nothing, code_of
from support.server import Server, running, write_config
from support.stores import write_store
from support.tricks import ENVIRONMENT_NAME, HIDDEN_PROJECT, Trick, bombs, tricks

CANARY = "canary-4711"
DM = pa.table(
    {"USUBJID": ["01-001", "01-002", "01-003"], "AGE": pa.array([71, 64, 58], pa.int32()), "SEX": ["F", "M", "F"]}
)
LB = pa.table({"LBSEQ": pa.array(range(200_000)), "LBORRES": [f"result {index % 100}" for index in range(200_000)]})
PATIENCE = 60


class Prison:
    """A server with secrets where prisoners look for them, and one prisoner's ways to it."""

    def __init__(self, folder: Path, server: Server, hidden: str) -> None:
        self.server = server
        self.places = {f"<{name.upper()}>": f"{folder}/server/cache/canary.{name}" for name in ("csv", "parquet")}
        self.places |= {"<FILE>": f"{folder}/server/cache/canary.txt", "<HIDDEN>": hidden}
        self.token = server.token("reader", "STUDY_001")
        self._client = server.raw()
        self._options = server.call_options(self.token, PATIENCE)
        self._opened = adbc(server, self.token, autocommit=True)
        self.connection = self._opened.__enter__()

    def close(self) -> None:
        self._opened.__exit__(None, None, None)
        self._client.close()

    @staticmethod
    def body(query: str, parameter: str | None = None, **keys: Any) -> bytes:
        given = {} if parameter is None else {"parameters": [parameter]}
        return json.dumps({"project": "STUDY_001", "sql": query, **given, **keys}).encode()

    def by_driver(self, query: str, parameter: str | None = None) -> pa.Table:
        with self.connection.cursor() as cursor:
            cursor.execute(query, None if parameter is None else [parameter])
            return cursor.fetch_arrow_table()

    def by_flight(self, query: str, parameter: str | None = None) -> pa.Table:
        descriptor = fl.FlightDescriptor.for_command(self.body(query, parameter))
        info = self._client.get_flight_info(descriptor, self._options)
        return self.redeem(info.endpoints[0].ticket.ticket)

    def by_ticket(self, query: str, parameter: str | None = None) -> pa.Table:
        return self.redeem(self.body(query, parameter))

    def redeem(self, ticket: bytes) -> pa.Table:
        """The rows of any bytes as a ticket."""
        return self._client.do_get(fl.Ticket(ticket), self._options).read_all()

    def ticket(self, query: str) -> bytes:
        """The ticket of a query's rows."""
        command = packed(sql.CommandStatementQuery(query=query))
        info = self._client.get_flight_info(fl.FlightDescriptor.for_command(command), self._options)
        return bytes(info.endpoints[0].ticket.ticket)

    def refused(self, ask: Callable[[], Any], echo: str = "") -> tuple[str, str]:
        """Code and text of a refusal, which must reveal nothing but what was asked."""
        with pytest.raises((Error, *FLIGHT_ERRORS)) as caught:
            ask()
        text = shown = str(caught.value)
        for place in self.places.values():
            # a name is told as it was written, to whoever wrote it
            shown = shown.replace(place, "") if place in echo else shown
        assert_reveals_nothing(shown, self.server)
        assert CANARY not in text
        return code_of(caught.value), text

    def assert_in_order(self) -> None:
        assert self.server.alive
        assert self.by_ticket("SELECT USUBJID FROM dm WHERE AGE > 60")["USUBJID"].to_pylist() == ["01-001", "01-002"]


def prison(folder: Path, **limits: Any) -> Iterator[Prison]:
    """A server over STUDY_001, which the prisoner may read, and another that holds a canary."""
    write_store(folder / "one", {"dm": [DM.slice(0, 2), DM], "lb": [LB]})
    secret = pa.table({"SECRET": [CANARY], "AGE": pa.array([1], pa.int32())})
    (hidden,) = write_store(folder / "nine", {"dm": [secret]})["dm"]
    projects = {"STUDY_001": folder / "one", HIDDEN_PROJECT: folder / "nine"}
    config = write_config(
        folder / "server", {name: {"data": f"file://{root}"} for name, root in projects.items()}, sql=limits
    )
    cache = config.parent / "cache"
    cache.mkdir()
    (cache / "canary.txt").write_text(CANARY)
    (cache / "canary.csv").write_text(f"SECRET\n{CANARY}\n")
    pq.write_table(secret, cache / "canary.parquet")
    with running(config, **{ENVIRONMENT_NAME: CANARY}) as server:
        held = Prison(folder, server, hidden)
        try:
            yield held
        finally:
            held.close()


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prison]:
    yield from prison(tmp_path_factory.mktemp("jail"), memory_bytes="256MB", threads=1, max_seconds=20)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prison]:
    """The same with small limits, and one turn for all callers but two."""
    limits = {"memory_bytes": "128MB", "spill_bytes": "64MB", "max_rows": 500_000, "max_bytes": "32MB"}
    yield from prison(tmp_path_factory.mktemp("small"), threads=1, max_seconds=1.5, **limits)


@pytest.mark.parametrize("trick", [*tricks()], ids=str)
def test_a_trick_is_refused_by_every_door(jail: Prison, trick: Trick) -> None:
    trick = trick.filled(jail.places)
    for door in (jail.by_driver, jail.by_flight, jail.by_ticket):
        if door == jail.by_driver and "\0" in trick.query:
            continue  # the driver itself does not send it
        code, text = jail.refused(partial(door, trick.query, trick.parameter), trick.query)
        assert code in trick.codes, text
        assert re.search(trick.told, text), text
    jail.assert_in_order()


HARMLESS = [
    ("SELECT 'getenv(''DATOM_CANARY'')' AS x", "getenv('DATOM_CANARY')"),
    ("SELECT getenv AS x FROM (SELECT 1 AS getenv)", 1),
    ("WITH duckdb_settings AS (SELECT 1 AS x) SELECT * FROM duckdb_settings", 1),
    (f'WITH "{HIDDEN_PROJECT}" AS (SELECT 1 AS x) SELECT * FROM "{HIDDEN_PROJECT}"', 1),
    ('SELECT AGE AS "a"";DROP TABLE dm;--" FROM dm LIMIT 1', 71),
    ('SELECT t."b"";x" FROM dm AS t(a, "b"";x", c) ORDER BY 1 DESC LIMIT 1', 71),
    ("SELECT max(AGE) FROM dm -- ; DROP TABLE dm", 71),
    ("SELECT max(AGE) FROM dm /* */ ; ", 71),
    ("SELECT count(*) FROM dm WHERE USUBJID = '' OR 1=1 --'", 3),
    ("SELECT regexp_matches(repeat('a', 100000), '(a+)+$b')", False),
    ("SELECT repeat('a', 50000) LIKE '" + "%a" * 3000 + "b'", False),
    ("SELECT repeat('', 9223372036854775807)", ""),
    ("SELECT 1e999999999 = 'inf'", True),
    ("SELECT length(md5(getenv)) FROM (VALUES ('x')) v(getenv)", 32),
]


@pytest.mark.parametrize(("query", "answer"), HARMLESS, ids=[query[:80] for query, _ in HARMLESS])
def test_what_only_looks_like_a_trick_is_answered(jail: Prison, query: str, answer: Any) -> None:
    for door in (jail.by_driver, jail.by_flight, jail.by_ticket):
        assert door(query).column(0).to_pylist() == [answer]


@pytest.mark.parametrize("value", ["'); DROP TABLE dm; --", '"; COPY dm', "$$", "\n--", "\u202e", "x" * 100_000])
def test_a_parameter_is_a_value_whatever_it_holds(jail: Prison, value: str) -> None:
    for door in (jail.by_driver, jail.by_flight, jail.by_ticket):
        assert door("SELECT ? AS x, max(AGE) AS a FROM dm", value).to_pylist() == [{"x": value, "a": 71}]
    assert jail.by_flight("SELECT count(*) AS n FROM dm WHERE USUBJID = ?", value).to_pylist() == [{"n": 0}]


def test_a_parameter_that_no_query_can_hold_is_refused(jail: Prison) -> None:
    for door in (jail.by_driver, jail.by_flight, jail.by_ticket):
        code, text = jail.refused(partial(door, "SELECT ? AS x, max(AGE) FROM dm", "a\0') --"))
        assert (code, 'parameter "1" holds a NUL character' in text) == ("invalid_argument", True)


def test_what_queries_may_ask_of_the_engine_says_nothing_of_the_server(jail: Prison) -> None:
    asked = "current_user, session_user, current_role, current_database(), current_schema(), current_schemas(true)"
    said = str(jail.by_driver(f"SELECT {asked}, version(), alias(AGE), typeof(AGE) FROM dm").to_pylist())
    assert_reveals_nothing(said, jail.server)
    assert CANARY not in said
    assert HIDDEN_PROJECT not in said


def test_another_s_project_is_not_there_by_any_other_way(jail: Prison) -> None:
    connection = jail.connection
    for way in (
        partial(connection.adbc_get_table_schema, "dm", db_schema_filter=HIDDEN_PROJECT),
        partial(connection.adbc_get_table_schema, "dm", catalog_filter=HIDDEN_PROJECT),
        partial(jail.redeem, jail.body("SELECT * FROM dm", project=HIDDEN_PROJECT)),
        partial(jail.redeem, json.dumps({"project": HIDDEN_PROJECT, "table": "dm"}).encode()),
    ):
        with pytest.raises((Error, *FLIGHT_ERRORS)) as caught:
            way()
        assert CANARY not in str(caught.value)
        assert "SECRET" not in str(caught.value)
    objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    assert "STUDY_001" in str(objects)
    assert HIDDEN_PROJECT not in str(objects)
    assert "SECRET" not in str(objects)
    header = {"x-datom-project": HIDDEN_PROJECT}
    with adbc(jail.server, jail.token, autocommit=True, headers=header) as other:
        code, _ = jail.refused(lambda: rows(other, "SELECT * FROM dm"))
        assert code == "not_found"


def test_a_ticket_forged_for_another_s_table_is_worth_nothing(jail: Prison) -> None:
    true = jail.ticket("SELECT max(AGE) AS x FROM dm")
    plan = json.loads(unpacked(true, sql.TicketStatementQuery).statement_handle)
    assert jail.redeem(true).to_pydict() == {"x": [71]}
    ((name, pin),) = plan["names"]
    changes: list[dict[str, Any]] = [
        {"names": [[name, {**pin, "project": HIDDEN_PROJECT, "version": jail.places["<HIDDEN>"]}]]},
        {"names": [[name, {**pin, "table": "../../nine/dm"}]]},
        {"names": [[name, {**pin, "version": jail.places["<HIDDEN>"]}]]},
        {"names": []},
        {"project": HIDDEN_PROJECT, "names": []},
        {"query": f"SELECT max(AGE) AS x FROM {HIDDEN_PROJECT}.dm"},
        {"query": "SELECT content AS x FROM read_text('/proc/self/environ')"},
        {"query": "DROP TABLE dm"},
        {"query": "SELECT max(AGE) AS x FROM dm, duckdb_settings()"},
    ]
    for change in changes:
        forged = packed(sql.TicketStatementQuery(statement_handle=json.dumps(plan | change).encode()))
        code, text = jail.refused(partial(jail.redeem, forged))
        assert code in ("not_found", "version_not_found", "invalid_argument", "invalid_name", "sql_error"), text
    jail.assert_in_order()


def test_a_ticket_with_another_schema_gives_no_other_bytes(jail: Prison) -> None:
    plan = json.loads(unpacked(jail.ticket("SELECT max(AGE) AS x FROM dm"), sql.TicketStatementQuery).statement_handle)
    plan["schema"] = base64.b64encode(pa.schema({"x": pa.string()}).serialize()).decode()
    forged = packed(sql.TicketStatementQuery(statement_handle=json.dumps(plan).encode()))
    with pytest.raises(FLIGHT_ERRORS) as caught:
        jail.redeem(forged)
    assert_reveals_nothing(str(caught.value), jail.server)
    jail.assert_in_order()


@pytest.mark.parametrize("bomb", [*bombs()], ids=str)
def test_a_bomb_ends_at_a_limit(small: Prison, bomb: Trick) -> None:
    def explode() -> None:
        with small.connection.cursor() as cursor:
            cursor.execute(bomb.query)
            for _ in cursor.fetch_record_batch():
                pass

    code, text = small.refused(explode)
    assert code in bomb.codes, text
    assert re.search(bomb.told, text), text
    small.assert_in_order()


def test_other_clients_do_not_notice_queries_that_eat_memory_or_run_for_ever(small: Prison) -> None:
    reader, asker = small.server.token(principal="rea"), small.server.token(principal="ask")
    with small.server.connect("STUDY_001", token=reader) as conn, adbc(small.server, asker, autocommit=True) as other:

        def read() -> None:
            assert conn.read("lb").num_rows == LB.num_rows

        def ask() -> None:
            assert rows(other, "SELECT max(AGE) + 0, count(*) FROM STUDY_001.dm") == [(71, 3)]

        calm = [longest(action, 15) for action in (read, ask)]
        stop = threading.Event()
        with ThreadPoolExecutor(4) as pool:
            hogs = [pool.submit(hog, small, query, stop) for query in (ENDLESS, HUNGRY)]
            try:
                others = [pool.submit(longest, action, 30) for action in (read, ask)]
                stormy = [waiting.result(PATIENCE) for waiting in others]
            finally:
                stop.set()
            codes = set().union(*(hog.result(PATIENCE) for hog in hogs))
        assert codes <= {"timeout", "too_large"}
        assert codes
    for before, during in zip(calm, stormy, strict=True):
        assert during < 25 * max(before, 0.04), f"{before:.3f} s became {during:.3f} s"


ENDLESS = "SELECT sum(hash(a.range * b.range)) FROM range(100000) a, range(100000) b, range(100000) c"
HUNGRY = "SELECT list(hash(range)) FROM range(1000000000)"


def longest(action: Callable[[], None], times: int) -> float:
    """How long, in seconds, the slowest of so many runs took, but for the first."""
    action()
    taken = []
    for _ in range(times):
        began = time.monotonic()
        action()
        taken.append(time.monotonic() - began)
    return max(taken)


def hog(held: Prison, query: str, stop: threading.Event) -> set[str]:
    """Ask the same again and again, and give the codes of the refusals."""
    codes = set()
    with adbc(held.server, held.token, autocommit=True) as connection:
        while not stop.is_set():
            codes.add(held.refused(lambda: rows(connection, query))[0])
    return codes
