"""Queries: what is sent, and that their rows come whole although no two streams of them need be alike."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datom_flight
from datom_flight import Connection, DatomError, Pin, PinnedTable
from support.rows import rows
from support.wire_server import WireServer

QUERY = "SELECT * FROM dm JOIN lb USING (USUBJID)"
OLD, NEW = "0123456789abcdef" * 4, "fedcba9876543210" * 4


@pytest.fixture
def computed(server: WireServer) -> pa.Table:
    server.results[QUERY] = rows(95)
    return rows(95)


def asked(server: WireServer) -> dict[str, Any]:
    """What the last GetFlightInfo asked for."""
    body: dict[str, Any] = [body for method, body in server.calls if method == "GetFlightInfo"][-1]
    return body


def gets(server: WireServer) -> int:
    return sum(method == "DoGet" for method, _ in server.calls)


def pinned(table: str, version: str = OLD, project: str = "STUDY_001") -> dict[str, str]:
    return {"project": project, "table": table, "version": version, "data_sha": version[:6]}


def result(*pins: dict[str, str]) -> pa.Table:
    """Rows that say they were computed from these versions."""
    return pa.table({"n": [1]}).replace_schema_metadata({"datom.pins": json.dumps(pins)})


def refusal(call: Callable[[], object]) -> DatomError:
    with pytest.raises(DatomError) as caught:
        call()
    return caught.value


# Rows


def test_a_result_comes_whole_and_says_what_it_was_computed_from(
    server: WireServer, conn: Connection, computed: pa.Table
) -> None:
    server.pins = [pinned("dm"), pinned("lb", NEW)]
    table = conn.sql(QUERY)
    assert table.equals(computed.cast(table.schema))
    assert json.loads(table.schema.metadata[b"datom.pins"]) == server.pins
    assert len({chunk.dictionary.to_string() for chunk in table["SITE"].chunks}) == 1


def test_no_rows_have_a_schema(server: WireServer, conn: Connection) -> None:
    server.results[QUERY] = rows(0)
    assert conn.sql(QUERY).schema.equals(rows(0).schema)


@pytest.mark.parametrize("fault", ["break_after", "cut_after"])
def test_a_stream_that_breaks_is_read_from_its_beginning(
    server: WireServer, conn: Connection, computed: pa.Table, fault: str
) -> None:
    setattr(server.faults, fault, [3, 7])
    assert conn.sql(QUERY)["USUBJID"].to_pylist() == computed["USUBJID"].to_pylist(), "the third is as the first"
    assert gets(server) == 3


def test_streams_that_keep_ending_early_are_truncated(server: WireServer, conn: Connection, computed: pa.Table) -> None:
    server.faults.cut_after = [4] * 20
    assert refusal(lambda: conn.sql(QUERY)).code == "truncated"
    assert gets(server) <= 6


def test_a_result_that_lost_rows_is_truncated(server: WireServer, conn: Connection, computed: pa.Table) -> None:
    server.faults.ends = [lambda end: type(end)(end.rows + 1, end.version, end.data_sha)] * 20
    assert refusal(lambda: conn.sql(QUERY)).code == "truncated"


def test_a_scan_is_asked_for_again_until_the_first_row(
    server: WireServer, conn: Connection, computed: pa.Table
) -> None:
    server.faults.break_after = [0, 0]
    scan = conn.open_sql(QUERY)
    assert (scan.rows, scan.version) == (None, None)
    assert scan.schema.names == computed.schema.names
    assert gets(server) == 0
    assert scan.reader().read_all()["USUBJID"].to_pylist() == computed["USUBJID"].to_pylist()
    assert gets(server) == 3


def test_a_scan_that_breaks_later_mixes_no_streams(server: WireServer, conn: Connection, computed: pa.Table) -> None:
    server.faults.break_after = [3]
    reader = conn.open_sql(QUERY).reader()
    received = [reader.read_next_batch() for _ in range(3)]
    assert pa.Table.from_batches(received)["USUBJID"].to_pylist() == computed["USUBJID"].to_pylist()[:30]
    assert refusal(reader.read_next_batch).code == "unavailable"
    assert gets(server) == 1


def test_letting_go_of_a_scan_cancels_the_query() -> None:
    with WireServer(batch_rows=100_000) as server, datom_flight.connect(server.url, token="") as conn:
        server.results[QUERY] = pa.table({"x": pa.array(range(4_000_000), pa.int64())})
        for _ in conn.open_sql(QUERY).reader():
            break
        assert server.cancelled.wait(10)


def test_what_the_server_says_of_a_query_is_raised(server: WireServer, conn: Connection) -> None:
    assert refusal(lambda: conn.sql("SELECT")).code == "sql_error"


def test_an_answer_that_says_nothing_of_versions_is_refused(
    server: WireServer, conn: Connection, computed: pa.Table
) -> None:
    server.pins = None  # type: ignore[assignment]
    assert refusal(lambda: conn.sql(QUERY)).code == "internal"


# What is sent


def test_a_query_goes_out_with_the_project_and_nothing_else(
    server: WireServer, conn: Connection, computed: pa.Table
) -> None:
    conn.sql(QUERY)
    assert asked(server) == {"sql": QUERY, "project": "STUDY_001"}


@pytest.mark.parametrize(
    ("parameters", "sent"),
    [
        ([], []),
        (["ALT", 65, 1.5, True, None], ["ALT", 65, 1.5, True, None]),
        (("ALT",), ["ALT"]),
        ({"test": "ALT", "age": 65}, {"test": "ALT", "age": 65}),
    ],
)
def test_parameters_that_json_has_go_out_as_they_are(
    server: WireServer, conn: Connection, computed: pa.Table, parameters: Any, sent: Any
) -> None:
    conn.sql(QUERY, parameters)
    assert asked(server)["parameters"] == sent


OTHER_VALUES = [
    date(2026, 1, 15),
    datetime(2026, 1, 15, 12, 30, 0, 5),
    datetime(2026, 1, 15, tzinfo=UTC),
    timedelta(days=3),
    Decimal("1.50"),
    b"\x00\xff",
    2**63,
    2**100,
    math.inf,
]


@pytest.mark.parametrize("value", OTHER_VALUES, ids=str)
def test_parameters_of_other_types_keep_their_values(
    server: WireServer, conn: Connection, computed: pa.Table, value: Any
) -> None:
    for parameters, names in (([1, value], ["1", "2"]), ({"n": 1, "value": value}, ["n", "value"])):
        conn.sql(QUERY, parameters)
        with pa.ipc.open_stream(base64.b64decode(asked(server)["parameters"])) as reader:
            batch = reader.read_next_batch()
        assert batch.schema.names == names
        assert batch.column(1).to_pylist() == [value]


@pytest.mark.parametrize("parameters", ["ALT", b"ALT", 65, [object], [2**200], {"a": object}], ids=str)
def test_parameters_that_cannot_be_sent_are_refused(server: WireServer, conn: Connection, parameters: Any) -> None:
    assert refusal(lambda: conn.sql(QUERY, parameters)).code == "invalid_argument"
    assert gets(server) == 0


@pytest.mark.parametrize("query", ["", None, 7])
def test_a_query_that_is_no_text_is_refused(conn: Connection, query: Any) -> None:
    assert refusal(lambda: conn.sql(query)).code == "invalid_argument"


def test_an_instant_goes_out_as_text(server: WireServer, conn: Connection, computed: pa.Table) -> None:
    conn.sql(QUERY, as_of=date(2026, 1, 15))
    assert asked(server)["as_of"] == "2026-01-15"
    assert refusal(lambda: conn.sql(QUERY, as_of="soon")).code == "invalid_argument"


# Pins


def test_a_pin_goes_out_with_all_its_versions(server: WireServer, conn: Connection, computed: pa.Table) -> None:
    server.pins = [pinned("dm")]
    held = {"dm": PinnedTable(OLD, OLD[:6], None, 3), "lb": PinnedTable(NEW, NEW[:6], None, 9)}
    conn.sql(QUERY, pin=Pin("STUDY_001", held))
    assert asked(server)["pins"] == [pinned("dm"), pinned("lb", NEW)]


def test_a_result_is_a_pin_also_after_it_was_saved(
    server: WireServer, conn: Connection, computed: pa.Table, tmp_path: Path
) -> None:
    server.pins = [pinned("dm"), pinned("lb", NEW, "STUDY_002")]
    table = conn.sql(QUERY)
    pq.write_table(table, tmp_path / "result.parquet")
    for pin in (table, table.schema, table.slice(0, 1).to_batches()[0], pq.read_schema(tmp_path / "result.parquet")):
        server.calls.clear()
        conn.sql(QUERY, pin=pin)
        assert asked(server)["pins"] == server.pins


def test_what_read_gave_is_a_pin_too(server: WireServer, conn: Connection, computed: pa.Table) -> None:
    stored = server.put("dm", rows(3))
    server.pins = [{**pinned("dm", stored.version), "data_sha": stored.data_sha}]
    conn.sql(QUERY, pin=conn.read("dm"))
    assert asked(server)["pins"] == server.pins


@pytest.mark.parametrize(
    "pin",
    [
        pa.table({"n": [1]}),
        {"dm": OLD},
        "pins.json",
        result({"project": "STUDY_001", "table": "dm"}),
        pa.table({"n": [1]}).replace_schema_metadata({"datom.pins": "[7]"}),
        pa.table({"n": [1]}).replace_schema_metadata({"datom.pins": "junk"}),
    ],
    ids=lambda pin: type(pin).__name__,
)
def test_what_names_no_versions_is_no_pin(server: WireServer, conn: Connection, pin: Any) -> None:
    assert refusal(lambda: conn.sql(QUERY, pin=pin)).code == "invalid_argument"
    assert gets(server) == 0


def test_a_pin_and_an_instant_contradict_each_other(conn: Connection) -> None:
    assert "as_of" in refusal(lambda: conn.sql(QUERY, pin=result(pinned("dm")), as_of="2026-01-15")).message


def test_a_pin_is_made_of_the_versions_a_result_was_computed_from(server: WireServer, conn: Connection) -> None:
    stored = [server.put(name, rows(3)) for name in ("lb", "dm")]
    pins = [
        {"project": "STUDY_001", "table": name, "version": version.version, "data_sha": version.data_sha}
        for name, version in zip(("lb", "dm"), stored, strict=True)
    ]
    server.put("dm", rows(9))
    pin = conn.pin(result(*pins))
    assert list(pin.tables) == ["dm", "lb"]
    assert pin["dm"] == PinnedTable(stored[1].version, stored[1].data_sha, stored[1].data_sha[::-1], 3)
    pins[0]["data_sha"] = "0" * 64
    assert refusal(lambda: conn.pin(result(*pins))).code == "integrity_mismatch"


@pytest.mark.parametrize(
    ("pins", "code"),
    [
        ([], "invalid_argument"),
        ([pinned("dm"), pinned("dm", project="STUDY_002")], "invalid_argument"),
        ([pinned("dm"), pinned("lb"), pinned("dm", NEW)], "version_ambiguous"),
    ],
)
def test_a_pin_holds_one_project_and_one_version_of_each_table(conn: Connection, pins: Any, code: str) -> None:
    assert refusal(lambda: conn.pin(result(*pins))).code == code


def test_a_result_is_not_pinned_as_of_an_instant(conn: Connection) -> None:
    assert refusal(lambda: conn.pin(result(pinned("dm")), as_of="2026-01-15")).code == "invalid_argument"
