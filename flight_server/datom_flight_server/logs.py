"""The server's log: one line for each call, and one for whatever else is worth telling; for people, or as JSON."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, TextIO

from .calls import Call, Subject

Format = Literal["human", "json"]
Level = Literal["info", "debug"]

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
_FRAMES = 50


class AccessLog:
    """Writes one line for each call that has ended. What a call carried is never in it.

    It passes by `logging`, whose records cost more than a small read has to spare.

    Args:
        stream: of text; what it does not take is lost.
    """

    def __init__(self, form: Format, stream: TextIO) -> None:
        self._line = _json_line if form == "json" else _human_line
        self._write = stream.write
        self._clock = _Clock()

    def __call__(self, call: Call) -> None:
        """Write the line of `call`."""
        # a full disk or a pipe that nobody reads any more fails no call
        with suppress(OSError, ValueError):
            self._write(self._line(self._clock.text(time.time()), call))


def configure(form: Format, level: Level, stream: TextIO) -> None:
    """Have `logging` write to `stream`: this package from `level`, others' warnings.

    Below debug, faults are told without their messages, which may hold what a caller sent or what is stored.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(form, says_all=level == "debug"))
    logging.basicConfig(handlers=[handler], force=True)
    logging.getLogger(__package__).setLevel(level.upper())


class _Clock:
    """Turns instants into text; what is the same for all within a second is made once."""

    def __init__(self) -> None:
        self._known = (0, "")

    def text(self, instant: float) -> str:
        second = int(instant)
        known, text = self._known
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._known = (second, text)
        return f"{text}.{int((instant - second) * 1000):03d}Z"


class _Formatter(logging.Formatter):
    def __init__(self, form: Format, *, says_all: bool) -> None:
        super().__init__()
        self._is_json = form == "json"
        self._says_all = says_all
        self._clock = _Clock()

    def format(self, record: logging.LogRecord) -> str:
        now = self._clock.text(record.created)
        message = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        trace = "" if error is None else _trace(error, self._says_all)
        if self._is_json:
            told = {"time": now, "level": record.levelname.lower(), "logger": record.name, "message": message}
            return _ENCODE(told | {"trace": trace} if trace else told)
        return f"{now} {record.levelname} {record.name} {message}" + (f"\n{trace}" if trace else "")


def _trace(error: BaseException, says_all: bool) -> str:
    """The frames and the class of `error` and of those it came from; `says_all`: what they say, too."""
    # with a limit of its own, since the server sets sys.tracebacklimit to 0
    if says_all:
        return "".join(traceback.format_exception(error, limit=_FRAMES)).rstrip()
    lines: list[str] = []
    told: BaseException | None = error
    while told is not None and len(lines) < _FRAMES:
        lines += [
            f"{type(told).__module__}.{type(told).__qualname__}\n",
            *traceback.format_tb(told.__traceback__, _FRAMES),
        ]
        told = told.__cause__ or (None if told.__suppress_context__ else told.__context__)
    return "".join(lines).rstrip()


def _human_line(now: str, call: Call) -> str:
    what = _places(call.subjects)
    if call.action is not None:
        what = f"{call.action} {what}" if what else call.action
    rows = "" if call.first_seconds is None else f" {call.rows} rows {call.bytes} bytes"
    trace = "" if call.trace is None else f" trace {call.trace.trace_id}"
    line = (
        f"{now} INFO access {call.id} {call.principal or '-'} {call.verb} {what or '-'} {call.code}{rows}"
        f" {call.seconds * 1000:.1f}ms{trace}"
    )
    # names are callers' own until they are found
    return (line if line.isprintable() else line.encode("unicode_escape").decode("ascii")) + "\n"


def _json_line(now: str, call: Call) -> str:
    # written out, since this is done for every call; texts alone need the encoder
    project, table, version = call.subjects[0] if len(call.subjects) == 1 else (None, None, None)
    tables = f',"tables":{_ENCODE([_place(*each) for each in call.subjects])}' if len(call.subjects) > 1 else ""
    trace = "" if call.trace is None else f',"trace":"{call.trace.trace_id}"'
    return (
        f'{{"time":"{now}","level":"info","logger":"access","request":"{call.id}","principal":{_text(call.principal)},'
        f'"verb":"{call.verb}","action":{_text(call.action)},"project":{_text(project)},"table":{_text(table)},'
        f'"version":{_text(version)},"rows":{call.rows},"bytes":{call.bytes},"ms":{call.seconds * 1000:.3f},'
        f'"code":"{call.code}"{tables}{trace}}}\n'
    )


def _text(value: str | None) -> str:
    return "null" if value is None else _ENCODE(value)


def _places(subjects: Sequence[Subject]) -> str:
    return _place(*subjects[0]) if len(subjects) == 1 else " ".join(_place(*subject) for subject in subjects)


def _place(project: str, table: str | None, version: str | None) -> str:
    if table is None:
        return project
    return f"{project}/{table}" if version is None else f"{project}/{table}@{version}"
