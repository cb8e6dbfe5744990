"""Every damaged store is answered as R and its readers agreed it should be, and the server lives on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

import datom_flight
from datom_flight import DatomError
from support.answers import assert_reveals_nothing
from support.expected import FIXTURES
from support.s3 import S3Server
from support.server import Server, running, write_config

BAD = FIXTURES / "bad"
CASES = [
    json.loads((BAD / row["id"] / "expect.json").read_text()) for row in json.loads((BAD / "index.json").read_text())
]
# Members name their project, so these are served one at a time, under the name that the set records.
BY_MEMBER = [case for case in CASES if case["op"] == "fetch_member"]
BY_NAME = [case for case in CASES if case["op"] != "fetch_member"]

Connection = datom_flight.Connection
Arguments = Mapping[str, Any]


def project_of(case: Mapping[str, Any]) -> str:
    return f"BAD_{case['id']}".replace("-", "_")


@pytest.fixture(scope="module", params=["local", "s3"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("damaged")
    if request.param == "local":
        projects = {project_of(case): {"data": f"file://{BAD / case['id'] / 'storage'}"} for case in BY_NAME}
    else:
        projects = {project_of(case): _on_s3(request.getfixturevalue("s3"), case["id"]) for case in BY_NAME}
    with running(write_config(folder, projects)) as server:
        yield server


def _on_s3(s3: S3Server, case_id: str) -> dict[str, str]:
    storage = BAD / case_id / "storage"
    if not storage.exists():
        return s3.settings("no-such-bucket", "")
    s3.upload(storage, "damaged", case_id)
    return s3.settings("damaged", case_id)


def _read(connection: Connection, arguments: Arguments) -> dict[str, Any]:
    table = connection.read(arguments["name"], arguments.get("version"))
    return {"nrow": table.num_rows, "data_sha": table.schema.metadata[b"datom.data_sha"].decode()}


def _get_set(connection: Connection, arguments: Arguments) -> dict[str, Any]:
    return {"members": len(connection.set(arguments["name"]).members)}


def _list(connection: Connection, arguments: Arguments) -> dict[str, Any]:
    return {"names": [row.name for row in connection.tables() if row.kind == "table"]}


def _history(connection: Connection, arguments: Arguments) -> dict[str, Any]:
    return {"versions": len(connection.history(arguments["name"]))}


def _connect(connection: Connection, arguments: Arguments) -> dict[str, Any]:
    return {"tables": len(connection.tables())}


def _fetch_member(connection: Connection, arguments: Arguments) -> dict[str, Any]:
    members = connection.set(arguments["set"])
    member = connection.read_member(members, arguments["name"], tags=arguments.get("tags"))
    assert isinstance(member, pa.Table)
    return {"nrow": member.num_rows}


OPERATIONS: Mapping[str, Callable[[Connection, Arguments], dict[str, Any]]] = {
    "read": _read,
    "get_set": _get_set,
    "list": _list,
    "history": _history,
    "connect": _connect,
    "fetch_member": _fetch_member,
}


def assert_answered_as_expected(server: Server, project: str, case: Mapping[str, Any]) -> None:
    expected = case["expect"]
    operation = OPERATIONS[case["op"]]
    with server.connect(project) as connection:
        if "error" in expected:
            with pytest.raises(DatomError) as refusal:
                operation(connection, case["args"])
            assert refusal.value.code == expected["error"]
            assert_reveals_nothing(str(refusal.value), server)
        else:
            told = pytest.warns(datom_flight.DatomWarning) if "warning" in expected["ok"] else contextlib.nullcontext()
            with told:
                answer = operation(connection, case["args"])
            assert {key: answer[key] for key in expected["ok"] if key != "warning"} == {
                key: value for key, value in expected["ok"].items() if key != "warning"
            }
            if "warning" in expected["ok"]:
                assert expected["ok"]["warning"] in _warnings(server, project, case["args"]["name"])
        assert connection.whoami().role == "reader"
    assert server.alive


def _warnings(server: Server, project: str, table: str) -> list[str]:
    descriptor = flight.FlightDescriptor.for_path(project, table)
    with server.raw() as client:
        info = client.get_flight_info(descriptor, server.call_options())
    warnings: list[str] = json.loads(info.app_metadata)["warnings"]
    return warnings


@pytest.mark.parametrize("case", BY_NAME, ids=lambda case: case["id"])
def test_a_damaged_store_is_answered_as_expected(server: Server, case: Mapping[str, Any]) -> None:
    assert_answered_as_expected(server, project_of(case), case)


@pytest.mark.parametrize("case", BY_MEMBER, ids=lambda case: case["id"])
def test_a_set_with_doubtful_members_is_answered_as_expected(
    case: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = f"file://{BAD / case['id'] / 'storage'}"
    with running(write_config(tmp_path_factory.mktemp("member"), {case["project"]: {"data": data}})) as server:
        assert_answered_as_expected(server, case["project"], case)


def test_bytes_that_are_not_verified_say_so(server: Server) -> None:
    with server.raw() as client:
        for case, verified in (("00-good", True), ("30-parquet-sha-absent", False), ("31-parquet-sha-empty", False)):
            descriptor = flight.FlightDescriptor.for_path(project_of({"id": case}), "t")
            info = client.get_flight_info(descriptor, server.call_options())
            assert json.loads(info.app_metadata).get("verified", True) is verified


def test_a_good_store_reads_while_all_its_neighbours_are_damaged(server: Server) -> None:
    with server.connect(project_of({"id": "00-good"})) as connection:
        assert connection.read("t").num_rows == 4
        assert not [finding for finding in connection.validate() if not finding.ok]
