"""The parts of a table are fetched side by side, from the replicas named for them, and come in order."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as fl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datom_flight
from datom_flight import Connection, DatomError
from support.rows import rows
from support.server import await_condition
from support.tls import write_certificate
from support.wire_server import WireServer

REUSE = "arrow-flight-reuse-connection://?"
MIB = 1024 * 1024

Read = Callable[[Connection], pa.Table]
WAYS: list[Read] = [lambda conn: conn.read("dm"), lambda conn: conn.scan("dm").read_all()]
READS = pytest.mark.parametrize("read", WAYS, ids=["read", "scan"])


def gets(server: WireServer) -> int:
    return sum(method == "DoGet" for method, _ in server.calls)


def is_whole(table: pa.Table, count: int) -> bool:
    return bool(table["USUBJID"].to_pylist() == rows(count)["USUBJID"].to_pylist())


@pytest.fixture
def replicas() -> Iterator[list[WireServer]]:
    """Three servers of the same table, in four parts."""
    with WireServer(streams=4) as first, WireServer(streams=4) as second, WireServer(streams=4) as third:
        for server in (first, second, third):
            server.put("dm", rows(200))
        yield [first, second, third]


@pytest.fixture
def refused() -> Iterator[str]:
    """The URL of a server that is not there."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"grpc://127.0.0.1:{bound.getsockname()[1]}"


@READS
def test_a_part_that_stalls_keeps_no_other_waiting(read: Read) -> None:
    with WireServer(streams=2) as server, datom_flight.connect(server.url, token="") as conn:
        server.put("dm", rows(100))
        server.faults.stall_after = [1, None]
        with ThreadPoolExecutor(1) as pool:
            table = pool.submit(read, conn)
            await_condition(lambda: server.sent >= rows(60).nbytes, 10, "the second part is on its way")
            server.faults.release.set()
            assert is_whole(table.result(), 100)


def test_a_slow_user_of_a_scan_keeps_the_rows_from_coming() -> None:
    table = pa.table({"x": pa.array(["x" * MIB]).take(pa.array([0] * 3 * 128))})
    with WireServer(streams=3, batch_rows=1) as server, datom_flight.connect(server.url, token="") as conn:
        server.put("dm", table)
        reader = conn.scan("dm")
        taken = reader.read_next_batch().nbytes
        seen: list[int] = []

        def nothing_comes() -> bool:
            seen.append(server.sent)
            return len(seen) > 10 and seen[-1] == seen[-10]

        await_condition(nothing_comes, 20, "no more rows come")
        assert gets(server) == 2
        # Besides what may wait, each of two streams has a pull in hand, and what gRPC and the kernel hold.
        assert server.sent < (64 + 2 * 60) * MIB
        taken += sum(batch.nbytes for batch in reader)
        assert taken > table.num_rows * MIB


@READS
def test_each_part_comes_from_the_replica_named_first(replicas: list[WireServer], read: Read) -> None:
    first, second, third = replicas
    first.locations = [[second.url, REUSE], [third.url, second.url, REUSE]]
    with datom_flight.connect(first.url, token="") as conn:
        assert is_whole(read(conn), 200)
    assert [gets(server) for server in replicas] == [0, 2, 2]


@READS
def test_parts_come_from_the_next_replica_named_when_the_first_is_not_there(
    replicas: list[WireServer], refused: str, read: Read
) -> None:
    first, second, _ = replicas
    first.locations = [[refused, second.url, REUSE]]
    with datom_flight.connect(first.url, token="") as conn:
        assert is_whole(read(conn), 200)
    assert [gets(server) for server in replicas] == [0, 4, 0]


@READS
def test_parts_come_from_the_connections_own_server_when_no_replica_named_is_there(
    replicas: list[WireServer], refused: str, read: Read
) -> None:
    first, _, _ = replicas
    first.locations = [[refused]]
    with datom_flight.connect(first.url, token="") as conn:
        assert is_whole(read(conn), 200)
    assert [gets(server) for server in replicas] == [4, 0, 0]


@READS
def test_a_stream_that_breaks_goes_on_from_the_next_replica_where_it_broke(
    replicas: list[WireServer], read: Read
) -> None:
    first, second, third = replicas
    first.locations = [[second.url, third.url, REUSE]]
    second.faults.break_after = [2, 3]
    with datom_flight.connect(first.url, token="") as conn:
        assert is_whole(read(conn), 200)
    # A replica that failed is left alone, for a while, by the parts that are still to come.
    assert (gets(second), gets(third)) == (2, 4)


def test_of_two_replicas_that_fail_the_one_left_longer_ago_is_tried_again(
    replicas: list[WireServer], refused: str
) -> None:
    _, second, third = replicas
    version = third.put("dm", rows(200)).version
    assert version
    plan = [[second.url, refused]]
    third.locations = plan
    second.put("dm", rows(200))
    second.faults.refusals = [fl.FlightUnavailableError("busy")] * 2
    with datom_flight.connect(third.url, token="", project="STUDY_001") as conn:
        reading = conn.open("dm")
        third.faults.refusals = [fl.FlightUnavailableError("gone")] * 50
        assert is_whole(reading.reader().read_all(), 200)
    assert gets(third) > 0


def test_a_refusal_that_cannot_pass_is_not_taken_to_another_replica(replicas: list[WireServer]) -> None:
    first, second, third = replicas
    first.locations = [[second.url, third.url, REUSE]]
    second.faults.refusals = [DatomError.of("integrity_mismatch", "the stored bytes differ")] * 4
    with datom_flight.connect(first.url, token="") as conn, pytest.raises(DatomError) as caught:
        conn.read("dm")
    assert caught.value.code == "integrity_mismatch"
    assert gets(third) == 0


def test_a_replica_that_times_out_is_left_for_the_next(replicas: list[WireServer]) -> None:
    first, second, third = replicas
    first.locations = [[second.url, third.url]]
    second.faults.stall_after = [0, 0, 0, 0]
    with datom_flight.connect(first.url, token="", timeout=2) as conn:
        assert is_whole(conn.read("dm"), 200)
    assert gets(third) == 4


def test_a_token_that_was_sent_encrypted_is_not_sent_in_the_clear(replicas: list[WireServer], tmp_path: Path) -> None:
    plain = replicas[0]
    certificate, key = write_certificate(tmp_path)
    pair = (certificate.read_text(), key.read_text())
    with WireServer("grpc+tls://127.0.0.1:0", streams=2, tls_certificates=[pair]) as server:
        server.put("dm", rows(40))
        server.locations = [[plain.url, REUSE]]
        url = f"grpc+tls://127.0.0.1:{server.port}"
        with datom_flight.connect(url, token="", tls_root_certs=certificate) as conn:
            assert is_whole(conn.read("dm"), 40)
    assert not plain.calls


FAULTS = st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=4)


@settings(max_examples=20)
@given(count=st.integers(0, 200), streams=st.integers(2, 4), faults=st.tuples(FAULTS, FAULTS))
def test_no_row_is_lost_or_doubled_whichever_replicas_break(
    count: int, streams: int, faults: tuple[list[tuple[bool, int]], list[tuple[bool, int]]]
) -> None:
    with WireServer(streams=streams) as first, WireServer(streams=streams) as second:
        for server in (first, second):
            server.put("dm", rows(count))
        first.locations = [[first.url, second.url, REUSE], [second.url, first.url, REUSE]]
        with datom_flight.connect(first.url, token="") as conn:
            for read in WAYS:
                for server, broken in zip((first, second), faults, strict=True):
                    server.faults.break_after = [after if breaks else None for breaks, after in broken]
                    server.faults.cut_after = [None if breaks else after for breaks, after in broken]
                table = read(conn)
                assert table.equals(rows(count).cast(table.schema))


@READS
def test_a_connection_can_be_closed_while_a_read_begins(read: Read) -> None:
    with WireServer(streams=2) as server, datom_flight.connect(server.url, token="") as conn:
        server.put("dm", rows(20))
        server.faults.hold_streams = True
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read, conn)
            await_condition(lambda: gets(server) == 2, 10, "both parts are asked for")
            conn.close()
            server.faults.release.set()
            assert is_whole(reading.result(), 20)


def test_scans_that_are_left_and_connections_that_are_closed_then_harm_nobody() -> None:
    with WireServer(streams=4) as server:
        server.put("dm", rows(200))
        for _ in range(300):
            with datom_flight.connect(server.url, token="") as conn:
                # The next part is being asked for, in another thread, when the connection is closed.
                assert conn.scan("dm").read_next_batch().num_rows == 10


def test_a_scan_ends_where_its_connection_is_closed() -> None:
    table = pa.table({"x": pa.array(["x" * MIB]).take(pa.array([0] * 200))})
    with WireServer(batch_rows=1) as server, datom_flight.connect(server.url, token="") as conn:
        server.put("dm", table)
        scan = conn.scan("dm")
        scan.read_next_batch()
        conn.close()
        with pytest.raises(DatomError, match="the connection is closed"):
            scan.read_all()


def test_letting_go_of_a_scan_ends_all_its_threads(replicas: list[WireServer]) -> None:
    first, _, _ = replicas
    with datom_flight.connect(first.url, token="") as conn:
        scan = iter(conn.scan("dm"))
        next(scan)
        del scan
        await_condition(
            lambda: not any(thread.name == "datom-flight-lane" for thread in threading.enumerate()),
            10,
            "the threads end",
        )
