"""The processes that run queries: what they may take, how they end, and what is left of them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.model import Principal, Role
from datom_flight_server.sql.engine import Engine
from datom_flight_server.sql.turns import EngineLimits, Job
from support.server import await_condition

LIMITS = EngineLimits(memory_bytes=128 * 2**20, spill_bytes=32 * 2**20, threads=1, seconds=60, queue_seconds=60)
ENDLESS = "SELECT sum(hash(a.range * b.range)) FROM range(100000) a, range(100000) b, range(100000) c"
PATIENCE = 60
ANN, BEN, CAY = Principal("ann", Role.READER), Principal("ben", Role.DEVELOPER), Principal("cay", Role.READER)

Make = Callable[..., Engine]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Engines in one directory, closed afterwards."""
    engines: list[Engine] = []

    def make(**limits: Any) -> Engine:
        engines.append(Engine(tmp_path, replace(LIMITS, **limits)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with small limits, for what leaves it as it was."""
    limits = replace(LIMITS, result_rows=1_000_000, result_bytes=64 * 2**20)
    engine = Engine(tmp_path_factory.mktemp("shared"), limits)
    yield engine
    engine.close()


def batches(engine: Engine, query: str, caller: Principal = ANN, cancelled: Callable[[], bool] = lambda: False) -> Any:
    return engine.batches(Job(query), caller, cancelled)


def values(engine: Engine, query: str, caller: Principal = ANN) -> list[Any]:
    """The values of the one column that `query` gives."""
    return [value for batch in batches(engine, query, caller) for value in batch.column(0).to_pylist()]


def refusal(engine: Engine, query: str, caller: Principal = ANN) -> DatomError:
    with pytest.raises(DatomError) as caught:
        for _ in batches(engine, query, caller):
            pass
    return caught.value


def workers() -> list[int]:
    """The processes that this one has started and that run queries."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if stat(int(name))[1] == str(os.getpid()) and "datom_flight_server.sql.worker" in _command(int(name)):
                    found.append(int(name))
            except OSError:
                continue
    return found


def stat(pid: int) -> list[str]:
    """What the system tells of a process: its state, its parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def worker_of(tmp_path: Path) -> int:
    """The one process of the engine in this directory."""
    (found,) = [pid for pid in workers() if f"{tmp_path}/" in _command(pid)]
    return found


def computing(pid: int) -> bool:
    """Whether the process has computed for a while since it was ready."""
    ticks = sum(int(field) for field in stat(pid)[11:13])
    return ticks / os.sysconf("SC_CLK_TCK") > 1.2


def resident_bytes(pid: int, key: str = "VmRSS") -> int:
    """Its memory now, or at its most."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    ("query", "limit", "told"),
    [
        ("SELECT range FROM range(1000001)", "sql.max_rows", "1000000 rows"),
        ("SELECT repeat('x', 1000000) FROM range(100)", "sql.max_bytes", "67108864 bytes"),
        ("SELECT list(range) FROM range(100000000)", "sql.memory_bytes", "134217728 bytes of memory"),
        ("SELECT range, hash(range) AS h FROM range(200000000) ORDER BY h", "sql.memory_bytes", "bytes of memory"),
        ("SELECT 'x'::INTEGER", None, "Could not convert string 'x' to INT32"),
    ],
)
def test_a_query_ends_at_its_limit_and_the_next_one_runs(
    shared: Engine, query: str, limit: str | None, told: str
) -> None:
    error = refusal(shared, query)
    assert (error.code, error.fields.get("limit")) == ("sql_error" if limit is None else "too_large", limit)
    assert str(error.fields.get("value", "")) in error.message
    assert told in error.message
    assert values(shared, "SELECT 1") == [1]


def test_a_query_that_computes_for_ever_ends_at_its_limit_and_the_next_one_runs(make: Make, tmp_path: Path) -> None:
    engine = make(seconds=1)
    assert values(engine, "SELECT 1") == [1]
    pid = worker_of(tmp_path)
    error = refusal(engine, ENDLESS)
    assert (error.code, error.message) == ("timeout", "the query was still computing after 1 seconds")
    assert error.fields == {"limit": "sql.max_seconds", "value": 1}
    assert values(engine, "SELECT 1") == [1]
    assert worker_of(tmp_path) == pid, "it was interrupted, not killed"


def test_wide_rows_come_in_batches_of_a_few_mebibytes(make: Make) -> None:
    engine = make()
    sizes = [batch.nbytes for batch in batches(engine, "SELECT repeat('x', 100000) AS x FROM range(500)")]
    assert max(sizes) < 4.1 * 2**20
    assert sum(sizes) > 500 * 100_000
    (wide,) = batches(engine, "SELECT repeat('x', 20000000) AS x")
    assert wide.nbytes > 20_000_000


def test_a_row_that_no_server_would_hold_is_refused(make: Make) -> None:
    engine = make(memory_bytes=2**29)
    error = refusal(engine, "SELECT repeat('x', 70000000)")
    assert error.code == "too_large"
    assert "a row of the result has 7000" in error.message


def test_an_admin_has_a_turn_when_readers_have_all(make: Make) -> None:
    engine = make(concurrent=1, queue_seconds=0.3)
    running = batches(engine, "SELECT range FROM range(10000000)")
    next(running)
    assert refusal(engine, "SELECT 1", BEN).code == "overloaded"
    assert values(engine, "SELECT 1", Principal("ida", Role.ADMIN)) == [1]
    running.close()


def test_one_more_query_than_there_are_turns_waits_and_is_then_refused(make: Make) -> None:
    engine = make(concurrent=2, concurrent_each=1, queue_seconds=0.3)
    running = batches(engine, "SELECT range FROM range(10000000)")
    next(running)
    assert (refused := refusal(engine, "SELECT 1")).code == "overloaded"
    assert '1 queries of "ann" run already' in refused.message
    assert refused.fields == {"limit": "sql.max_concurrent_each", "value": 1, "retry_after_seconds": 1.0}
    assert values(engine, "SELECT 1", BEN) == [1]
    other = batches(engine, "SELECT range FROM range(10000000)", BEN)
    next(other)
    assert "2 queries run already" in refusal(engine, "SELECT 1", CAY).message
    running.close()
    assert values(engine, "SELECT 1", CAY) == [1]
    other.close()


def test_a_reader_that_fetches_nothing_loses_its_turn_to_one_that_waits(make: Make) -> None:
    engine = make(concurrent=1, stalled_seconds=0.2)
    stalled = batches(engine, "SELECT range FROM range(100000000)")
    next(stalled)
    assert values(engine, "SELECT 1", BEN) == [1]
    with pytest.raises(DatomError, match="no rows were fetched") as caught:
        list(stalled)
    assert caught.value.code == "timeout"


def test_a_caller_who_went_away_leaves_the_turn_and_the_process(make: Make, tmp_path: Path) -> None:
    engine = make(concurrent=1)
    assert values(engine, "SELECT 1") == [1]
    pid = worker_of(tmp_path)
    with pytest.raises(DatomError) as caught:
        list(batches(engine, ENDLESS, cancelled=lambda: computing(pid)))
    assert caught.value.code == "cancelled"
    assert values(engine, "SELECT 1") == [1]
    assert worker_of(tmp_path) == pid


def test_a_process_killed_between_queries_is_replaced(make: Make, tmp_path: Path) -> None:
    engine = make()
    assert values(engine, "SELECT 1") == [1]
    killed = worker_of(tmp_path)
    os.kill(killed, signal.SIGKILL)
    assert os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT), "it has ended, with all its threads"
    assert values(engine, "SELECT 2") == [2]
    assert worker_of(tmp_path) != killed


def test_a_process_killed_in_a_query_ends_that_query_alone(make: Make, tmp_path: Path) -> None:
    engine = make()
    assert values(engine, "SELECT 1") == [1]
    pid = worker_of(tmp_path)

    def kill() -> bool:
        if computing(pid):
            os.kill(pid, signal.SIGKILL)
        return False

    with pytest.raises(DatomError, match="ended its process") as caught:
        list(batches(engine, ENDLESS, cancelled=kill))
    assert caught.value.code == "too_large"
    assert values(engine, "SELECT 2") == [2]
    assert worker_of(tmp_path) != pid


def test_signals_to_stop_do_not_reach_a_query_before_its_server_ends_it(make: Make, tmp_path: Path) -> None:
    engine = make()
    rows = batches(engine, "SELECT range FROM range(5000000)")
    next(rows)
    pid = worker_of(tmp_path)
    os.kill(pid, signal.SIGTERM)
    assert os.getsid(pid) != os.getsid(os.getpid()), "Ctrl-C goes to all processes of a session's foreground group"
    assert pa.Table.from_batches(rows).column(0)[-1].as_py() == 4_999_999


def test_closing_ends_queries_and_leaves_nothing(make: Make, tmp_path: Path) -> None:
    engine = make()
    started = threading.Event()

    def cancelled() -> bool:
        started.set()
        return False

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(lambda: list(batches(engine, ENDLESS, cancelled=cancelled)))
        assert started.wait(PATIENCE)
        pid = worker_of(tmp_path)
        engine.close()
        error = ended.exception(PATIENCE)
    assert isinstance(error, DatomError)
    assert error.code == "unavailable"
    assert "the server is stopping" in error.message
    assert not Path(f"/proc/{pid}").exists()
    assert list((tmp_path / "queries").iterdir()) == []
    assert refusal(engine, "SELECT 1").code == "unavailable"
    with pytest.raises(DatomError, match="the server is stopping"), engine.folder():
        pass


def test_closing_while_a_process_starts_leaves_nothing(make: Make, tmp_path: Path) -> None:
    before = set(workers())
    engine = make()
    engine.start()
    await_condition(lambda: set(workers()) - before, PATIENCE, "a process is started before it is asked for")
    engine.close()
    await_condition(lambda: not set(workers()) - before, PATIENCE, "it has ended")
    assert list((tmp_path / "queries").iterdir()) == []


def test_the_first_query_takes_the_process_that_was_started_for_it(make: Make, tmp_path: Path) -> None:
    engine = make(concurrent=1)
    engine.start()
    await_condition(lambda: str(tmp_path) in "".join(map(_command, workers())), PATIENCE, "a process is started")
    pid = worker_of(tmp_path)
    assert values(engine, "SELECT 1") == [1]
    assert worker_of(tmp_path) == pid


def test_memory_is_given_back_when_no_query_runs(make: Make, tmp_path: Path) -> None:
    engine = make(memory_bytes=2**29)
    assert values(engine, "SELECT 1") == [1]
    pid = worker_of(tmp_path)
    few, most = resident_bytes(pid), "SELECT count(*) FROM (FROM range(15000000) ORDER BY hash(range) LIMIT 14999999)"
    assert values(engine, most) == [14_999_999]
    assert resident_bytes(pid, "VmHWM") > few + 150 * 2**20
    await_condition(lambda: resident_bytes(pid) < few + 64 * 2**20, PATIENCE, "the memory is given back")
    assert worker_of(tmp_path) == pid


def test_what_a_killed_server_left_is_removed_by_the_next(make: Make, tmp_path: Path) -> None:
    left = tmp_path / "queries" / "queries-of-a-killed-server" / "process-1" / "files"
    left.mkdir(parents=True)
    (left / "1.parquet").write_bytes(b"x")
    first = make()
    with first.folder() as folder:
        second = make()
        assert not left.exists()
        assert folder.exists(), "of a server that runs, nothing is removed"
    first.close()
    assert values(second, "SELECT 1") == [1]


def test_a_process_has_nothing_of_the_server_s_environment(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of the environment")
    engine = make()
    assert values(engine, "SELECT 1") == [1]
    environment = Path(f"/proc/{worker_of(tmp_path)}/environ").read_bytes()
    assert b"ARROW_DEFAULT_MEMORY_POOL" in environment
    assert b"secret" not in environment.lower()


def test_an_error_names_no_folder_of_the_server(make: Make, tmp_path: Path) -> None:
    engine = make()
    with engine.folder() as folder:
        (folder / "1.parquet").write_bytes(b"PAR1, but not parquet")
        setup = (f"CREATE VIEW datom.main.t AS SELECT * FROM read_parquet('{folder}/1.parquet')",)
        with pytest.raises(DatomError) as caught:
            engine.schema(Job("SELECT * FROM datom.main.t", setup, folder), ANN)
    assert caught.value.code == "sql_error"
    assert str(tmp_path) not in str(caught.value)
    assert "1.parquet" in caught.value.message
