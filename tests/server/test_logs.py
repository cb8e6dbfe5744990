"""Lines of the log: whole, of one call each, and silent about what faults said."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from datom_flight_server import logs
from datom_flight_server.calls import Call, Subject, Trace

VERSION = "8a3b21cc" * 8
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def call_of(*subjects: Subject, **more: Any) -> Call:
    call = Call("r1", "do_get", "ann", **more)
    call.subjects = subjects
    call.end("ok")
    return call


def line_of(form: logs.Format, call: Call) -> str:
    stream = io.StringIO()
    logs.AccessLog(form, stream)(call)
    assert stream.getvalue().endswith("\n")
    return stream.getvalue().removesuffix("\n")


def test_a_line_says_who_asked_for_what_and_how_it_went() -> None:
    call = call_of(Subject("STUDY", "dm", VERSION))
    call.count(306, 4096)
    call.seconds = 0.0015
    assert line_of("human", call).endswith(
        f"Z INFO access r1 ann do_get STUDY/dm@{VERSION} ok 306 rows 4096 bytes 1.5ms"
    )
    told = json.loads(line_of("json", call))
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "info",
        "logger": "access",
        "request": "r1",
        "principal": "ann",
        "verb": "do_get",
        "action": None,
        "project": "STUDY",
        "table": "dm",
        "version": VERSION,
        "rows": 306,
        "bytes": 4096,
        "ms": 1.5,
        "code": "ok",
    }


def test_a_query_over_several_tables_names_them_all() -> None:
    call = call_of(Subject("A", "dm", "1"), Subject("B", "ae", "2"), action="sql")
    assert " do_get sql A/dm@1 B/ae@2 ok " in line_of("human", call)
    told = json.loads(line_of("json", call))
    assert (told["project"], told["tables"]) == (None, ["A/dm@1", "B/ae@2"])


@pytest.mark.parametrize("name", ["x\nforged line", "\x1b[2J", 'a"b\\', "Ärztin 中", "\u2028"])
def test_names_that_callers_make_up_stay_within_their_line(name: str) -> None:
    call = call_of(Subject(name, name))
    assert len(line_of("human", call).splitlines()) == 1
    assert "\x1b" not in line_of("human", call)
    assert json.loads(line_of("json", call))["table"] == name


def test_a_call_that_is_part_of_a_trace_names_it() -> None:
    call = call_of(trace=Trace.of(PARENT, None))
    assert json.loads(line_of("json", call))["trace"] == "0af7651916cd43dd8448eb211c80319c"
    assert line_of("human", call).endswith(" trace 0af7651916cd43dd8448eb211c80319c")


@pytest.mark.parametrize("header", [None, "", "00-zz", PARENT.upper(), PARENT + "\n", "01" + PARENT[2:]])
def test_what_is_no_trace_context_is_passed_over(header: str | None) -> None:
    assert Trace.of(header, "a=b") is None


def test_a_stream_that_takes_no_more_fails_no_call() -> None:
    stream = io.StringIO()
    stream.close()
    logs.AccessLog("human", stream)(call_of())


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    form, told_from = request.param
    root, ours = logging.getLogger(), logging.getLogger("datom_flight_server")
    before, level, our_level = root.handlers[:], root.level, ours.level
    stream = io.StringIO()
    logs.configure(form, told_from, stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    ours.setLevel(our_level)


def fail(first: str, then: str) -> None:
    try:
        raise KeyError(first)
    except KeyError as cause:
        raise ValueError(then) from cause


@pytest.mark.parametrize("log", [("human", "info"), ("json", "info")], indirect=True)
def test_a_fault_is_told_by_its_frames_and_not_by_what_it_says(log: io.StringIO) -> None:
    said = [f"{word} of a patient" for word in ("name", "age")]
    try:
        fail(*said)
    except ValueError as error:
        logging.getLogger("datom_flight_server.x").error("request %s failed", "r1", exc_info=error)
    for told in ("request r1 failed", "builtins.ValueError", "builtins.KeyError", "in fail"):
        assert told in log.getvalue()
    assert not any(words in log.getvalue() for words in said)


@pytest.mark.parametrize("log", [("human", "debug")], indirect=True)
def test_at_debug_level_a_fault_is_told_in_full(log: io.StringIO) -> None:
    words = "what " + "it says"
    try:
        raise ValueError(words)
    except ValueError as error:
        logging.getLogger("datom_flight_server.x").error("failed", exc_info=error)
    assert words in log.getvalue()


@pytest.mark.parametrize("log", [("json", "info")], indirect=True)
def test_other_lines_are_json_too(log: io.StringIO) -> None:
    logging.getLogger("datom_flight_server.x").warning("project %s: %s", "P", 'a "b"\nc')
    told = json.loads(log.getvalue())
    assert (told["level"], told["logger"], told["message"]) == (
        "warning",
        "datom_flight_server.x",
        'project P: a "b"\nc',
    )
    logging.getLogger("botocore").info("others' chatter")
    assert "chatter" not in log.getvalue()
