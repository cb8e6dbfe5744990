"""A server that stops, or is killed, while queries run: they end with it, and nothing of them is left."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from support.answers import assert_reveals_nothing, code_of
from support.server import Server, await_condition, running, write_config
from support.stores import write_store

ENDLESS = "SELECT sum(hash(a.range * b.range)) AS x FROM range(100000) a, range(100000) b, range(100000) c"
LONG = "SELECT range AS x FROM range(400000000)"
PATIENCE = 60
GRACE_SECONDS = 2
ENDING_SECONDS = 15
"""After the grace period, on a busy machine."""

DM = pa.table({"USUBJID": ["01-001", "01-002", "01-003"], "AGE": pa.array([71, 64, 58], pa.int32())})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_store(tmp_path / "store", {"dm": [DM]})
    limits = {"memory_bytes": "256MB", "threads": 1}
    return write_config(tmp_path / "server", {"STUDY_001": {"data": f"file://{tmp_path / 'store'}"}}, sql=limits)


@pytest.fixture
def server(config: Path) -> Iterator[Server]:
    with running(config) as server:
        yield server


def ask(server: Server, query: str) -> tuple[fl.FlightClient, fl.FlightStreamReader]:
    """The stream of a query's rows, of which none was fetched yet."""
    client = server.raw()
    options = server.call_options(seconds=PATIENCE)
    descriptor = fl.FlightDescriptor.for_command(json.dumps({"project": "STUDY_001", "sql": query}))
    info = client.get_flight_info(descriptor, options)
    return client, client.do_get(info.endpoints[0].ticket, options)


def rows(server: Server, query: str) -> list[Any]:
    client, stream = ask(server, query)
    with client:
        return list(stream.read_all().column(0).to_pylist())


def stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["gone"]


def workers(server: Server) -> list[int]:
    """The processes that run its queries."""
    found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in found if stat(pid)[1:2] == [str(server.pid)]]


def computing(pid: int) -> bool:
    """Whether it has computed for longer than it takes to start."""
    return sum(map(int, stat(pid)[11:13])) / os.sysconf("SC_CLK_TCK") > 1.5


def ended(pid: int) -> bool:
    return stat(pid)[0] in ("gone", "Z")


def folders(config: Path) -> list[Path]:
    """What there is of queries in the cache."""
    return list((config.parent / "cache" / "queries").iterdir())


def assert_gone(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        await_condition(partial(ended, pid), PATIENCE, f"process {pid} has ended")


def test_a_query_under_way_ends_before_its_server_does(config: Path) -> None:
    with running(config) as server:
        client, stream = ask(server, "SELECT range AS x FROM range(3000000)")
        fetched = stream.read_chunk().data.num_rows
        os.kill(server.pid, signal.SIGTERM)
        fetched += stream.read_all().num_rows
        client.close()
        assert server.ended() == 0
    assert fetched == 3_000_000
    assert folders(config) == []


def test_a_server_stops_in_time_whatever_its_queries_do(config: Path) -> None:
    with running(config) as server, ThreadPoolExecutor(1) as pool:
        assert rows(server, "SELECT 1 AS x") == [1]
        # one computes and gives nothing, one is given to a reader who does not fetch
        computes = pool.submit(rows, server, ENDLESS)
        await_condition(lambda: any(map(computing, workers(server))), PATIENCE, "the query computes")
        client, stalled = ask(server, LONG)
        stalled.read_chunk()
        pids = workers(server)
        assert len(pids) == 2
        began = time.monotonic()
        assert server.stop() == 0
        assert GRACE_SECONDS <= time.monotonic() - began < GRACE_SECONDS + ENDING_SECONDS
        error = computes.exception(PATIENCE)
        assert isinstance(error, fl.FlightUnavailableError)
        assert code_of(error) == "unavailable"
        assert_reveals_nothing(str(error), server)
        client.close()
    assert_gone(pids)
    assert folders(config) == []


def test_a_killed_server_leaves_no_process_and_the_next_one_no_folder(config: Path) -> None:
    with running(config) as server, ThreadPoolExecutor(1) as pool:
        computes = pool.submit(rows, server, ENDLESS)
        await_condition(lambda: any(map(computing, workers(server))), PATIENCE, "the query computes")
        client, stalled = ask(server, LONG)
        stalled.read_chunk()
        pids = workers(server)
        os.kill(server.pid, signal.SIGKILL)
        assert isinstance(computes.exception(PATIENCE), fl.FlightError)
        client.close()
        server.stop()
    assert_gone(pids)
    left = folders(config)
    assert left, "nobody removed them yet"
    with running(config) as server:
        assert rows(server, "SELECT max(AGE) AS x FROM dm") == [71]
        assert not set(left) & set(folders(config))


def test_a_query_whose_process_is_killed_is_refused_and_the_next_one_runs(server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        computes = pool.submit(rows, server, ENDLESS)
        await_condition(lambda: any(map(computing, workers(server))), PATIENCE, "the query computes")
        for pid in filter(computing, workers(server)):
            os.kill(pid, signal.SIGKILL)
        error = computes.exception(PATIENCE)
    assert isinstance(error, fl.FlightError)
    assert code_of(error) == "too_large"
    assert_reveals_nothing(str(error), server)
    assert rows(server, "SELECT max(AGE) AS x FROM dm") == [71]


def test_a_caller_who_gives_up_on_a_plan_leaves_the_turn(tmp_path: Path) -> None:
    store = {"STUDY_001": {"data": f"file://{tmp_path / 'store'}"}}
    write_store(tmp_path / "store", {"dm": [DM]})
    # what is constant is computed when the query is planned, and this takes hours
    constant = "SELECT levenshtein(repeat('a', 5000000), repeat('b', 5000000)) AS x"
    config = write_config(tmp_path / "server", store, sql={"max_concurrent": 1, "queue_seconds": PATIENCE})
    with running(config) as server, server.raw() as client:
        assert rows(server, "SELECT 1 AS x") == [1]
        descriptor = fl.FlightDescriptor.for_command(json.dumps({"project": "STUDY_001", "sql": constant}))
        with pytest.raises(fl.FlightTimedOutError):
            client.get_flight_info(descriptor, server.call_options(seconds=1))
        assert rows(server, "SELECT max(AGE) AS x FROM dm") == [71]
