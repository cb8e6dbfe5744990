"""`conn.sql` and `datom-flight sql` on the real server: what the server computes, of which versions, and again."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import datom_flight
from datom_flight import Connection, DatomError, Pin
from datom_flight.cli import main
from support.server import START_SECONDS, Server, clean_environment, command, running, write_config
from support.stores import write_store
from support.writable import empty_place

DM = pa.table(
    {
        "USUBJID": ["01-001", "01-002", "01-003"],
        "AGE": pa.array([71, 64, None], pa.int32()),
        "SEX": pa.array(["F", "M", "F"]).dictionary_encode(),
    }
)
LB = pa.table(
    {
        "USUBJID": [f"01-{row % 3 + 1:03d}" for row in range(60_000)],
        "LBSEQ": pa.array(range(60_000), pa.int64()),
        "LBSTRESN": [row % 100 / 4 for row in range(60_000)],
    }
)
HOSTILE = pa.table({"TEXT": ["\x1b[31mred\x07", "two\nlines", "=1+1"], "\x1b]0;x": [1, 2, 3]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("client_sql")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    tables = {"dm": [DM.slice(0, 2), DM], "lb": [LB], "hostile": [HOSTILE]}
    write_store(folder / "one", tables, row_group_size=10_000)
    write_store(folder / "two", {"dm": [DM.slice(0, 1), DM.slice(0, 1).append_column("SITE", pa.array([7]))]})
    projects = {
        "STUDY_001": {"data": f"file://{folder / 'one'}"},
        "STUDY_002": {"data": f"file://{folder / 'two'}"},
        "STUDY_W": empty_place(folder / "writable", "STUDY_W").settings,
    }
    with running(write_config(folder, projects)) as server:
        yield server


@pytest.fixture
def conn(server: Server) -> Iterator[Connection]:
    with server.connect("STUDY_001") as connection:
        yield connection


@pytest.fixture
def writer(server: Server) -> Iterator[Connection]:
    with server.connect("STUDY_W", token=server.token("developer", "STUDY_W", "STUDY_001")) as connection:
        yield connection


def refusal(call: Callable[[], object]) -> DatomError:
    with pytest.raises(DatomError) as caught:
        call()
    return caught.value


# The library


def test_a_plain_select_keeps_the_stored_types_and_says_its_version(conn: Connection) -> None:
    table = conn.sql("SELECT * FROM dm")
    assert table.equals(DM.cast(table.schema))
    assert table.schema.equals(conn.read("dm").schema)
    (pin,) = json.loads(table.schema.metadata[b"datom.pins"])
    assert pin["version"].encode() == table.schema.metadata[b"datom.version"]


def test_a_long_plain_select_comes_whole_and_in_order(conn: Connection) -> None:
    table = conn.sql("SELECT LBSEQ, USUBJID FROM lb WHERE LBSEQ % 2 = 0")
    assert table["LBSEQ"].to_pylist() == list(range(0, 60_000, 2))
    assert table.schema.names == ["LBSEQ", "USUBJID"]


def test_the_server_computes(conn: Connection) -> None:
    table = conn.sql(
        "SELECT SEX, count(*) AS n, max(LBSTRESN) AS top FROM dm JOIN lb USING (USUBJID) GROUP BY SEX ORDER BY SEX"
    )
    assert table.to_pylist() == [{"SEX": "F", "n": 40_000, "top": 24.75}, {"SEX": "M", "n": 20_000, "top": 24.75}]
    assert [pin["table"] for pin in json.loads(table.schema.metadata[b"datom.pins"])] == ["dm", "lb"]


def test_a_large_computed_result_comes_whole(conn: Connection) -> None:
    table = conn.sql("SELECT LBSEQ + 0 AS n, USUBJID || '!' AS id FROM lb")
    assert sorted(table["n"].to_pylist()) == list(range(60_000))
    assert pc.all(pc.ends_with(table["id"], "!")).as_py()


def test_no_rows_have_a_schema(conn: Connection) -> None:
    for query in ("SELECT * FROM dm WHERE AGE > 1000", "SELECT AGE + 1 AS older FROM dm WHERE AGE > 1000"):
        table = conn.sql(query)
        assert (table.num_rows, bool(table.schema.names)) == (0, True)


def test_a_scan_gives_the_same_rows_batch_by_batch(conn: Connection) -> None:
    scan = conn.open_sql("SELECT * FROM lb")
    assert (scan.rows, len(scan.version or "")) == (60_000, 64)
    assert scan.reader().read_all().equals(conn.sql("SELECT * FROM lb"))
    computed = conn.open_sql("SELECT LBSEQ + 0 AS n FROM lb")
    assert (computed.rows, computed.version) == (None, None)
    assert sum(batch.num_rows for batch in computed.reader()) == 60_000


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**63),
        2**63,
        2**100,
        1.5,
        float("inf"),
        'Zürich\'s "best"',
        b"\x00\xff",
        Decimal("-1.50"),
        date(2026, 1, 15),
        datetime(2026, 1, 15, 12, 30, 0, 5),
        datetime(2026, 1, 15, 12, tzinfo=UTC),
        timedelta(days=3, microseconds=1),
    ],
    ids=str,
)
def test_a_parameter_comes_back_as_it_went(conn: Connection, value: Any) -> None:
    for query, parameters in (("SELECT ? AS x, ? AS n", [value, 1]), ("SELECT $x AS x", {"x": value})):
        (row,) = conn.sql(query, parameters).to_pylist()
        found = row["x"]
        if isinstance(value, timedelta):
            found = timedelta(days=found.days, microseconds=found.nanoseconds // 1000)
        assert found == value
        assert isinstance(found, bool) == isinstance(value, bool)


def test_parameters_are_never_text_of_the_query(conn: Connection) -> None:
    query = "SELECT USUBJID FROM dm WHERE SEX = ? AND AGE > ?"
    assert conn.sql(query, ["F", 65])["USUBJID"].to_pylist() == ["01-001"]
    assert conn.sql(query, ["F' OR '1'='1", 0]).num_rows == 0


@pytest.mark.parametrize("parameters", [None, [], ["F"], ["F", 65, 1], {"sex": "F", "age": 65}], ids=str)
def test_too_few_too_many_and_other_parameters_are_refused(conn: Connection, parameters: Any) -> None:
    error = refusal(lambda: conn.sql("SELECT USUBJID FROM dm WHERE SEX = ? AND AGE > ?", parameters))
    assert error.code == "invalid_argument"


def test_tables_are_read_as_of_an_instant(conn: Connection) -> None:
    count = "SELECT count(*) AS n FROM dm"
    for as_of in ("2026-01-15", date(2026, 1, 15), datetime(2026, 1, 15, tzinfo=UTC)):
        assert conn.sql(count, as_of=as_of).to_pydict() == {"n": [2]}
    assert refusal(lambda: conn.sql(count, as_of="2025-01-01")).code == "version_not_found"


def test_a_connection_without_a_project_names_it_in_the_query(server: Server, conn: Connection) -> None:
    with server.connect() as nowhere:
        assert nowhere.project is None
        assert nowhere.sql("SELECT count(*) AS n FROM STUDY_001.dm").to_pydict() == {"n": [3]}
        assert "no project is chosen" in refusal(lambda: nowhere.sql("SELECT * FROM dm")).message
        assert nowhere.sql("SELECT count(*) AS n FROM dm", pin=conn.pin(["dm"])).to_pydict() == {"n": [3]}


def test_a_narrowed_connection_runs_queries_too(server: Server) -> None:
    with server.connect("STUDY_W", token=server.token("developer"), role="reader") as narrowed:
        assert narrowed.sql("SELECT 1 AS one").to_pydict() == {"one": [1]}


def test_a_query_with_its_pins_gives_the_same_rows_after_a_new_version(writer: Connection, tmp_path: Path) -> None:
    writer.write("adsl", DM)
    query = "SELECT count(*) AS n, max(AGE) AS oldest FROM adsl"
    pin = writer.pin(["adsl"])
    first = writer.sql(query)
    pq.write_table(first, tmp_path / "first.parquet")
    writer.write("adsl", DM.slice(0, 1))
    assert writer.sql(query).to_pydict() == {"n": [1], "oldest": [71]}
    for pinned in (pin, first, pq.read_table(tmp_path / "first.parquet"), writer.pin(first)):
        again = writer.sql(query, pin=pinned)
        assert again.equals(first)
        assert again.schema.metadata[b"datom.pins"] == first.schema.metadata[b"datom.pins"]
    assert writer.pin(first) == pin


def test_a_result_of_several_projects_sets_and_versions_is_computed_again(writer: Connection) -> None:
    first = writer.write("ex", DM)
    member = {"id": {"project": "STUDY_W", "name": "ex", "kind": "table", "version": first.version}}
    writer.write_set("frozen", [member])
    writer.write("ex", DM.slice(0, 1))
    query = (
        'SELECT (SELECT count(*) FROM ex) AS now, (SELECT count(*) FROM "frozen".ex) AS then, '
        f"(SELECT count(*) FROM ex AT (VERSION => '{first.version[:12]}')) AS named, "
        "(SELECT count(*) FROM STUDY_001.dm) AS other"
    )
    result = writer.sql(query)
    assert result.to_pylist() == [{"now": 1, "then": 3, "named": 3, "other": 3}]
    second = writer.write("ex", DM.slice(0, 2))
    writer.write_set("frozen", [{"id": {**member["id"], "version": second.version}}])
    assert writer.sql(query).to_pylist() == [{"now": 2, "then": 2, "named": 3, "other": 3}]
    assert writer.sql(query, pin=result).equals(result)
    assert refusal(lambda: writer.pin(result)).code == "invalid_argument"


def test_a_pin_must_hold_every_table_of_the_query(conn: Connection) -> None:
    pin = conn.pin(["dm"])
    error = refusal(lambda: conn.sql("SELECT * FROM dm JOIN lb USING (USUBJID)", pin=pin))
    assert error.code == "version_not_found"
    assert "STUDY_001.lb" in error.message
    version = conn.history("lb")[0].version
    query = f"SELECT count(*) AS n FROM dm JOIN lb AT (VERSION => '{version}') USING (USUBJID)"
    assert conn.sql(query, pin=pin).to_pydict() == {"n": [60_000]}


def test_a_pin_of_data_that_changed_is_refused(conn: Connection) -> None:
    pin = conn.pin(["dm"])
    forged = Pin(pin.project, {"dm": datom_flight.PinnedTable(pin["dm"].version, "0" * 64, None, 3)})
    assert refusal(lambda: conn.sql("SELECT max(AGE) FROM dm", pin=forged)).code == "integrity_mismatch"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT * FROM nowhere", "not_found"),
        ("SELECT FROM WHERE", "sql_error"),
        ("SELECT NOTHERE FROM dm", "sql_error"),
        ("DROP TABLE dm", "sql_error"),
        ("SELECT 1; SELECT 2", "sql_error"),
        ("SELECT * FROM dm AT (VERSION => 'ffffffff')", "version_not_found"),
        ("SELECT * FROM read_parquet('/etc/passwd')", "sql_error"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_code(conn: Connection, query: str, code: str) -> None:
    assert refusal(lambda: conn.sql(query)).code == code


def test_an_error_while_rows_are_computed_is_the_server_s(conn: Connection) -> None:
    error = refusal(lambda: conn.sql("SELECT CAST(USUBJID AS INTEGER) AS n FROM lb"))
    assert error.code == "sql_error"
    assert error.request_id


def test_a_query_that_takes_too_long_for_the_connection_is_a_timeout(server: Server) -> None:
    endless = "SELECT count(*) FROM lb AS a, lb AS b, lb AS c WHERE a.LBSEQ % 7 = b.LBSEQ % 11 AND c.LBSEQ % 3 = 1"
    with server.connect("STUDY_001", timeout=2) as hasty:
        assert refusal(lambda: hasty.sql(endless)).code == "timeout"


# The command


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    data: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        return self.data.decode()


Run = Callable[..., Done]


@pytest.fixture
def run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Run:
    """Runs the command in this process and in an empty folder."""
    for name, value in (("URL", server.url), ("PROJECT", "STUDY_001"), ("TOKEN", server.token())):
        monkeypatch.setenv(f"DATOM_FLIGHT_{name}", value)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["datom-flight", "sql", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main()
        told = capsysbinary.readouterr()
        return Done(code, told.out, told.err.decode())

    return run


AGES = "SELECT USUBJID, AGE, SEX FROM dm ORDER BY USUBJID"


def test_the_command_prints_a_table_and_says_of_which_versions(run: Run, conn: Connection) -> None:
    done = run(AGES)
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "USUBJID  AGE  SEX",
        "01-001    71  F",
        "01-002    64  M",
        "01-003     -  F",
    ]
    assert done.stderr.strip() == f"3 of 3 rows, of dm@{conn.history('dm')[0].version[:8]}"


def test_the_command_names_other_projects_and_no_versions_where_there_are_none(run: Run) -> None:
    done = run("SELECT count(*) AS n FROM dm, STUDY_002.dm AS other")
    assert done.stderr.startswith("1 of 1 rows, of dm@")
    assert ", STUDY_002.dm@" in done.stderr
    assert run("SELECT 1 AS one").stderr.strip() == "1 of 1 rows"


def test_the_command_prints_the_first_rows_of_many(run: Run) -> None:
    done = run("SELECT LBSEQ + 0 AS n FROM lb ORDER BY n")
    assert len(done.stdout.splitlines()) == 101
    assert done.stderr.startswith("the first 100 rows, of lb@")


def test_the_command_prints_json_and_csv(run: Run) -> None:
    told = json.loads(run(AGES, "--format", "json").stdout)
    assert told == DM.to_pylist()
    rows = list(csv.DictReader(io.StringIO(run(AGES, "--format", "csv").stdout)))
    assert [row["AGE"] for row in rows] == ["71", "64", ""]


@pytest.mark.parametrize("how", ["arrow", "parquet"])
def test_the_command_gives_arrow_and_parquet_to_pipes_and_files(run: Run, tmp_path: Path, how: str) -> None:
    query = "SELECT * FROM dm"
    done = run(query, "--format", how)
    assert done.code == 0, done.stderr
    assert run(query, "-o", f"rows.{how}").code == 0
    for data in (done.data, (tmp_path / f"rows.{how}").read_bytes()):
        source = pa.BufferReader(data)
        table = pq.read_table(source) if how == "parquet" else pa.ipc.open_file(source).read_all()
        assert table.to_pydict() == DM.to_pydict()
        assert b"datom.pins" in table.schema.metadata


def test_the_command_writes_to_a_pipe(server: Server, tmp_path: Path) -> None:
    options = ["--url", server.url, "--project", "STUDY_001", "--format", "parquet"]
    done = subprocess.run(
        [command("datom-flight"), "sql", "-", *options],
        input=b"SELECT * FROM dm",
        capture_output=True,
        timeout=START_SECONDS,
        env=clean_environment(tmp_path, DATOM_FLIGHT_TOKEN=server.token()),
        check=True,
    )
    assert pq.read_table(pa.BufferReader(done.stdout)).to_pydict() == DM.to_pydict()


def test_the_command_takes_the_query_from_stdin_or_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "query.sql").write_text("-- of all subjects\nSELECT count(*) AS n\nFROM dm;\n")
    for done in (
        run("-", "--format", "csv", stdin="SELECT count(*) AS n FROM dm\n"),
        run("--file", "query.sql", "--format", "csv"),
    ):
        assert done.stdout == '"n"\n3\n', done.stderr


def test_the_command_binds_parameters_as_texts(run: Run) -> None:
    query = "SELECT USUBJID FROM dm WHERE AGE > ? AND SEX = ?"
    done = run(query, "--param", "60", "--param", "F", "--format", "csv")
    assert done.stdout == '"USUBJID"\n"01-001"\n', done.stderr


def test_the_command_reads_as_of_an_instant_and_at_pinned_versions(run: Run, conn: Connection, tmp_path: Path) -> None:
    count = "SELECT count(*) AS n FROM dm"
    assert run(count, "--as-of", "2026-01-15", "--format", "csv").stdout == '"n"\n2\n'
    conn.pin(["dm"], as_of="2026-01-15").save(tmp_path / "pins.json")
    old = conn.sql("SELECT * FROM dm", as_of="2026-01-15")
    pq.write_table(old, tmp_path / "old.parquet")
    with pa.ipc.new_file(tmp_path / "old.arrow", old.schema) as file:
        file.write_table(old)
    for pin in ("pins.json", "old.parquet", "old.arrow"):
        done = run(count, "--pin", pin, "--format", "csv")
        assert done.stdout == '"n"\n2\n', done.stderr


def test_the_command_moves_no_terminal(run: Run) -> None:
    for query in ("SELECT * FROM hostile", "SELECT TEXT || '' AS t FROM hostile", "SELECT '\x1b[31m' AS \"\x1b[1m\""):
        done = run(query)
        assert done.code == 0, done.stderr
        assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)
    failed = run("SELECT \x1b[31m FROM dm")
    assert failed.code == 1
    assert "\x1b" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "give a query"),
        (("SELECT 1", "--file", "query.sql"), 2, "give a query"),
        (("SELECT 1", "-o", "rows.docx"), 2, "known format"),
        (("SELECT 1", "--format", "xml"), 2, "--format"),
        (("DROP TABLE dm",), 1, "sql_error"),
        (("SELECT * FROM nowhere",), 1, "not_found"),
        (("SELECT ?",), 1, "invalid_argument"),
        (("SELECT 1", "--file", "-", "--as-of", "x"), 2, "give a query"),
        (("--file", "missing.sql"), 1, "missing.sql"),
        (("SELECT * FROM dm", "--pin", "missing.json"), 1, "missing.json"),
        (("SELECT * FROM dm", "--pin", "text.parquet"), 1, "holds no rows"),
        (("SELECT * FROM dm", "--pin", "text.arrow"), 1, "holds no rows"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_the_command_fails_in_one_line(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    for ending in ("parquet", "arrow"):
        (tmp_path / f"text.{ending}").write_text("text")
    done = run(*arguments)
    assert done.code == code
    assert told in done.stderr
    assert done.stdout == ""
    assert code == 2 or len(done.stderr.strip().splitlines()) == 1


def test_a_failed_query_leaves_the_file_that_was_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("before")
    done = run("SELECT CAST(USUBJID AS INTEGER) AS n FROM lb", "-o", "rows.csv")
    assert done.code == 1
    assert (tmp_path / "rows.csv").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
