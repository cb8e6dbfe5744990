"""Versions in SQL: every way to name one, and the same rows again while the tables move on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest

import datom_flight
from support.adbc import adbc
from support.adbc import rows as adbc_rows
from support.answers import assert_reveals_nothing, code_of
from support.expected import FIXTURES, STORES, assert_same_table
from support.server import Server, running, write_config
from support.stores import write_store
from support.writable import empty_place

ROWS = 50


def revision(number: int, rows: int = ROWS) -> pa.Table:
    """The `number`-th version of a table: every row says so."""
    return pa.table({"ID": pa.array(range(rows), pa.int32()), "REVISION": pa.array([number] * rows, pa.int32())})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("versions")


@pytest.fixture(scope="module")
def ids(folder: Path) -> dict[str, list[str]]:
    """The versions of ``MADE``: of noon on the first of January, February and March."""
    write_store(folder / "other", {"dm": [revision(21)], "Ae": [revision(22)]})
    return write_store(
        folder / "made", {"dm": [revision(1), revision(2), revision(3)], "lb": [revision(11), revision(12)]}
    )


@pytest.fixture(scope="module")
def server(folder: Path, ids: dict[str, list[str]]) -> Iterator[Server]:
    projects = {
        "MADE": {"data": f"file://{folder / 'made'}"},
        "OTHER": {"data": f"file://{folder / 'other'}"},
        "AMBIGUOUS": {"data": f"file://{FIXTURES / 'bad' / '22-ambiguous-prefix' / 'storage'}"},
        "LIVE": empty_place(folder / "live", "LIVE").settings,
        **{store.project: {"data": f"file://{store.root / store.prefix}"} for store in STORES},
    }
    with running(write_config(folder / "server", projects, server={"metadata_max_age_seconds": 0})) as server:
        yield server


class Asker:
    """Plain Flight with queries in JSON, one project's tables named alone."""

    def __init__(self, server: Server, project: str, token: str | None = None) -> None:
        self._server = server
        self._project = project
        self._client = server.raw()
        self._options = server.call_options(token, seconds=60)

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()

    def info(self, query: str, **more: Any) -> fl.FlightInfo:
        command = json.dumps({"project": self._project, "sql": query, **more})
        return self._client.get_flight_info(fl.FlightDescriptor.for_command(command), self._options)

    def fetch(self, info: fl.FlightInfo) -> pa.Table:
        return pa.concat_tables(
            self._client.do_get(endpoint.ticket, self._options).read_all() for endpoint in info.endpoints
        ).replace_schema_metadata(info.schema.metadata)

    def table(self, query: str, **more: Any) -> pa.Table:
        return self.fetch(self.info(query, **more))

    def rows(self, query: str, **more: Any) -> list[tuple[Any, ...]]:
        return list(zip(*(column.to_pylist() for column in self.table(query, **more).columns), strict=True))

    def refusal(self, query: str, **more: Any) -> fl.FlightError:
        with pytest.raises((fl.FlightError, pa.ArrowException)) as caught:
            self.table(query, **more)
        assert_reveals_nothing(str(caught.value), self._server)
        return caught.value

    def code(self, query: str, **more: Any) -> str:
        return code_of(self.refusal(query, **more))


def pins(table: pa.Table) -> list[dict[str, str]]:
    """The versions that a result says it was computed from."""
    told: list[dict[str, str]] = json.loads(table.schema.metadata[b"datom.pins"])
    return told


@pytest.fixture
def asker(server: Server) -> Iterator[Asker]:
    with Asker(server, "MADE") as asker:
        yield asker


# How a version is named


NAMES = [
    ("dm", 3),
    ("MADE.dm", 3),
    ("made.DM", 3),
    ("datom.MADE.dm", 3),
    ("OTHER.dm", 21),
    ("other.ae", 22),
    ("dm AT (VERSION => '{0:.8}')", 1),
    ("dm AT (VERSION => '{1}')", 2),
    ("dm AS d AT (version => '{2:.6}')", 3),
    ("MADE.dm AT (VERSION => '{0}')", 1),
    ("dm AT (TIMESTAMP => '2026-01-15')", 1),
    ("dm AT (TIMESTAMP => '2026-01-31')", 1),
    # a bare date is the end of that day
    ("dm AT (TIMESTAMP => '2026-02-01')", 2),
    ("dm AT (TIMESTAMP => DATE '2026-02-01')", 2),
    ("dm AT (TIMESTAMP => '2026-02-01T11:59:59Z')", 1),
    ("dm AT (TIMESTAMP => '2026-02-01T12:00:00Z')", 2),
    ("dm AT (TIMESTAMP => '2026-02-01 12:00:00')", 2),
    ("dm AT (TIMESTAMP => TIMESTAMP '2026-02-01 11:59:59.999999')", 1),
    ("dm AT (TIMESTAMP => TIMESTAMPTZ '2026-02-01 13:00:00+01:00')", 2),
    ("dm AT (TIMESTAMP => '2026-02-01 12:59:59+01:00')", 1),
    ("OTHER.dm AT (TIMESTAMP => '2030-01-01')", 21),
    ('"dm@{0:.8}"', 1),
    ('"dm@{1}"', 2),
    ('"DM@{1:.10}"', 2),
    ('MADE."dm@{0:.8}"', 1),
    ('"MADE"."dm@{2:.8}" AS d', 3),
]


@pytest.mark.parametrize(("name", "expected"), NAMES, ids=[name for name, _ in NAMES])
def test_a_version_has_many_names(asker: Asker, ids: dict[str, list[str]], name: str, expected: int) -> None:
    name = name.format(*ids["dm"])
    plain = asker.table(f"SELECT * FROM {name}")
    assert plain.equals(revision(expected))
    computed = asker.table(f"SELECT count(*) AS n, max(REVISION) AS r, min(REVISION) AS l FROM {name}")
    assert computed.to_pylist() == [{"n": ROWS, "r": expected, "l": expected}]
    assert pins(plain) == pins(computed)
    if expected < 20:
        (pin,) = pins(plain)
        assert (pin["project"], pin["table"], pin["version"]) == ("MADE", "dm", ids["dm"][expected - 1])


def test_one_query_reads_several_versions_and_projects(asker: Asker, ids: dict[str, list[str]]) -> None:
    query = f"""
        SELECT a.REVISION, b.REVISION, c.REVISION, d.REVISION, e.REVISION, count(*)
        FROM dm a JOIN dm AS b AT (VERSION => '{ids["dm"][0]:.8}') USING (ID)
            JOIN "dm@{ids["dm"][1]:.8}" c USING (ID) JOIN OTHER.dm d USING (ID)
            JOIN lb AS e AT (TIMESTAMP => '2026-01-15') USING (ID)
        GROUP BY ALL
    """
    table = asker.table(query)
    assert [column[0].as_py() for column in table.columns] == [3, 1, 2, 21, 11, ROWS]
    assert sorted((pin["table"], pin["version"]) for pin in pins(table) if pin["project"] == "MADE") == sorted(
        [*(("dm", version) for version in ids["dm"]), ("lb", ids["lb"][0])]
    )


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dm AT (VERSION => '0000000000')", "version_not_found"),
        ("dm AT (VERSION => 'latest')", "version_not_found"),
        ("dm AT (VERSION => '')", "sql_error"),
        ('"dm@"', "sql_error"),
        ('"dm@zzz"', "version_not_found"),
        ("dm AT (TIMESTAMP => '2026-01-01T11:59:59Z')", "version_not_found"),
        ("dm AT (TIMESTAMP => 'yesterday')", "invalid_argument"),
        ("dm AT (TIMESTAMP => '')", "sql_error"),
        ("dm AT (VERSION => 8)", "sql_error"),
        ("dm AT (TIMESTAMP => now())", "sql_error"),
        ("dmm", "not_found"),
        ("MADE.dmm", "not_found"),
        ("NOWHERE.dm", "not_found"),
        ("datom.NOWHERE.dm", "not_found"),
        ('"../made".dm', "not_found"),
        ('"dm/.."', "invalid_name"),
        ("(SELECT 1) AS x AT (VERSION => '8a')", "sql_error"),
    ],
)
def test_a_name_of_nothing_is_refused(asker: Asker, name: str, code: str) -> None:
    assert asker.code(f"SELECT * FROM {name}") == code


def test_a_prefix_of_two_versions_is_ambiguous(server: Server) -> None:
    with Asker(server, "AMBIGUOUS") as asker:
        for name in ("t AT (VERSION => 'abcdef')", '"t@abcdef"', 'AMBIGUOUS."t@abcdef"'):
            assert asker.code(f"SELECT * FROM {name}") == "version_ambiguous"


# A whole connection


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [("2026-01-15", (1, 11, 21)), ("2026-02-01T12:00:00Z", (2, 12, 21)), ("2030-01-01", (3, 12, 21))],
)
def test_a_header_settles_every_table_that_has_no_version(
    server: Server, ids: dict[str, list[str]], as_of: str, expected: tuple[int, ...]
) -> None:
    query = "SELECT max(dm.REVISION), max(lb.REVISION), max(o.REVISION) FROM dm, lb, OTHER.dm o"
    with adbc(server, headers={"x-datom-project": "MADE", "x-datom-as-of": as_of}) as connection:
        assert adbc_rows(connection, query) == [expected]
        assert adbc_rows(connection, "SELECT DISTINCT REVISION FROM dm") == [expected[:1]]
        # what the query says goes before
        assert adbc_rows(connection, f'SELECT DISTINCT REVISION FROM "dm@{ids["dm"][1]:.8}"') == [(2,)]
        assert adbc_rows(connection, "SELECT max(REVISION) FROM dm AT (TIMESTAMP => '2026-03-15')") == [(3,)]


# A set as a schema


ADAM = next(store for store in STORES if store.project == "STUDY_001_ADAM")
SET_VERSIONS = [version for version in ADAM.index["study001-adam"]["versions"] if version != "current"]


def members(version: str) -> list[dict[str, str]]:
    """What a version of R's set holds, read from the files."""
    data_sha = ADAM.index["study001-adam"]["versions"][version]["data_sha"]
    payload = json.loads((ADAM.data / "study001-adam" / f"{data_sha}.json").read_text())
    return [member["id"] for member in payload["members"]]


@pytest.mark.parametrize("version", ["current", *SET_VERSIONS])
def test_a_set_is_a_schema_of_its_members(server: Server, version: str) -> None:
    schema = "study001-adam" if version == "current" else f"study001-adam@{version[:8]}"
    with Asker(server, "STUDY_001_ADAM") as asker:
        tables = [member for member in members(version) if member["kind"] == "table"]
        assert tables
        for member in tables:
            name = f'"{schema}"."{member["name"]}"'
            if sum(other["name"] == member["name"] for other in tables) > 1:
                assert asker.code(f"FROM {name}") == "member_ambiguous"
                continue
            found = asker.table(f"FROM {name}")
            assert (pins(found)[0]["project"], pins(found)[0]["version"]) == (member["project"], member["version"])
            store = next(store for store in STORES if store.project == member["project"])
            assert_same_table(found, store.answer(member["name"], f"read_{member['version']}.json"))
            assert asker.rows(f"SELECT count(*) FROM {name} AS m WHERE true") == [(found.num_rows,)]


def test_a_set_s_member_is_joined_with_what_is_current(server: Server) -> None:
    def rows_of(version: str) -> int:
        held = next(member["version"] for member in members(version) if member["name"] == "adsl")
        return int(ADAM.index["adsl"]["versions"][held]["nrow"])

    largest = max(SET_VERSIONS, key=lambda version: len(members(version)))
    query = f"""
        SELECT s.n, c.n, o.n FROM (SELECT count(*) AS n FROM "study001-adam".adsl) s,
            (SELECT count(*) AS n FROM adsl) c, (SELECT count(*) AS n FROM "study001-adam@{largest[:8]}".adsl) o
    """
    with Asker(server, "STUDY_001_ADAM") as asker:
        current = ADAM.index["adsl"]["versions"]["current"]["nrow"]
        assert asker.rows(query) == [(rows_of("current"), current, rows_of(largest))]
    assert rows_of(largest) != current


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ('"study001-adam".nothing', "member_not_found"),
        ("\"study001-adam\".adsl AT (TIMESTAMP => '2026-01-01')", "invalid_argument"),
        ('"study001-adam"."adsl@46c69964"', "invalid_argument"),
        ('"study001-adam@0000"."adsl"', "version_not_found"),
        ('"study001-adam@"."adsl"', "sql_error"),
        ("adsl.adsl", "not_found"),
        ('"study001-adam"', "kind_mismatch"),
        ('"submission set (1)".adsl', "not_found"),
    ],
)
def test_what_a_set_does_not_hold_is_refused(server: Server, name: str, code: str) -> None:
    with Asker(server, "STUDY_001_ADAM") as asker:
        assert asker.code(f"SELECT * FROM {name}") == code


# The same rows again


@pytest.fixture
def developer(server: Server) -> Iterator[datom_flight.Connection]:
    with server.connect("LIVE", token=server.token("developer", "LIVE")) as connection:
        yield connection


def test_pins_give_the_same_rows_after_the_project_moved_on(server: Server, developer: datom_flight.Connection) -> None:
    queries = [
        "SELECT * FROM moving",
        "SELECT ID, REVISION FROM moving WHERE ID < 7",
        "SELECT max(REVISION) AS r, count(*) AS n FROM moving",
        "SELECT a.ID, a.REVISION, b.REVISION AS other FROM moving a JOIN still b USING (ID) ORDER BY ALL",
        "SELECT REVISION FROM LIVE.moving UNION SELECT REVISION FROM MADE.dm ORDER BY 1",
        "SELECT change, count(*) FROM datom_diff('moving', '{0:.8}', key := 'ID') GROUP BY ALL",
        "SELECT * FROM moving AT (VERSION => '{0:.8}')",
        'SELECT (SELECT max(REVISION) FROM moving), (SELECT max(REVISION) FROM "moving@{0:.8}")',
    ]
    first = developer.write("moving", revision(0)).version
    developer.write("moving", revision(1))
    developer.write("still", revision(5))
    with Asker(server, "LIVE") as asker:
        before = [asker.table(query.format(first)) for query in queries]
        tickets = [asker.info(query.format(first)) for query in queries]
        developer.write("moving", revision(2, rows=5))
        developer.write("still", revision(6, rows=4))
        assert asker.rows("SELECT max(REVISION), count(*) FROM moving") == [(2, 5)]
        for query, table, info in zip(queries, before, tickets, strict=True):
            again = asker.table(query.format(first), pins=pins(table))
            assert again.equals(table, check_metadata=True)
            assert asker.fetch(info).equals(table, check_metadata=True)
        assert asker.code("SELECT * FROM moving, still", pins=pins(before[0])) == "version_not_found"


def test_pins_tell_a_set_s_member_from_the_table_itself(server: Server, developer: datom_flight.Connection) -> None:
    def member(name: str, version: str) -> dict[str, Any]:
        return {"id": {"project": "LIVE", "name": name, "kind": "table", "version": version}}

    one, two = (developer.write("dm", revision(number)).version for number in (1, 2))
    lb = developer.write("lb", revision(7)).version
    locked = developer.write_set("locked", [member("dm", one), member("lb", lb)]).version
    developer.write_set("draft", [member("dm", two)])
    queries = [
        "SELECT DISTINCT s.REVISION AS s, dm.REVISION AS c FROM locked.dm s JOIN dm USING (ID)",
        "SELECT DISTINCT dm.REVISION AS c, s.REVISION AS s FROM dm JOIN locked.dm s USING (ID)",
        "SELECT DISTINCT REVISION FROM locked.dm",
        "SELECT * FROM LOCKED.DM",
        "SELECT DISTINCT a.REVISION, b.REVISION FROM locked.dm a JOIN draft.dm b USING (ID)",
        "SELECT DISTINCT a.REVISION, b.REVISION FROM draft.dm a JOIN dm b USING (ID)",
        f'SELECT DISTINCT a.REVISION, b.REVISION FROM draft.dm a JOIN "dm@{one:.8}" b USING (ID)',
        "SELECT max(a.REVISION) FROM locked.dm a, locked.lb, lb",
        f'SELECT DISTINCT a.REVISION, b.REVISION FROM dm a JOIN "locked@{locked:.8}".dm b USING (ID)',
    ]
    with Asker(server, "LIVE") as asker:
        before = [asker.table(query) for query in queries]
        assert before[0].to_pylist() == [{"s": 1, "c": 2}]
        assert before[1].to_pylist() == [{"c": 2, "s": 1}]
        assert asker.rows("SELECT DISTINCT REVISION FROM dm", pins=pins(before[2])) == [(1,)]
        # the table moves on; one set holds another version of it, and the other none, or two
        three = developer.write("dm", revision(3)).version
        developer.write_set("locked", [member("lb", lb)])
        developer.write_set("draft", [member("dm", one), member("dm", three)])
        assert asker.code(queries[0]) == "member_not_found"
        assert asker.code(queries[4].replace("locked.dm", "dm")) == "member_ambiguous"
        for query, table in zip(queries, before, strict=True):
            again = asker.table(query, pins=pins(table))
            assert again.equals(table)
            assert pins(again) == pins(table)
            assert developer.sql(query, pin=table).equals(table)


@dataclass(slots=True)
class Seen:
    """A result, with its query."""

    query: str
    table: pa.Table
    landed: bool


def test_a_query_reads_one_version_of_each_table_while_others_land(
    server: Server, developer: datom_flight.Connection
) -> None:
    revisions = {developer.write("busy", revision(0)).version: 0}
    stop = threading.Event()
    deadline = time.monotonic() + 120

    def keep_writing() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            revisions[developer.write("busy", revision(number, ROWS + number)).version] = number

    def ask(query: str) -> list[Seen]:
        seen: list[Seen] = []
        with Asker(server, "LIVE") as asker:
            while len(seen) < 3 or len(revisions) < 12 or not any(one.landed for one in seen):
                assert time.monotonic() < deadline, "no version lands while the query runs"
                known = len(revisions)
                seen.append(Seen(query, asker.table(query), len(revisions) > known))
        return seen

    one_revision = """SELECT count(*) AS rows, min(least({0})) AS low, max(greatest({0})) AS high FROM {1}"""
    queries = [
        "SELECT * FROM busy",
        "SELECT REVISION, ID FROM busy WHERE ID >= 0",
        one_revision.format("REVISION, REVISION", "busy"),
        one_revision.format("a.REVISION, b.REVISION", "busy a JOIN LIVE.busy b USING (ID)"),
        one_revision.format(
            "a.REVISION, b.REVISION, c.REVISION",
            "busy a JOIN (WITH w AS (FROM busy) FROM w) b USING (ID) "
            "JOIN (SELECT * FROM busy UNION SELECT * FROM busy) c USING (ID)",
        ),
        # a slow one
        one_revision.format(
            "a.REVISION, b.REVISION",
            "busy a JOIN busy b USING (ID) "
            "JOIN (SELECT ID, sum(sqrt(ID * r.range)) FROM busy, range(400000) r GROUP BY ID) c USING (ID)",
        ),
    ]
    with ThreadPoolExecutor(4) as pool:
        writing = pool.submit(keep_writing)
        try:
            asking = [pool.submit(ask, query) for query in queries]
            seen = [one for each in asking for one in each.result()]
        finally:
            stop.set()
        writing.result()
    assert len({pins(one.table)[0]["version"] for one in seen}) > 2
    assert {one.query for one in seen if one.landed} == set(queries)
    with Asker(server, "LIVE") as asker:
        latest = asker.rows("SELECT max(REVISION) FROM busy")[0][0]
        for one in seen:
            (pin,) = pins(one.table)
            number = revisions[pin["version"]]
            if "REVISION" in one.table.column_names:
                assert one.table.num_rows == ROWS + number
                assert set(one.table.column("REVISION").to_pylist()) == {number}
            else:
                assert one.table.to_pylist() == [{"rows": ROWS + number, "low": number, "high": number}]
        for one in {one.query: one for one in seen if revisions[pins(one.table)[0]["version"]] < latest}.values():
            again = asker.table(one.query, pins=pins(one.table))
            assert again.equals(one.table, check_metadata=True)
