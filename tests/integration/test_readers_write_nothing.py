"""A reader's write, by whatever door it comes: refused, with neither git nor storage changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from datom_flight.protocol.errors import DatomError
from support.adbc import adbc
from support.answers import code_of
from support.server import Server, run_command, running, write_config
from support.writable import Place, command, empty_place, put

PROJECT = "STUDY_READ"
TABLE = pa.table({"x": [1, 2, 3]})
MORE = pa.table({"x": [4]})

Door = Callable[[Server, str, Path], str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return empty_place(tmp_path_factory.mktemp("place"), PROJECT)


@pytest.fixture(scope="module")
def server(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    auth = {"anonymous": "reader", "secret": "file:secret"}
    with running(write_config(tmp_path_factory.mktemp("server"), {PROJECT: place.settings}, auth=auth)) as server:
        with server.connect(PROJECT, token=server.token("developer")) as conn:
            conn.write("dm", TABLE)
        yield server


def refused(call: Callable[[], Any]) -> str:
    """The code of the error that `call` ends with."""
    try:
        answer = call()
    except DatomError as error:
        return error.code
    except (fl.FlightError, pa.ArrowException) as error:
        return code_of(error)
    raise AssertionError(f"it was not refused: {answer}")


def by_command(server: Server, token: str, folder: Path, *arguments: str) -> str:
    result = run_command(
        "datom-flight",
        *arguments,
        home=folder,
        DATOM_FLIGHT_URL=server.url,
        DATOM_FLIGHT_TOKEN=token,
        DATOM_FLIGHT_PROJECT=PROJECT,
    )
    assert result.returncode == 1, result
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1].removeprefix("error: ").split(":")[0]


def members(server: Server) -> list[dict[str, Any]]:
    """What a set of the project's one table would have."""
    with server.connect(PROJECT) as conn:
        version = conn.history("dm")[0].version
    return [{"id": {"project": PROJECT, "name": "dm", "kind": "table", "version": version}}]


def json_descriptor(server: Server, token: str, folder: Path) -> str:
    return refused(lambda: put(server, command(PROJECT, "dm"), MORE, token))


def path_descriptor(server: Server, token: str, folder: Path) -> str:
    return refused(lambda: put(server, fl.FlightDescriptor.for_path(PROJECT, "dm"), MORE, token))


def new_table(server: Server, token: str, folder: Path) -> str:
    return refused(lambda: put(server, command(PROJECT, "ae"), MORE, token))


def the_content_it_has(server: Server, token: str, folder: Path) -> str:
    return refused(lambda: put(server, command(PROJECT, "dm"), TABLE, token))


def action(server: Server, token: str, folder: Path) -> str:
    body = {"project": PROJECT, "table": "cut", "members": members(server)}
    with server.raw() as client:
        asked = fl.Action("datom.write_set", json.dumps(body).encode())
        return refused(lambda: list(client.do_action(asked, server.call_options(token))))


def library(server: Server, token: str, folder: Path) -> str:
    with server.connect(PROJECT, token=token) as conn:
        codes = {
            refused(lambda: conn.write("dm", MORE)),
            refused(lambda: conn.write_imported("dm", MORE, file_sha="0" * 64, file_format="csv")),
            refused(lambda: conn.write_set("cut", members(server))),
        }
    return codes.pop() if len(codes) == 1 else str(codes)


def narrowed(server: Server, token: str, folder: Path) -> str:
    with server.connect(PROJECT, token=server.token("developer"), role="reader") as conn:
        return refused(lambda: conn.write("dm", MORE))


def anonymous(server: Server, token: str, folder: Path) -> str:
    with server.raw() as client:
        writer, answers = client.do_put(command(PROJECT, "dm"), MORE.schema, fl.FlightCallOptions(timeout=30))

        def write() -> Any:
            writer.write_table(MORE)
            writer.done_writing()
            answers.read()
            writer.close()

        return refused(write)


def write_command(server: Server, token: str, folder: Path) -> str:
    (folder / "dm.csv").write_text("x\n4\n")
    return by_command(server, token, folder, "write", "dm", str(folder / "dm.csv"))


def write_set_command(server: Server, token: str, folder: Path) -> str:
    (folder / "cut.json").write_text(json.dumps({"members": members(server)}))
    return by_command(server, token, folder, "write-set", "cut", str(folder / "cut.json"))


def ingest(server: Server, token: str, folder: Path) -> str:
    codes = set()
    with adbc(server, token, autocommit=True) as connection, connection.cursor() as cursor:
        for mode in ("create", "append", "replace", "create_append"):
            with pytest.raises(Exception) as caught:
                cursor.adbc_ingest("ae" if mode == "create" else "dm", MORE, mode=mode)
            codes.add(next(code for code in ("permission_denied", str(caught.value)) if code in str(caught.value)))
    return codes.pop() if len(codes) == 1 else str(codes)


DOORS: list[Door] = [
    json_descriptor,
    path_descriptor,
    new_table,
    the_content_it_has,
    action,
    library,
    narrowed,
    anonymous,
    write_command,
    write_set_command,
    ingest,
]


@pytest.mark.parametrize("door", DOORS, ids=[door.__name__ for door in DOORS])
def test_a_reader_writes_nothing(server: Server, place: Place, tmp_path: Path, door: Door) -> None:
    before = place.state
    assert door(server, server.token("reader"), tmp_path) == "permission_denied"
    assert place.state == before
    assert list((server.config.parent / "cache" / "spool").iterdir()) == []


def test_syncing_a_folder_as_a_reader_writes_nothing(server: Server, place: Place, tmp_path: Path) -> None:
    (tmp_path / "extracts").mkdir()
    (tmp_path / "extracts" / "vs.csv").write_text("x\n4\n")
    before = place.state
    result = run_command(
        "datom-flight",
        "sync",
        str(tmp_path / "extracts"),
        "--yes",
        home=tmp_path,
        DATOM_FLIGHT_URL=server.url,
        DATOM_FLIGHT_TOKEN=server.token("reader"),
        DATOM_FLIGHT_PROJECT=PROJECT,
    )
    assert result.returncode == 1
    assert "permission_denied" in result.stdout + result.stderr
    assert place.state == before


def test_a_developer_of_another_project_does_not_learn_that_this_one_exists(
    server: Server, place: Place, tmp_path: Path
) -> None:
    before = place.state
    assert json_descriptor(server, server.token("developer", "OTHER"), tmp_path) == "not_found"
    assert place.state == before
