"""Pins: made, saved, loaded, read by, and verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import datom_flight
from datom_flight import Connection, DatomError, Pin, PinnedTable
from support.rows import rows
from support.wire_server import WireServer

PIN = Pin(
    "STUDY_001",
    {
        "lb": PinnedTable("b" * 64, "c" * 64, None, 7),
        "dm": PinnedTable("a" * 64, "d" * 64, "e" * 64, 1234),
    },
)


def refusal(call: Any, *arguments: Any, **options: Any) -> DatomError:
    with pytest.raises(DatomError) as caught:
        call(*arguments, **options)
    return caught.value


def test_a_saved_pin_is_the_same_text_whatever_order_it_was_made_in(tmp_path: Path) -> None:
    PIN.save(tmp_path / "one.json")
    Pin("STUDY_001", dict(sorted(PIN.tables.items()))).save(str(tmp_path / "two.json"))
    text = (tmp_path / "one.json").read_text()
    assert text == (tmp_path / "two.json").read_text()
    assert text.endswith("}\n")
    assert text.index('"dm"') < text.index('"lb"')
    assert Pin.load(tmp_path / "one.json") == PIN
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "two.json"]


def test_a_pin_that_cannot_be_saved_leaves_the_old_one(tmp_path: Path) -> None:
    PIN.save(tmp_path / "pin.json")
    with pytest.raises(TypeError):
        Pin("STUDY_001", {"dm": None}).save(tmp_path / "pin.json")  # type: ignore[dict-item]
    assert Pin.load(tmp_path / "pin.json") == PIN


def test_a_pin_prints_as_a_table() -> None:
    assert str(PIN) == (
        "-- datom pin\n"
        "* Project: STUDY_001\n"
        "* Tables:  2\n"
        "table  version   data_sha   rows\n"
        "lb     bbbbbbbb  cccccccc      7\n"
        "dm     aaaaaaaa  dddddddd  1,234"
    )


def saved(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(PIN.to_json())
    body["tables"]["dm"].update(changes)
    return body


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", "object"),
        ({}, "datom_pin"),
        ({**saved(), "datom_pin": 2}, "datom_pin"),
        ({**saved(), "datom_pin": True}, "datom_pin"),
        ({**saved(), "more": 1}, "more"),
        ({**saved(), "project": "../x"}, "project"),
        ({**saved(), "tables": []}, "tables"),
        ({**saved(), "tables": {"..": {}}}, ".."),
        ({**saved(), "tables": {"dm": {}}}, "dm"),
        (saved(version="abc"), "version"),
        (saved(data_sha="xyz"), "data_sha"),
        (saved(parquet_sha=5), "parquet_sha"),
        (saved(rows=-1), "rows"),
        (saved(rows=True), "rows"),
        (saved(extra=1), "dm"),
        (b'{"datom_pin": 1, "datom_pin": 1}', "twice"),
    ],
)
def test_what_is_no_pin_is_refused_naming_why(tmp_path: Path, body: Any, named: str) -> None:
    path = tmp_path / "pin.json"
    path.write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
    error = refusal(Pin.load, path)
    assert error.code == "invalid_argument"
    assert str(path) in error.message
    assert named in error.message


def test_a_missing_file_is_an_ordinary_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Pin.load(tmp_path / "missing.json")


def test_pinned_rows_come_back_after_the_table_moved_on(server: WireServer, conn: Connection) -> None:
    first = server.put("dm", rows(20))
    server.put("lb", rows(3))
    pin = conn.pin()
    assert pin.tables["dm"] == PinnedTable(first.version, first.data_sha, first.data_sha[::-1], 20)
    server.put("dm", rows(30))
    assert conn.read("dm").num_rows == 30
    assert conn.read("dm", pin=pin).num_rows == 20
    assert conn.scan("dm", pin=pin).read_all().num_rows == 20
    assert conn.schema("dm", pin=pin).metadata[b"datom.version"].decode() == first.version


def test_a_pin_can_hold_some_tables_only(server: WireServer, conn: Connection) -> None:
    for name in ("dm", "lb", "ae"):
        server.put(name, rows(3))
    assert list(conn.pin(["lb", "dm", "lb"]).tables) == ["dm", "lb"]
    assert list(conn.pin("ae").tables) == ["ae"]
    error = refusal(conn.read, "ae", pin=conn.pin(["dm", "lb"]))
    assert error.code == "version_not_found"
    assert error.hint == 'it holds "dm", "lb"'
    assert refusal(conn.pin, ["nope"]).code == "not_found"


def test_a_pin_of_an_instant_holds_the_tables_that_existed_then(server: WireServer, conn: Connection) -> None:
    early = server.put("dm", rows(3), day="2026-01-10")
    server.put("dm", rows(5), day="2026-02-10")
    server.put("lb", rows(3), day="2026-02-10")
    pin = conn.pin(as_of="2026-01-31")
    assert {name: pinned.version for name, pinned in pin.tables.items()} == {"dm": early.version}
    assert list(conn.pin(as_of="2026-02-28").tables) == ["dm", "lb"]
    assert refusal(conn.pin, ["dm", "lb"], as_of="2026-01-31").code == "version_not_found"


def test_a_pin_of_another_project_is_refused(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(3))
    error = refusal(conn.read, "dm", pin=Pin("STUDY_002", PIN.tables))
    assert error.code == "invalid_argument"
    assert '"STUDY_002"' in error.message
    assert '"STUDY_001"' in error.message


def test_a_pin_names_the_project_where_the_connection_does_not(server: WireServer) -> None:
    server.whoami["projects"] = ["STUDY_001", "STUDY_002"]
    server.put("dm", rows(3))
    with datom_flight.connect(server.url, "STUDY_001", token="") as conn:
        pin = conn.pin()
    with datom_flight.connect(server.url, token="") as conn:
        assert conn.read("dm", pin=pin).num_rows == 3


def test_verifying_recomputes_the_hash_of_every_pinned_table(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(20))
    server.put("lb", rows(3))
    pin = conn.pin()
    findings = conn.verify(pin)
    assert [(found.table, found.check, found.ok) for found in findings] == [
        ("dm", "data_sha", True),
        ("lb", "data_sha", True),
    ]
    assert [found.ok for found in conn.verify("dm", pin.tables["dm"].version)] == [True]
    with pytest.raises(DatomError, match="pin names the versions"):
        conn.verify(pin, "abc")


def test_other_rows_under_the_pinned_hash_are_a_finding(server: WireServer, conn: Connection) -> None:
    stored = server.put("dm", rows(20))
    pin = conn.pin()
    object.__setattr__(stored, "rows", rows(20, first=1))
    (found,) = conn.verify(pin)
    assert not found.ok
    assert stored.data_sha in (found.detail or "")


def test_lost_tables_and_tables_that_cannot_be_hashed_are_findings(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(20))
    server.put("empty", rows(0))
    pin = conn.pin()
    server.forget("dm")
    findings = {found.table: found for found in conn.verify(pin)}
    assert (findings["dm"].check, findings["dm"].ok) == ("read", False)
    assert (findings["empty"].check, findings["empty"].ok) == ("data_sha", False)
    assert refusal(conn.verify, "dm").code == "not_found"
