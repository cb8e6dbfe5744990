"""Rows come whole, in order and once, or not at all, whatever the streams do."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.flight as fl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import datom_flight
from datom_flight import Connection, DatomError
from support.rows import rows
from support.wire_server import WireServer


def refusal(server: WireServer, conn: Connection, version: str | None = None) -> DatomError:
    with pytest.raises(DatomError) as caught:
        conn.read("dm", version)
    return caught.value


def gets(server: WireServer) -> int:
    return sum(method == "DoGet" for method, _ in server.calls)


def test_a_table_is_read_whole_with_one_dictionary_a_column(server: WireServer, conn: Connection) -> None:
    stored = server.put("dm", rows(95))
    table = conn.read("dm")
    assert table.equals(rows(95).cast(table.schema))
    assert len({chunk.dictionary.to_string() for chunk in table["SITE"].chunks}) == 1
    assert all(len(chunk) for chunk in table["SITE"].chunks), "the end record leaves no empty chunk"
    assert table.schema.metadata[b"datom.version"].decode() == stored.version


@pytest.mark.parametrize("whole", [True, False])
def test_an_empty_table_has_its_schema(server: WireServer, conn: Connection, whole: bool) -> None:
    stored = server.put("dm", rows(0))
    table = conn.read("dm", stored.version if whole else None)
    assert table.num_rows == 0
    assert table.schema.equals(rows(0).schema)
    assert table["SITE"].combine_chunks().to_pylist() == []


def test_a_full_version_is_read_in_one_round_trip(server: WireServer, conn: Connection) -> None:
    stored = server.put("dm", rows(30))
    server.put("dm", rows(40))
    server.calls.clear()
    assert conn.read("dm", stored.version).num_rows == 30
    assert [method for method, _ in server.calls] == ["DoGet"]


@pytest.mark.parametrize("streams", [2, 3, 5])
def test_several_streams_are_put_together_in_order(streams: int) -> None:
    with WireServer(streams=streams) as server, datom_flight.connect(server.url, token="") as conn:
        server.put("dm", rows(123))
        assert conn.read("dm")["USUBJID"].to_pylist() == rows(123)["USUBJID"].to_pylist()
        assert conn.scan("dm").read_all()["USUBJID"].to_pylist() == rows(123)["USUBJID"].to_pylist()


def test_a_stream_that_breaks_is_taken_up_where_it_broke(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(95))
    server.faults.break_after = [3, 6, 9]
    assert conn.read("dm")["USUBJID"].to_pylist() == rows(95)["USUBJID"].to_pylist()
    assert gets(server) == 4


def test_a_stream_without_an_end_record_is_asked_for_again(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(95))
    server.faults.cut_after = [10, 0]
    assert conn.read("dm").num_rows == 95
    assert gets(server) == 3


@pytest.mark.parametrize("whole", [True, False])
def test_streams_that_keep_ending_early_are_truncated(server: WireServer, conn: Connection, whole: bool) -> None:
    stored = server.put("dm", rows(95))
    server.faults.cut_after = [4] * 20
    error = refusal(server, conn, stored.version if whole else None)
    assert error.code == "truncated"
    assert "after 40 rows" in error.message


def test_an_end_record_with_other_rows_is_truncated(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(20))
    server.faults.ends = [lambda end: replace(end, rows=21)] * 20
    assert refusal(server, conn).code == "truncated"


@pytest.mark.parametrize("whole", [True, False])
def test_rows_of_another_version_are_refused_at_once(server: WireServer, conn: Connection, whole: bool) -> None:
    stored = server.put("dm", rows(20))
    server.faults.ends = [lambda end: replace(end, version="0" * 64)]
    error = refusal(server, conn, stored.version if whole else None)
    assert error.code == "integrity_mismatch"
    assert "0" * 64 in error.message
    assert gets(server) == 1


def test_rows_of_other_data_than_pinned_are_refused(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(20))
    pin = conn.pin(["dm"])
    server.faults.ends = [lambda end: replace(end, data_sha="f" * 64)]
    with pytest.raises(DatomError) as caught:
        conn.read("dm", pin=pin)
    assert caught.value.code == "integrity_mismatch"


def test_a_refusal_in_mid_stream_that_cannot_pass_is_not_retried(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(20))
    server.faults.refusals = [DatomError.of("integrity_mismatch", "the stored bytes differ", request_id="r-7")]
    error = refusal(server, conn)
    assert (error.code, error.request_id) == ("integrity_mismatch", "r-7")
    assert isinstance(error, datom_flight.IntegrityError)
    assert gets(server) == 0


def test_a_storage_that_is_gone_for_a_moment_is_waited_for(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(20))
    conn.whoami()
    server.faults.refusals = [DatomError.of("store_unreachable", "the storage is gone")] * 6
    assert conn.read("dm").num_rows == 20


def busy(seconds: float) -> DatomError:
    return DatomError.of("overloaded", "at the limit", fields={"retry_after_seconds": seconds})


def test_a_busy_server_is_asked_again_as_often_as_the_deadline_allows(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(20))
    server.faults.refusals = [busy(0.01)] * 6
    assert conn.read("dm").num_rows == 20
    assert server.faults.refusals == []


def test_a_busy_server_that_has_no_room_within_the_deadline_is_not_waited_for(
    server: WireServer, conn: Connection
) -> None:
    server.put("dm", rows(20))
    server.faults.refusals = [busy(3600)] * 2
    error = refusal(server, conn)
    assert (error.code, error.fields) == ("overloaded", {"retry_after_seconds": 3600})
    assert len(server.faults.refusals) == 1


def test_a_busy_server_is_asked_again(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(20))
    server.faults.refusals = [DatomError.of("overloaded", "at the limit"), fl.FlightUnavailableError("stopping")]
    assert conn.read("dm").num_rows == 20


def test_a_stalled_stream_times_out(server: WireServer) -> None:
    server.put("dm", rows(20))
    server.faults.stall_after = [0]
    with datom_flight.connect(server.url, token="", timeout=0.5) as conn:
        assert refusal(server, conn).code == "timeout"
    assert gets(server) == 1, "a deadline that passed without a row is not waited for again"


def test_a_stream_that_got_somewhere_before_its_deadline_goes_on(server: WireServer) -> None:
    server.put("dm", rows(40))
    server.faults.stall_after = [1, 3]
    with datom_flight.connect(server.url, token="", timeout=0.5) as conn:
        assert conn.read("dm")["USUBJID"].to_pylist() == rows(40)["USUBJID"].to_pylist()


def test_a_long_pinned_table_is_read_in_parts_when_one_stream_is_too_slow(server: WireServer) -> None:
    stored = server.put("dm", rows(40))
    server.faults.stall_after = [1, 1]
    with datom_flight.connect(server.url, token="", timeout=0.5) as conn:
        assert conn.read("dm", stored.version).num_rows == 40
    assert ("GetFlightInfo") in [method for method, _ in server.calls]


def test_a_scan_gives_batches_as_they_come_and_fails_with_its_code(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(95))
    assert [batch.num_rows for batch in conn.scan("dm")] == [10] * 9 + [5]
    server.faults.cut_after = [4] * 20
    seen: list[str] = []
    with pytest.raises(DatomError) as caught:
        seen.extend(subject for batch in conn.scan("dm") for subject in batch["USUBJID"].to_pylist())
    assert caught.value.code == "truncated"
    assert seen == rows(40)["USUBJID"].to_pylist()
    server.faults.cut_after = [4] * 20
    with pytest.raises(DatomError, match="without its end record"):
        conn.scan("dm").read_all()


def test_a_scan_can_be_handed_to_anything_that_takes_arrow_streams(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(95))
    assert pa.table(conn.scan("dm")).num_rows == 95


def test_leaving_a_scan_half_way_cancels_the_call() -> None:
    wide = pa.table({"x": pa.array(range(4_000_000), pa.int64())})
    with (
        WireServer(batch_rows=100_000) as server,
        datom_flight.connect(server.url, token="") as conn,
    ):
        server.put("dm", wide)
        for _ in conn.scan("dm"):
            break
        assert server.cancelled.wait(10)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(0, 120),
    streams=st.integers(1, 3),
    faults=st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=5),
)
def test_no_row_is_lost_or_doubled_wherever_streams_break(
    count: int, streams: int, faults: list[tuple[bool, int]]
) -> None:
    with WireServer(streams=streams) as server:
        # Two names of one server: the second is tried without a pause.
        url = f"{server.url},grpc://localhost:{server.port}"
        with datom_flight.connect(url, token="") as conn:
            server.put("dm", rows(count))
            for read in (conn.read, lambda name: conn.scan(name).read_all()):
                server.faults.break_after = [after if breaks else None for breaks, after in faults]
                server.faults.cut_after = [None if breaks else after for breaks, after in faults]
                table = read("dm")
                assert table.equals(rows(count).cast(table.schema))
