"""What the contract says of reading, said again by the server itself."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import datom_flight
from datom_flight import DatomError
from support.server import Server, await_condition, running, write_config
from support.stores import add_version, write_store

Connection = datom_flight.Connection


def dm(subjects: int) -> pa.Table:
    """Demographics of so many subjects; a later cut has more, the first ones unchanged."""
    return pa.table(
        {
            "USUBJID": [f"01-{number:03d}" for number in range(subjects)],
            "AGE": pa.array([50 + number * 7 % 40 if number % 9 else None for number in range(subjects)], pa.int32()),
            "SEX": pa.array(["F" if number % 2 else "M" for number in range(subjects)]).dictionary_encode(),
            "WEIGHT": [60.5 + number / 3 for number in range(subjects)],
        }
    )


DM = [dm(10), dm(20), dm(30)]  # of noon on the first of January, February and March 2026
AE = pa.table({"USUBJID": ["01-001", "01-004"], "AETERM": ["Headache", "Nausea (mild) 'x' \"y\""]})


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("stores")
    names = {"STUDY_001": {"dm": DM, "ae": [AE], "My table (v2)": [AE]}, "STUDY_002": {"dm": [dm(3)]}}
    versions = {project: write_store(folder / project, tables) for project, tables in names.items()}
    return {"versions": versions, "projects": {project: {"data": f"file://{folder / project}"} for project in names}}


@pytest.fixture(scope="module")
def versions(stores: dict[str, Any]) -> dict[str, list[str]]:
    """The version ids of each table of STUDY_001, oldest first."""
    found: dict[str, list[str]] = stores["versions"]["STUDY_001"]
    return found


@pytest.fixture(scope="module")
def server(stores: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(write_config(tmp_path_factory.mktemp("server"), stores["projects"])) as server:
        yield server


@pytest.fixture
def conn(server: Server) -> Iterator[Connection]:
    with server.connect("STUDY_001") as connection:
        yield connection


def refusal(call: Any, *arguments: Any, **options: Any) -> DatomError:
    with pytest.raises(DatomError) as caught:
        call(*arguments, **options)
    return caught.value


# Naming a version


def test_without_a_version_the_current_one_is_read(conn: Connection, versions: dict[str, list[str]]) -> None:
    table = conn.read("dm")
    assert table.equals(DM[2])
    assert table.schema.metadata[b"datom.version"].decode() == versions["dm"][2]


def test_a_full_version_or_a_unique_prefix_of_it_reads_exactly_that_version(
    conn: Connection, versions: dict[str, list[str]]
) -> None:
    for version, expected in zip(versions["dm"], DM, strict=True):
        assert conn.read("dm", version=version).equals(expected)
        assert conn.read("dm", version=version[:10]).equals(expected)


def test_a_version_nobody_wrote_is_not_found_and_the_newest_are_named(
    conn: Connection, versions: dict[str, list[str]]
) -> None:
    error = refusal(conn.read, "dm", version="0123456789ab")
    assert error.code == "version_not_found"
    assert versions["dm"][2][:8] in str(error)


def test_the_empty_beginning_of_a_version_is_no_version(conn: Connection) -> None:
    assert refusal(conn.read, "dm", version="").code == "invalid_argument"


@pytest.mark.parametrize(
    ("as_of", "cut"),
    [
        ("2026-01-01", 0),
        ("2026-01-01T12:00:00Z", 0),
        ("2026-01-31", 0),
        ("2026-02-01T11:59:59Z", 0),
        ("2026-02-01T12:00:00", 1),
        ("2026-02-01T13:00:00+02:00", 0),
        ("2026-02-01T14:00:00+02:00", 1),
        ("2026-02-01", 1),
        (datetime.datetime(2026, 2, 1, 12), 1),
        (datetime.datetime(2026, 2, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2))), 0),
        (datetime.date(2026, 2, 1), 1),
        ("2030-01-01", 2),
    ],
    ids=str,
)
def test_as_of_reads_the_version_current_at_that_instant_inclusive(conn: Connection, as_of: Any, cut: int) -> None:
    assert conn.read("dm", as_of=as_of).equals(DM[cut])


def test_as_of_before_the_first_version_is_version_not_found(conn: Connection) -> None:
    assert refusal(conn.read, "dm", as_of="2026-01-01T11:59:59Z").code == "version_not_found"
    assert refusal(conn.read, "dm", as_of="2025-12-31").code == "version_not_found"


def test_version_and_as_of_together_are_invalid(conn: Connection, versions: dict[str, list[str]]) -> None:
    error = refusal(conn.read, "dm", version=versions["dm"][0], as_of="2026-01-01")
    assert error.code == "invalid_argument"


def test_as_of_that_is_no_instant_is_invalid(conn: Connection) -> None:
    assert refusal(conn.read, "dm", as_of="last Tuesday").code == "invalid_argument"


# What comes of it


def test_columns_come_in_the_order_asked_for(conn: Connection) -> None:
    table = conn.read("dm", columns=["WEIGHT", "USUBJID"])
    assert table.equals(DM[2].select(["WEIGHT", "USUBJID"]))


def test_an_unknown_column_is_invalid_and_the_known_ones_are_named(conn: Connection) -> None:
    error = refusal(conn.read, "dm", columns=["AGE", "NOPE"])
    assert error.code == "invalid_argument"
    assert '"NOPE"' in error.message
    assert "WEIGHT" in str(error)
    assert refusal(conn.read, "dm", columns=["AGE", "AGE"]).code == "invalid_argument"


@pytest.mark.parametrize(
    ("where", "mask"),
    [
        ("AGE >= 65", pc.field("AGE") >= 65),
        ("age >= 65", pc.field("AGE") >= 65),
        ("\"AGE\" >= 65 AND SEX = 'F'", (pc.field("AGE") >= 65) & (pc.field("SEX") == "F")),
        ("AGE IS NULL", pc.field("AGE").is_null()),
        ("NOT (AGE < 65)", pc.field("AGE") >= 65),
        ("AGE BETWEEN 60 AND 70", (pc.field("AGE") >= 60) & (pc.field("AGE") <= 70)),
        ("USUBJID IN ('01-001', '01-029')", pc.field("USUBJID").isin(["01-001", "01-029"])),
        ("SEX <> 'M' OR WEIGHT > 68.25", (pc.field("SEX") != "M") | (pc.field("WEIGHT") > 68.25)),
        ("USUBJID LIKE '01-02%'", pc.starts_with(pc.field("USUBJID"), "01-02")),
        ("AGE > 1000", pc.field("AGE") > 1000),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_keeps_the_rows_for_which_it_is_true(conn: Connection, where: str, mask: pc.Expression) -> None:
    expected = DM[2].filter(mask)
    assert conn.read("dm", where=where).equals(expected)
    assert conn.read("dm", where=where, columns=["USUBJID"]).equals(expected.select(["USUBJID"]))
    assert conn.read("dm", where=where, limit=2).equals(expected.slice(0, 2))


def test_a_where_that_cannot_be_understood_names_the_place(conn: Connection) -> None:
    error = refusal(conn.read, "dm", where="AGE >= 65 AND NOPE = 1")
    assert error.code == "invalid_argument"
    assert "NOPE" in str(error)


def test_limit_takes_the_first_rows(conn: Connection) -> None:
    assert conn.read("dm", limit=7).equals(DM[2].slice(0, 7))
    assert conn.read("dm", limit=0).equals(DM[2].slice(0, 0))
    assert conn.read("dm", limit=10_000).equals(DM[2])
    assert refusal(conn.read, "dm", limit=-1).code == "invalid_argument"


def test_scan_streams_the_same_rows(conn: Connection) -> None:
    reader = conn.scan("dm", where="SEX = 'F'", columns=["USUBJID", "SEX"])
    assert isinstance(reader, pa.RecordBatchReader)
    assert reader.schema.names == ["USUBJID", "SEX"]
    expected = DM[2].filter(pc.field("SEX") == "F").select(["USUBJID", "SEX"])
    assert pa.Table.from_batches(list(reader), reader.schema).equals(expected)


def test_schema_comes_without_data_and_says_what_it_is(conn: Connection, versions: dict[str, list[str]]) -> None:
    schema = conn.schema("dm")
    assert schema.equals(DM[2].schema, check_metadata=False)
    assert schema.metadata[b"datom.project"] == b"STUDY_001"
    assert schema.metadata[b"datom.table"] == b"dm"
    assert schema.metadata[b"datom.version"].decode() == versions["dm"][2]
    assert conn.schema("dm", versions["dm"][0]).metadata[b"datom.version"].decode() == versions["dm"][0]


def test_names_with_spaces_and_parentheses_read(conn: Connection) -> None:
    assert conn.read("My table (v2)").equals(AE)


def test_history_is_newest_first_and_can_be_limited(conn: Connection, versions: dict[str, list[str]]) -> None:
    history = conn.history("dm")
    assert [row.version for row in history] == versions["dm"][::-1]
    assert [row.version for row in conn.history("dm", limit=2)] == versions["dm"][:0:-1]
    assert history[0].timestamp == datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
    assert history[0].author == "Ann <ann@example.org>"
    assert history[0].message == "Update dm"


def test_tables_are_listed_by_pattern(conn: Connection) -> None:
    assert [row.name for row in conn.tables()] == ["dm", "ae", "My table (v2)"]
    assert [row.name for row in conn.tables("?[me]")] == ["dm", "ae"]
    assert [row.name for row in conn.tables("My*")] == ["My table (v2)"]
    assert list(conn.tables("nope*")) == []
    assert conn.tables()[0].versions == 3
    assert conn.tables()[0].kind == "table"


def test_results_that_people_look_at_print_as_tables_and_become_pandas(conn: Connection) -> None:
    for result, column in ((conn.tables(), "name"), (conn.history("dm"), "version"), (conn.projects(), "name")):
        header, *rows = str(result).splitlines()
        assert column in header.lower()
        assert len(rows) >= len(result)
        assert list(result.to_pandas()[column]) == [getattr(row, column) for row in result]


def test_the_summary_says_what_the_project_holds(conn: Connection) -> None:
    summary = conn.summary()
    assert (summary.project, summary.role, summary.tables, summary.sets, summary.versions) == (
        "STUDY_001",
        "reader",
        3,
        0,
        5,
    )


def test_validation_names_what_is_damaged(
    stores: dict[str, Any], versions: dict[str, list[str]], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(stores["projects"]["STUDY_001"]["data"].removeprefix("file://"), copy)
    damaged = sorted((copy / "datom" / "ae").glob("*.parquet"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"oops")
    config = write_config(tmp_path / "server", {"COPY": {"data": f"file://{copy}"}})
    with running(config) as server, server.connect("COPY") as connection:
        wrong = [finding for finding in connection.validate() if not finding.ok]
        assert {finding.table for finding in wrong} == {"ae"}
        assert not [finding for finding in connection.validate("dm") if not finding.ok]
        assert refusal(connection.read, "ae").code == "integrity_mismatch"


def test_a_connection_shows_where_it_leads_and_never_its_token(server: Server, conn: Connection) -> None:
    text = str(conn)
    for part in ("datom connection", "STUDY_001", "reader", "ann", server.url):
        assert part in text
    assert server.token() not in text + repr(conn)


def test_errors_name_the_request(conn: Connection) -> None:
    error = refusal(conn.read, "nope")
    assert error.code == "not_found"
    assert error.request_id
    assert error.request_id in str(error)


# Who may see what


def test_a_caller_is_told_who_it_is(server: Server) -> None:
    with server.connect(token=server.token("developer", "STUDY_001", principal="bob")) as connection:
        identity = connection.whoami()
        assert (identity.principal, identity.role, identity.projects) == ("bob", "developer", ["STUDY_001"])
        assert (connection.principal, connection.role) == ("bob", "developer")
    with server.connect() as connection:
        assert connection.whoami().projects is None


def test_only_the_projects_of_the_token_are_listed(server: Server) -> None:
    with server.connect(token=server.token("reader", "STUDY_002")) as connection:
        assert [project.name for project in connection.projects()] == ["STUDY_002"]
    with server.connect() as connection:
        assert [project.name for project in connection.projects()] == ["STUDY_001", "STUDY_002"]


def test_what_a_caller_may_not_see_is_as_if_it_did_not_exist(server: Server) -> None:
    token = server.token("reader", "STUDY_002")
    seen = []
    for project in ("STUDY_001", "STUDY_009"):
        with server.connect(project, token=token) as connection:
            for call in (
                lambda c: c.read("dm"),
                lambda c: c.read("dm", version="0000"),
                lambda c: c.schema("dm"),
                lambda c: c.tables(),
                lambda c: c.history("dm"),
                lambda c: c.metadata("dm"),
                lambda c: c.parents("dm"),
                lambda c: c.set("dm"),
                lambda c: c.summary(),
                lambda c: c.validate(),
            ):
                error = refusal(call, connection)
                assert error.code == "not_found"
                seen.append((project, error.message.replace(project, "PROJECT"), error.hint, sorted(error.fields)))
    half = len(seen) // 2
    assert [row[1:] for row in seen[:half]] == [row[1:] for row in seen[half:]]


def test_role_reader_gives_up_what_the_token_has(server: Server) -> None:
    with server.connect("STUDY_001", token=server.token("developer"), role="reader") as connection:
        assert connection.role == "reader"
        assert connection.whoami().role == "reader"
        assert connection.read("dm").equals(DM[2])


def test_no_connection_gets_a_wider_role_than_its_token(server: Server) -> None:
    def connect_as_admin() -> None:
        with server.connect("STUDY_001", token=server.token("developer"), role="admin") as connection:
            connection.whoami()

    assert refusal(connect_as_admin).code == "permission_denied"


def test_an_expired_or_foreign_token_is_unauthenticated(server: Server, tmp_path: Path) -> None:
    def read(token: str) -> None:
        with server.connect("STUDY_001", token=token) as connection:
            connection.read("dm")

    assert refusal(read, "not-a-token").code == "unauthenticated"
    head, claims, signature = server.token().split(".")
    assert refusal(read, f"{head}.{claims}.{signature[:-4]}AAAA").code == "unauthenticated"


# Freshness and permanence


def test_a_new_version_is_visible_within_the_metadata_age_and_a_pin_stays(tmp_path: Path) -> None:
    versions = write_store(tmp_path / "store", {"dm": [DM[0]]})
    config = write_config(
        tmp_path / "server",
        {"STUDY_001": {"data": f"file://{tmp_path / 'store'}"}},
        server={"metadata_max_age_seconds": 0.2},
    )
    with running(config) as server, server.connect("STUDY_001") as connection:
        assert connection.read("dm").num_rows == 10
        add_version(tmp_path / "store", "dm", DM[1])
        await_condition(lambda: connection.read("dm").num_rows == 20, 5, "the new version is the current one")
        assert connection.read("dm", version=versions["dm"][0]).equals(DM[0])


def test_a_pinned_version_once_seen_reads_with_the_storage_gone(tmp_path: Path) -> None:
    versions = write_store(tmp_path / "store", {"dm": DM})
    config = write_config(tmp_path / "server", {"STUDY_001": {"data": f"file://{tmp_path / 'store'}"}})
    with running(config) as server, server.connect("STUDY_001") as connection:
        assert connection.read("dm", version=versions["dm"][1]).equals(DM[1])
        shutil.rmtree(tmp_path / "store")
        assert connection.read("dm", version=versions["dm"][1]).equals(DM[1])
        assert connection.read("dm", version=versions["dm"][1], where="AGE >= 65").num_rows


def test_one_project_out_of_reach_stops_no_other(stores: dict[str, Any], tmp_path: Path) -> None:
    projects = {**stores["projects"], "GONE": {"data": f"file://{tmp_path / 'gone'}"}}
    with running(write_config(tmp_path / "server", projects)) as server:
        with server.connect("GONE") as connection:
            assert refusal(connection.tables).code == "store_unreachable"
            assert refusal(connection.read, "dm").code == "store_unreachable"
        with server.connect("STUDY_001") as connection:
            assert connection.read("dm").equals(DM[2])
            assert [project.name for project in connection.projects()] == ["GONE", "STUDY_001", "STUDY_002"]


def test_a_list_of_replicas_reads_from_one_that_answers(server: Server) -> None:
    unused = "grpc://127.0.0.1:1"
    with datom_flight.connect(f"{unused},{server.url}", "STUDY_001", token=server.token()) as connection:
        assert connection.read("dm").equals(DM[2])
