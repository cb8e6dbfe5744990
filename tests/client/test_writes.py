"""Writing: what travels, what comes back, and what happens when it breaks half way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import datom_flight
from datom_flight import ConflictError, Connection, DatomError, Member, MemberId, WriteReceipt
from datom_flight.sources import MAX_BATCH_BYTES
from support.rows import rows
from support.server import await_condition
from support.wire_server import WireServer


def refusal(call: Any, *arguments: Any, **options: Any) -> DatomError:
    with pytest.raises(DatomError) as caught:
        call(*arguments, **options)
    return caught.value


def written(server: WireServer) -> pa.Table:
    """The rows of the last write."""
    _, batches = server.writes[-1]
    return pa.Table.from_batches(batches)


def puts(server: WireServer) -> int:
    return sum(method == "DoPut" for method, _ in server.calls)


def stream(table: pa.Table, batch_rows: int = 10) -> pa.RecordBatchReader:
    """`table` as a reader that gives its rows once."""
    return pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches(batch_rows)))


# What can be written


class Capsule:
    """What other libraries' tables have in common."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "form",
    [
        lambda table: table,
        lambda table: table.combine_chunks().to_batches()[0],
        stream,
        Capsule,
        lambda table: table.to_pandas(),
    ],
    ids=["table", "batch", "reader", "capsule", "pandas"],
)
def test_tables_come_in_many_forms(server: WireServer, conn: Connection, form: Any) -> None:
    receipt = conn.write("dm", form(rows(35)))
    assert isinstance(receipt, WriteReceipt)
    assert (receipt.table, receipt.action) == ("dm", "full")
    assert written(server).to_pylist() == rows(35).to_pylist()
    assert conn.read("dm", receipt.version).num_rows == 35


def test_views_of_text_travel_as_text(server: WireServer, conn: Connection) -> None:
    # A slice of views carries all the text of the whole, and data frames of polars are made of them.
    text = pa.array([f"{number} " * 20 for number in range(200_000)]).cast(pa.string_view())
    factor = pa.array(["a", "b"], pa.string_view()).dictionary_encode().take(pa.array(np.arange(200_000) % 2))
    conn.write("dm", pa.table({"text": text, "factor": factor}))
    assert written(server).schema.types == [pa.string(), pa.dictionary(pa.int32(), pa.string())]
    assert written(server)["text"].to_pylist() == text.to_pylist()
    assert len(server.writes[-1][1]) > 2
    assert server.largest <= MAX_BATCH_BYTES


@pytest.mark.parametrize("data", [None, "dm.csv", [1, 2], {"a": [1]}, pa.array([1]), pa.chunked_array([[1]])])
def test_what_is_no_table_is_refused_before_any_call(server: WireServer, conn: Connection, data: Any) -> None:
    server.calls.clear()
    error = refusal(conn.write, "dm", data)
    assert (error.code, server.calls) == ("invalid_argument", [])
    assert type(data).__name__ in error.message


def test_an_index_without_a_name_does_not_become_a_column(server: WireServer, conn: Connection) -> None:
    frame = rows(20).to_pandas()
    frame = frame[frame["AGE"] > 5]
    assert "reset_index" in refusal(conn.write, "dm", frame).hint
    conn.write("dm", frame.reset_index(drop=True))
    assert written(server).column_names == ["USUBJID", "AGE", "SITE"]
    conn.write("dm", pd.DataFrame({"AGE": [1]}, index=pd.Index(["a"], name="ID")))
    assert written(server).column_names == ["AGE", "ID"]


def test_large_batches_are_cut_to_four_mebibytes(server: WireServer, conn: Connection) -> None:
    # Rows of very different length: the average says little.
    text = pa.array(["x" * (3_000_000 if number % 50 == 0 else 100) for number in range(200)])
    table = pa.table({"text": text, "number": np.arange(200.0)})
    conn.write("dm", table)
    assert written(server).to_pylist() == table.to_pylist()
    assert server.largest <= MAX_BATCH_BYTES
    conn.write("dm", pa.table({"text": ["x" * 5_000_000] * 2}))
    assert [batch.num_rows for batch in server.writes[-1][1]] == [1, 1], "one row is never cut"


def test_a_reader_is_sent_while_it_is_read(server: WireServer, conn: Connection) -> None:
    batch = pa.record_batch({"x": np.arange(500_000.0)})

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(40):
            yield batch

    before = pa.total_allocated_bytes()
    conn.write("dm", pa.RecordBatchReader.from_batches(batch.schema, batches()))
    assert written(server).num_rows == 20_000_000
    assert pa.total_allocated_bytes() - before < 200_000_000, "what the server holds, and no second copy"


def test_every_dictionary_of_a_stream_arrives_right(server: WireServer, conn: Connection) -> None:
    parts = [pa.array(labels).dictionary_encode() for labels in (["a", "b"], ["c", "a"], ["b", None, "d"])]
    table = pa.table({"SITE": pa.chunked_array(parts)})
    for data in (table, stream(table, 1)):
        conn.write("dm", data)
        assert written(server)["SITE"].to_pylist() == ["a", "b", "c", "a", "b", None, "d"]
        assert pa.types.is_dictionary(written(server).schema.field("SITE").type)


# What goes with the rows


def test_what_is_said_of_a_version_is_sent(server: WireServer, conn: Connection) -> None:
    first = conn.write("dm", rows(3))
    recorded = [{"source": "STUDY_001", "table": "ae", "version": "a" * 64, "data_sha": "b" * 64}]
    conn.write(
        "dm",
        rows(5),
        message="April cut",
        metadata={"cut": "2026-04-01", "n": 5},
        parents=[*recorded, "lb@8a3b", "STUDY_002/vs (raw)@77ab01cd"],
        expected=first.version,
    )
    assert server.calls[-1] == (
        "DoPut",
        {
            "project": "STUDY_001",
            "table": "dm",
            "message": "April cut",
            "metadata": {"cut": "2026-04-01", "n": 5},
            "parents": [
                *recorded,
                {"source": "STUDY_001", "table": "lb", "version": "8a3b"},
                {"source": "STUDY_002", "table": "vs (raw)", "version": "77ab01cd"},
            ],
            "expected": first.version,
            "end_record": True,
        },
    )


def test_parents_are_taken_as_they_are_given_by_another_version(server: WireServer, conn: Connection) -> None:
    recorded = [{"source": "STUDY_001", "table": "ae", "version": "a" * 64, "data_sha": "b" * 64}]
    server.answers["datom.parents"] = [{"parents": recorded}]
    conn.write("dm", rows(3), parents=conn.parents("old"))
    assert server.calls[-1][1]["parents"] == recorded


def test_an_import_names_its_file(server: WireServer, conn: Connection) -> None:
    conn.write_imported("dm", rows(3), file_sha="a" * 64, file_format="csv", message="from the vendor")
    request, _ = server.writes[-1]
    assert (request.original_file_sha, request.original_format) == ("a" * 64, "csv")
    assert refusal(conn.write_imported, "dm", rows(3), file_sha="a", file_format="csv").code == "invalid_argument"


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("../dm", {}, "invalid_name"),
        ("dm", {"expected": "8a3b"}, "invalid_argument"),
        ("dm", {"parents": ["dm"]}, "invalid_argument"),
        ("dm", {"parents": ["dm@"]}, "invalid_argument"),
        ("dm", {"parents": ["@8a3b"]}, "invalid_argument"),
        ("dm", {"parents": ["a/b/c@8a3b"]}, "invalid_name"),
        ("dm", {"parents": [{"table": "dm"}]}, "invalid_argument"),
        ("dm", {"parents": [7]}, "invalid_argument"),
        ("dm", {"metadata": {"day": object()}}, "invalid_argument"),
        ("dm", {"metadata": {"n": float("nan")}}, "invalid_argument"),
        ("dm", {"metadata": ["a"]}, "invalid_argument"),
        ("dm", {"message": "x" * 20_000}, "invalid_argument"),
    ],
)
def test_arguments_of_the_wrong_form_are_refused_before_any_call(
    server: WireServer, conn: Connection, name: str, options: dict[str, Any], code: str
) -> None:
    server.calls.clear()
    assert refusal(conn.write, name, rows(3), **options).code == code
    assert not server.calls


def test_a_receipt_prints_as_a_card(conn: Connection) -> None:
    receipt = conn.write("dm", rows(3))
    assert str(receipt) == (
        "-- datom write\n"
        "* Table:   dm\n"
        f"* Version: {receipt.version}\n"
        f"* Data:    {receipt.data_sha}\n"
        f"* Parquet: {receipt.parquet_sha}\n"
        f"* Commit:  {receipt.commit}\n"
        "* Action:  full: a new version with new data"
    )
    again = conn.write("dm", rows(3))
    assert (again.version, again.commit, again.action) == (receipt.version, None, "none")


# When it is refused


@pytest.mark.parametrize("code", ["permission_denied", "not_hashable", "too_large", "unsupported"])
@pytest.mark.parametrize("after", [None, 3])
def test_a_refusal_is_told_with_its_code_at_once_and_half_way(
    server: WireServer, conn: Connection, code: str, after: int | None
) -> None:
    error = DatomError.of(code, "no, because", fields={} if code == "unsupported" else {"columns": {"a": "b"}})
    if after is None:
        server.faults.refusals = [error]
    else:
        server.faults.refuse_after = [(after, error)]
    batch = pa.record_batch({"x": np.arange(400_000.0)})
    caught = refusal(conn.write, "dm", pa.Table.from_batches([batch] * 20))
    assert (caught.code, caught.message, caught.fields) == (code, "no, because", error.fields)
    assert puts(server) == 1
    assert not server.writes


def test_a_conflict_says_what_is_current(server: WireServer, conn: Connection) -> None:
    current = conn.write("dm", rows(3), expected="").version
    error = refusal(conn.write, "dm", rows(5), expected="a" * 64)
    assert isinstance(error, ConflictError)
    assert error.fields["current"] == current
    assert refusal(conn.write, "dm", rows(5), expected="").code == "conflict"


# When it breaks


@pytest.mark.parametrize("lost", [None, DatomError.of("unavailable", "the server is stopping")], ids=["end", "error"])
def test_a_table_whose_receipt_was_lost_is_sent_again(server: WireServer, conn: Connection, lost: Any) -> None:
    server.faults.lose_receipt = [lost, lost]
    receipt = conn.write("dm", rows(30))
    assert puts(server) == 3
    assert (receipt.action, receipt.version) == ("none", server._tables["STUDY_001", "dm"][-1].version)
    assert len(server._tables["STUDY_001", "dm"]) == 1


def test_a_long_write_that_is_cut_is_sent_again(
    server: WireServer, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datom_flight.retries.RETRY_SECONDS", 0.0)
    batch = pa.record_batch({"x": np.arange(400_000.0)})
    server.faults.refuse_after = [(15, DatomError.of("unavailable", "the server is stopping"))]
    conn.write("dm", pa.Table.from_batches([batch] * 20))
    assert puts(server) == 2
    server.faults.refuse_after = [(15, DatomError.of("store_unreachable", "the storage does not answer"))]
    assert refusal(conn.write, "dm", pa.Table.from_batches([batch] * 20)).code == "store_unreachable"
    assert puts(server) == 3


def test_a_conflict_after_a_lost_receipt_says_that_it_may_be_with_itself(server: WireServer, conn: Connection) -> None:
    server.faults.lose_receipt = [None]
    error = refusal(conn.write, "dm", rows(30), expected="")
    assert error.code == "conflict"
    assert "broke off" in error.hint
    assert error.fields["current"] == server._tables["STUDY_001", "dm"][0].version


def test_a_stream_refused_at_the_start_is_sent_again_from_what_was_kept(server: WireServer, conn: Connection) -> None:
    failure = DatomError.of("overloaded", "too many writes at once")
    server.faults.refusals = [failure]
    server.faults.refuse_after = [(2, failure)]
    conn.write("dm", stream(rows(95)))
    assert puts(server) == 3
    assert written(server).to_pylist() == rows(95).to_pylist()


def test_a_long_stream_that_breaks_is_not_sent_again(server: WireServer, conn: Connection) -> None:
    batch = pa.record_batch({"x": np.arange(400_000.0)})
    server.faults.refuse_after = [(15, DatomError.of("store_unreachable", "the storage does not answer"))]
    error = refusal(conn.write, "dm", pa.RecordBatchReader.from_batches(batch.schema, iter([batch] * 20)))
    assert (error.code, error.message) == ("store_unreachable", "the storage does not answer")
    assert "stream" in error.hint
    assert puts(server) == 1


def test_a_replica_that_is_not_there_is_passed_over_by_streams_too(server: WireServer) -> None:
    with datom_flight.connect(f"{server.url},grpc://localhost:{server.port}", token="") as conn:
        server.faults.refusals = [DatomError.of("unavailable", "the server is stopping")]
        conn.write("dm", stream(rows(20)))
        assert written(server).num_rows == 20


def test_an_error_of_the_rows_own_is_raised_as_it_is_and_nothing_is_written(
    server: WireServer, conn: Connection
) -> None:
    class OwnError(Exception):
        pass

    def batches(error: Exception) -> Iterator[pa.RecordBatch]:
        yield from rows(30).to_batches()
        raise error

    for error in (OwnError("row 31"), OSError("disk"), pa.ArrowInvalid("bad value"), DatomError.of("timeout", "late")):
        server.cancelled.clear()
        with pytest.raises(type(error)) as caught:
            conn.write("dm", pa.RecordBatchReader.from_batches(rows(1).schema, batches(error)))
        assert caught.value is error
        assert server.cancelled.wait(10), "the server learns that it was given up"
    assert puts(server) == 4
    assert not server.writes


def test_an_expired_session_is_renewed_while_writing(server: WireServer) -> None:
    server.tokens["t"] = "ann"
    with datom_flight.connect(server.url, token="t", role="developer") as conn:
        del server.tokens["session-1"]
        conn.write("dm", stream(rows(20)))
        assert server.sessions == 2
        assert written(server).num_rows == 20


def test_a_deadline_ends_a_write(server: WireServer) -> None:
    with datom_flight.connect(server.url, token="", timeout=0.5) as conn:
        server.faults.stall_after = [2]
        assert refusal(conn.write, "dm", stream(rows(95))).code == "timeout"
        server.faults.release.set()
    assert not server.writes


INTERRUPTED = """
import sys, time, datom_flight, pyarrow as pa
def batches():
    while True:
        time.sleep(0.01)
        yield pa.record_batch({"x": [1.0]})
conn = datom_flight.connect(sys.argv[1], token="")
conn.write("dm", pa.RecordBatchReader.from_batches(pa.schema({"x": pa.float64()}), batches()))
"""


def test_ctrl_c_ends_a_write_and_nothing_is_written(server: WireServer) -> None:
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, server.url], stderr=subprocess.PIPE, text=True)
    await_condition(lambda: puts(server) == 1, 30, "the write has begun")
    process.send_signal(2)
    _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert server.cancelled.wait(10)
    assert not server.writes


# Sets


def test_a_set_is_written_from_dicts_and_members(server: WireServer, conn: Connection) -> None:
    answer = {"table": "adam", "version": "a" * 64, "data_sha": "b" * 64, "parquet_sha": "c" * 64, "commit": "d" * 40}
    server.answers["datom.write_set"] = [{**answer, "action": "full"}]
    cited = {"project": "STUDY_001", "name": "dm", "kind": "table", "version": "e" * 64}
    receipt = conn.write_set(
        "adam",
        [{"id": cited, "tags": {"role": "final"}}, Member(MemberId(**cited), {"role": ["interim"]})],
        tags={"purpose": ["interim"]},
        message="first",
    )
    assert receipt == WriteReceipt(**answer, action="full")
    assert server.calls[-1] == (
        "datom.write_set",
        {
            "project": "STUDY_001",
            "table": "adam",
            "members": [{"id": cited, "tags": {"role": "final"}}, {"id": cited, "tags": {"role": ["interim"]}}],
            "tags": {"purpose": ["interim"]},
            "message": "first",
        },
    )
    assert refusal(conn.write_set, "a/b", []).code == "invalid_name"
    assert refusal(conn.write_set, "adam", [{"id": object()}]).code == "invalid_argument"


# By hand


def test_calls_made_by_hand_carry_the_connection_s_token(server: WireServer) -> None:
    server.put("dm", rows(5))
    descriptor = fl.FlightDescriptor.for_command(b'{"project": "STUDY_001", "table": "dm"}')
    server.tokens["t"] = "ann"
    with datom_flight.connect(server.url, token="t") as conn:
        assert conn.flight.get_flight_info(descriptor).total_records == 5
        ticket = fl.Ticket(descriptor.command)
        assert conn.flight.do_get(ticket).read_all().num_rows == 5
        writer, _ = conn.flight.do_put(descriptor, rows(5).schema)
        writer.write_table(rows(5))
        with pytest.raises(fl.FlightUnavailableError, match="truncated"):
            writer.close()
        own = fl.FlightCallOptions(headers=[(b"authorization", b"Bearer other")])
        with pytest.raises(fl.FlightUnauthenticatedError):
            conn.flight.get_flight_info(descriptor, own)
    with datom_flight.connect(server.url, token="t", role="reader") as conn:
        del server.tokens["t"]
        assert conn.flight.get_flight_info(descriptor).total_records == 5, "with the session's token"
