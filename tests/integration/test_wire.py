"""The wire as any Flight client sees it: no code of ours on the caller's side but the test's own."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest

import datom_flight
from datom_flight import DatomError
from datom_flight.protocol.messages import ACTIONS
from datom_flight_server.flight.sql.service import ACTIONS as SQL_ACTIONS
from support.answers import code_of
from support.server import Server, running, write_config
from support.stores import write_store
from support.tls import write_certificate

MAX_BATCH_BYTES = 4 * 1024 * 1024
BIG_ROWS = 2_500_000

DM = pa.table({"USUBJID": ["01-001", "01-002", "01-003"], "AGE": pa.array([71, None, 58], pa.int32())})
NARROW = pa.table({"SEQ": pa.array(np.arange(BIG_ROWS), pa.int32())})
WIDE = pa.table({"TEXT": [f"{row:06d}" + "x" * 50_000 for row in range(400)], "ROW": range(400)})
HUGE_VALUES = pa.table({"TEXT": ["y" * 6_000_000, "z", "w" * 5_000_000]})


@pytest.fixture(scope="module")
def versions() -> dict[str, list[str]]:
    return {}


@pytest.fixture(scope="module")
def projects(versions: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    root = tmp_path_factory.mktemp("store")
    older = DM.slice(0, 2)
    tables = {"dm": [older, DM], "narrow": [NARROW], "wide": [WIDE], "huge": [HUGE_VALUES], "none": [DM.slice(0, 0)]}
    versions.update(write_store(root, tables, row_group_size=250_000))
    return {"STUDY_001": {"data": f"file://{root}"}}


@pytest.fixture(scope="module")
def server(projects: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(write_config(tmp_path_factory.mktemp("server"), projects)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[flight.FlightClient]:
    with server.raw() as client:
        yield client


def command(**fields: Any) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(json.dumps({"project": "STUDY_001", **fields}))


def ticket(**fields: Any) -> flight.Ticket:
    return flight.Ticket(json.dumps({"project": "STUDY_001", **fields}))


def act(client: flight.FlightClient, options: flight.FlightCallOptions, kind: str, **body: Any) -> list[Any]:
    action = flight.Action(kind, json.dumps(body).encode())
    return [json.loads(bytes(result.body)) for result in client.do_action(action, options)]


# Descriptors, infos and tickets


def test_a_path_and_a_command_name_the_same_table(
    server: Server, client: flight.FlightClient, versions: dict[str, list[str]]
) -> None:
    options = server.call_options()
    old, new = versions["dm"]
    for descriptor, version, rows in (
        (flight.FlightDescriptor.for_path("STUDY_001", "dm"), new, 3),
        (flight.FlightDescriptor.for_path("STUDY_001", "dm", old), old, 2),
        (flight.FlightDescriptor.for_path("STUDY_001", "dm", old[:9]), old, 2),
        (command(table="dm"), new, 3),
        (command(table="dm", version=old), old, 2),
        (command(table="dm", as_of="2026-01-20"), old, 2),
    ):
        info = client.get_flight_info(descriptor, options)
        said = json.loads(info.app_metadata)
        assert {key: said[key] for key in ("project", "table", "version", "rows")} == {
            "project": "STUDY_001",
            "table": "dm",
            "version": version,
            "rows": rows,
        }
        assert len(said["data_sha"]) == len(said["parquet_sha"]) == 64
        assert info.total_records == rows
        assert info.total_bytes > 0
        assert info.ordered
        table = client.do_get(info.endpoints[0].ticket, options).read_all()
        assert table.equals(DM.slice(0, rows))
        assert table.schema.equals(info.schema, check_metadata=True)
        assert client.get_schema(descriptor, options).schema.equals(info.schema, check_metadata=True)


def test_every_ticket_of_an_info_names_the_full_version(
    server: Server, client: flight.FlightClient, versions: dict[str, list[str]]
) -> None:
    for name in ("dm", "narrow"):
        info = client.get_flight_info(command(table=name), server.call_options())
        for endpoint in info.endpoints:
            assert json.loads(endpoint.ticket.ticket)["version"] == versions[name][-1]


def test_a_ticket_written_by_hand_gives_the_rows(server: Server, client: flight.FlightClient) -> None:
    options = server.call_options()
    assert client.do_get(ticket(table="dm"), options).read_all().equals(DM)
    read = client.do_get(ticket(table="dm", columns=["AGE"], where="AGE > 60", limit=1), options)
    assert read.read_all().equals(pa.table({"AGE": pa.array([71], pa.int32())}))


def test_totals_with_a_where_are_exact_or_unknown(server: Server, client: flight.FlightClient) -> None:
    options = server.call_options()
    info = client.get_flight_info(command(table="narrow", where="SEQ < 10"), options)
    assert info.total_records in (10, -1)
    assert sum(client.do_get(endpoint.ticket, options).read_all().num_rows for endpoint in info.endpoints) == 10
    info = client.get_flight_info(command(table="narrow", limit=10), options)
    assert info.total_records == 10


def test_a_table_without_rows_has_an_endpoint_and_a_schema(server: Server, client: flight.FlightClient) -> None:
    info = client.get_flight_info(command(table="none"), server.call_options())
    assert info.total_records == 0
    assert len(info.endpoints) == 1
    table = client.do_get(info.endpoints[0].ticket, server.call_options()).read_all()
    assert table.equals(DM.slice(0, 0))
    assert table.schema.equals(info.schema, check_metadata=True)


def test_endpoints_in_their_order_are_the_rows_in_file_order(server: Server, client: flight.FlightClient) -> None:
    options = server.call_options()
    info = client.get_flight_info(command(table="narrow"), options)
    assert len(info.endpoints) > 1
    parts = [client.do_get(endpoint.ticket, options).read_all() for endpoint in info.endpoints]
    assert pa.concat_tables(parts).equals(NARROW)


def test_a_stream_ends_with_an_empty_batch_that_says_how_many_rows_it_had(
    server: Server, client: flight.FlightClient, versions: dict[str, list[str]]
) -> None:
    options = server.call_options()
    info = client.get_flight_info(command(table="dm"), options)
    for name in ("dm", "narrow", "none"):
        for endpoint in client.get_flight_info(command(table=name), options).endpoints:
            chunks = list(client.do_get(endpoint.ticket, options))
            end = json.loads(bytes(chunks[-1].app_metadata))
            assert chunks[-1].data.num_rows == 0
            assert end["end"] is True
            assert end["rows"] == sum(chunk.data.num_rows for chunk in chunks)
            assert end["version"] == versions[name][-1]
            assert all(chunk.app_metadata is None and chunk.data.num_rows for chunk in chunks[:-1])
    assert (
        json.loads(info.app_metadata)["data_sha"]
        == json.loads(bytes(list(client.do_get(info.endpoints[0].ticket, options))[-1].app_metadata))["data_sha"]
    )


def test_a_batch_of_more_than_one_row_is_at_most_four_mebibytes(server: Server, client: flight.FlightClient) -> None:
    for name, expected in (("wide", WIDE), ("narrow", NARROW), ("huge", HUGE_VALUES)):
        batches = [chunk.data for chunk in client.do_get(ticket(table=name), server.call_options())]
        assert pa.Table.from_batches(batches).equals(expected)
        for batch in batches:
            assert batch.num_rows <= 1 or pa.ipc.get_record_batch_size(batch) <= MAX_BATCH_BYTES


def test_flights_are_the_visible_tables_and_criteria_choose(server: Server, client: flight.FlightClient) -> None:
    options = server.call_options()

    def listed(criteria: bytes) -> list[str]:
        return [info.descriptor.path[-1].decode() for info in client.list_flights(criteria, options)]

    assert listed(b"") == ["dm", "narrow", "wide", "huge", "none"]
    assert listed(b'{"project":"STUDY_001","pattern":"n*"}') == ["narrow", "none"]
    with pytest.raises(flight.FlightError) as refusal:
        listed(b'{"project":"STUDY_009"}')
    assert code_of(refusal.value) == "not_found"
    hidden = server.call_options(server.token("reader", "OTHER"))
    assert list(client.list_flights(b"", hidden)) == []


# Actions


def test_the_actions_are_the_protocol_s(server: Server, client: flight.FlightClient) -> None:
    assert {action.type for action in client.list_actions(server.call_options())} == {*ACTIONS, *SQL_ACTIONS}


def test_actions_answer_one_json_object_a_result(
    server: Server, client: flight.FlightClient, versions: dict[str, list[str]]
) -> None:
    options = server.call_options()
    assert act(client, options, "datom.whoami") == [{"principal": "ann", "role": "reader", "projects": None}]
    (project,) = act(client, options, "datom.projects")
    assert (project["name"], project["backend"]) == ("STUDY_001", "local")
    tables = act(client, options, "datom.tables", project="STUDY_001", pattern="d*")
    assert [(row["name"], row["kind"], row["version"], row["versions"]) for row in tables] == [
        ("dm", "table", versions["dm"][1], 2)
    ]
    history = act(client, options, "datom.history", project="STUDY_001", table="dm", limit=1)
    assert [(row["version"], row["timestamp"]) for row in history] == [(versions["dm"][1], "2026-02-01T12:00:00Z")]
    (metadata,) = act(client, options, "datom.metadata", project="STUDY_001", table="dm", as_of="2026-01-05")
    assert metadata["nrow"] == 2
    assert act(client, options, "datom.parents", project="STUDY_001", table="dm") == [{"parents": None}]
    assert act(client, options, "datom.lineage", project="STUDY_001", table="dm") == [{"lineage": None}]
    (summary,) = act(client, options, "datom.summary", project="STUDY_001")
    assert (summary["tables"], summary["versions"], summary["role"]) == (5, 6, "reader")
    assert all(finding["ok"] for finding in act(client, options, "datom.validate", project="STUDY_001", table="dm"))


@pytest.mark.parametrize("action", ["datom.tables", "datom.history"])
def test_listings_come_packed_for_who_says_so_and_are_the_same(
    server: Server, client: flight.FlightClient, action: str
) -> None:
    body = {"project": "STUDY_001", **({"table": "dm"} if action == "datom.history" else {})}
    rows = act(client, server.call_options(), action, **body)
    assert len(rows) > 1
    assert act(client, server.call_options(headers={"x-datom-results": "packed"}), action, **body) == [{"rows": rows}]
    assert act(client, server.call_options(headers={"x-datom-results": "other"}), action, **body) == rows


def test_only_listings_are_packed(server: Server, client: flight.FlightClient) -> None:
    packing = server.call_options(headers={"x-datom-results": "packed"})
    [who] = act(client, packing, "datom.whoami")
    assert who["principal"] == "ann"


def test_a_session_is_narrower_and_never_wider(server: Server, client: flight.FlightClient) -> None:
    developer = server.call_options(server.token("developer", "STUDY_001"))
    (session,) = act(client, developer, "datom.session", role="reader")
    assert session["expires"].startswith("20")
    narrowed = server.call_options(session["token"])
    assert act(client, narrowed, "datom.whoami") == [{"principal": "ann", "role": "reader", "projects": ["STUDY_001"]}]
    for options, role in ((narrowed, "developer"), (developer, "admin")):
        with pytest.raises(flight.FlightUnauthorizedError) as refusal:
            act(client, options, "datom.session", role=role)
        assert code_of(refusal.value) == "permission_denied"


# Refusals


def put(client: flight.FlightClient, options: flight.FlightCallOptions, **fields: Any) -> None:
    writer, reader = client.do_put(command(**fields), DM.schema, options)
    with writer:
        writer.write_table(DM)
        writer.done_writing()
        reader.read()


def test_a_reader_may_not_write(server: Server, client: flight.FlightClient) -> None:
    with pytest.raises(flight.FlightUnauthorizedError) as refusal:
        put(client, server.call_options(), table="dm", message="mine now")
    assert code_of(refusal.value) == "permission_denied"
    hidden = server.call_options(server.token("reader", "OTHER"))
    with pytest.raises(flight.FlightError) as refusal:
        put(client, hidden, table="dm")
    assert code_of(refusal.value) == "not_found"


def test_errors_carry_their_code_and_the_request_s_id(server: Server, client: flight.FlightClient) -> None:
    with pytest.raises(flight.FlightServerError) as refusal:
        client.get_flight_info(command(table="nope"), server.call_options())
    error = DatomError.from_json(refusal.value.extra_info)
    assert error is not None
    assert error.code == "not_found"
    assert error.request_id
    assert error.request_id in str(refusal.value)


def test_without_a_token_nothing_is_answered(server: Server, client: flight.FlightClient) -> None:
    for call in (
        lambda: client.get_flight_info(command(table="dm")),
        lambda: client.do_get(ticket(table="dm")).read_all(),
        lambda: list(client.list_flights()),
        lambda: list(client.do_action(flight.Action("datom.whoami", b"{}"))),
        lambda: client.list_actions(),
    ):
        with pytest.raises(flight.FlightUnauthenticatedError) as refusal:
            call()
        assert code_of(refusal.value) == "unauthenticated"


# Handshake


def test_a_handshake_with_the_token_as_password_gives_a_bearer(server: Server, client: flight.FlightClient) -> None:
    name, value = client.authenticate_basic_token("anyone", server.token())
    options = flight.FlightCallOptions(timeout=30, headers=[(name, value)])
    assert act(client, options, "datom.whoami")[0]["principal"] == "ann"
    with pytest.raises(flight.FlightUnauthenticatedError):
        client.authenticate_basic_token("anyone", "not a token")


@pytest.mark.parametrize("padding", ["padded", "unpadded"])
def test_a_handshake_is_understood_with_and_without_base64_padding(server: Server, padding: str) -> None:
    for user in ("a", "ab", "abc", ""):
        basic = base64.b64encode(f"{user}:{server.token()}".encode()).decode()
        basic = basic.rstrip("=") if padding == "unpadded" else basic
        with grpc.insecure_channel(server.url.removeprefix("grpc://")) as channel:
            call = channel.stream_stream("/arrow.flight.protocol.FlightService/Handshake")(
                iter([b""]), metadata=[("authorization", f"Basic {basic}")], timeout=30
            )
            headers = dict(call.initial_metadata())
            list(call)
        assert headers["authorization"].startswith("Bearer ")


# Replicas, TLS, callers without a token


def test_a_ticket_gives_the_same_rows_on_another_replica(
    server: Server, projects: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    with running(write_config(tmp_path, projects)) as other, server.raw() as first, other.raw() as second:
        options = server.call_options()
        for endpoint in first.get_flight_info(command(table="narrow"), options).endpoints:
            expected = first.do_get(endpoint.ticket, options).read_all()
            assert second.do_get(endpoint.ticket, options).read_all().equals(expected)


def test_tls_is_spoken_where_the_address_says_so(projects: dict[str, dict[str, str]], tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path / "tls")
    listen = {"listen": "grpc+tls://127.0.0.1:0", "certificate": str(certificate), "key": str(key)}
    config = write_config(tmp_path / "server", projects, server=listen)
    with running(config, tls_root_certs=certificate.read_bytes()) as server:
        assert server.url.startswith("grpc+tls://")
        with server.connect("STUDY_001") as connection:
            assert connection.read("dm").equals(DM)
        with pytest.raises(DatomError) as refusal:
            datom_flight.connect(server.url, "STUDY_001", token=server.token(), timeout=5)
        assert refusal.value.code in ("unavailable", "timeout")


def test_anonymous_callers_read_where_the_settings_let_them_and_a_bad_token_is_still_bad(
    projects: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    config = write_config(tmp_path / "server", projects, auth={"anonymous": "reader"})
    with running(config) as server, server.raw() as client:
        assert client.do_get(ticket(table="dm")).read_all().equals(DM)
        with pytest.raises(flight.FlightUnauthorizedError):
            put(client, flight.FlightCallOptions(timeout=30), table="dm")
        bad = flight.FlightCallOptions(timeout=30, headers=[(b"authorization", b"Bearer nonsense")])
        with pytest.raises(flight.FlightUnauthenticatedError) as refusal:
            client.do_get(ticket(table="dm"), bad).read_all()
        assert code_of(refusal.value) == "unauthenticated"
