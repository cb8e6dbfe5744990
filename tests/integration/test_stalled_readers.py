"""Readers that are connected and fetch nothing: they stop nobody else, and not the server's end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl
import pytest

from support.server import Server, await_condition, running, write_config
from support.stores import write_store
from support.writable import command, empty_place

READERS = 100
ROWS = 5_000_000
MORE_ROWS = 20_000_000
"""More than our own client fetches ahead, and gRPC holds on a busy machine."""
GRACE_SECONDS = 2
ENDING_SECONDS = 15
"""For a machine that has much else to do."""

TICKET = fl.Ticket(json.dumps({"project": "STUDY_001", "table": "lb"}))
OF_ITS_OWN = [("grpc.use_local_subchannel_pool", 1)]
"""Clients of one process would share a connection otherwise."""


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pa.table({"X": np.random.default_rng(20261123).random(ROWS)})


@pytest.fixture(scope="module")
def project(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    store = tmp_path_factory.mktemp("stalled") / "store"
    more = pa.table({"X": np.arange(MORE_ROWS)})
    write_store(store, {"lb": [table], "more": [more], "dm": [table.slice(0, 10)]}, row_group_size=MORE_ROWS)
    return {"STUDY_001": {"data": f"file://{store}"}}


@contextmanager
def stalled(server: Server) -> Iterator[fl.FlightStreamReader]:
    """A reader, on a connection of its own, that has the first rows of much more than any buffer on the way holds."""
    with fl.FlightClient(server.url, generic_options=OF_ITS_OWN) as client:
        reader = client.do_get(TICKET, server.call_options(seconds=120))
        assert reader.read_chunk().data.num_rows
        yield reader


def test_a_hundred_stalled_readers_stop_nobody_else_and_not_the_end(
    project: dict[str, dict[str, str]], table: pa.Table, tmp_path: Path
) -> None:
    config = write_config(tmp_path, project, server={"shutdown_grace_seconds": GRACE_SECONDS})
    with running(config) as server, ExitStack() as readers:
        server.token()
        for _ in range(READERS):
            readers.enter_context(stalled(server))
        with server.connect("STUDY_001") as connection:
            assert connection.read("dm").equals(table.slice(0, 10))
            assert connection.read("lb").equals(table)
            assert connection.sql("SELECT count(*) AS n FROM lb WHERE X >= 0")["n"].to_pylist() == [ROWS]
        began = time.monotonic()
        assert server.stop() == 0
        assert GRACE_SECONDS <= time.monotonic() - began < GRACE_SECONDS + ENDING_SECONDS
        assert "streams were still running at the end of the grace period, and were cut" in server.log


def test_a_stalled_reader_is_cut_after_a_while_and_goes_on_where_it_was(
    project: dict[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datom_flight.parts._AHEAD_BYTES", 0)
    config = write_config(tmp_path, project, limits={"idle_seconds": 1})
    with running(config) as server, stalled(server) as plain, server.connect("STUDY_001") as connection:
        rows = connection.scan("more")
        first = rows.read_next_batch()
        await_condition(lambda: server.log.count(" timeout ") == 2, 30, "the server has let go of both")
        with pytest.raises(fl.FlightUnavailableError):
            plain.read_all()
        assert np.array_equal(pa.Table.from_batches([first, *rows])["X"].to_numpy(), np.arange(MORE_ROWS))


def test_stalled_readers_make_room_for_those_who_wait(
    project: dict[str, dict[str, str]], table: pa.Table, tmp_path: Path
) -> None:
    config = write_config(tmp_path, project, limits={"max_streams": 2, "idle_seconds": 2})
    with running(config) as server, stalled(server), stalled(server), server.connect("STUDY_001") as connection:
        assert connection.read("lb").equals(table)


def test_admins_read_while_readers_have_filled_the_house(project: dict[str, dict[str, str]], tmp_path: Path) -> None:
    full = {"max_streams": 1, "queue_seconds": 0}
    with running(write_config(tmp_path, project, limits=full)) as server, stalled(server):
        admin = server.token("admin", principal="root")
        with server.connect("STUDY_001", token=admin) as connection:
            assert connection.read("dm").num_rows == 10
        with server.raw() as client, pytest.raises(fl.FlightUnavailableError) as refused:
            client.do_get(TICKET, server.call_options()).read_all()
        told = json.loads(refused.value.extra_info)
        assert told["code"] == "overloaded"
        assert told["fields"] == {"limit": "limits.max_streams", "value": 1, "retry_after_seconds": 1.0}


def test_a_stalled_writer_leaves_its_place_to_others(tmp_path: Path) -> None:
    place = empty_place(tmp_path / "place", "STUDY_001")
    limits = {"limits": {"idle_seconds": 1}, "writes": {"max_concurrent": 1}}
    config = write_config(tmp_path / "server", {place.project: place.settings}, **limits)
    rows = pa.table({"X": [1, 2, 3]})
    with running(config) as server, fl.FlightClient(server.url, generic_options=OF_ITS_OWN) as client:
        token = server.token("developer")
        writer, _ = client.do_put(command(place.project, "stalled"), rows.schema, server.call_options(token, 120))
        writer.write_table(rows)
        with server.connect(place.project, token=token) as connection:
            assert connection.write("dm", rows).action == "full"
            assert [row.name for row in connection.tables()] == ["dm"]
        with pytest.raises(fl.FlightUnavailableError):
            writer.close()
