"""Small questions: how long one waits for an answer."""

from __future__ import annotations

from typing import Any

import datom
import pyarrow.flight as fl

from .data import ARCHIVE, STUDY
from .rounds import Bar, Case, Contender
from .stage import Stage

_CALLS = 200
_PEER_CALLS = 20


def small(stage: Stage) -> Case:
    """A pinned table of 48 rows."""
    connection, official = stage.server.connection(STUDY), stage.official(STUDY)
    version = stage.data.version("dm")
    return Case(
        "small",
        "small table, pinned",
        {
            "ours": Contender(lambda: connection.read("dm", version), _CALLS, process=lambda: stage.server.process),
            "bare Flight server": Contender(
                lambda: stage.bare_client.do_get(fl.Ticket(b"dm")).read_all(), _CALLS, process=lambda: stage.bare
            ),
            "bare Flight server, with an end record": Contender(
                lambda: stage.bare_client.do_get(fl.Ticket(b"dm ended")).read_all(), _CALLS, process=lambda: stage.bare
            ),
            "official reader on S3": Contender(lambda: datom.read(official, "dm", version, as_arrow=True), _PEER_CALLS),
        },
        [
            _median(1.5, "bare Flight server, with an end record"),
            Bar("99th percentile ≤ 6 ms", lambda t: t["ours"].p99 * 1e3, at_most=6, unit="ms", needs=("ours",)),
        ],
    )


def history(stage: Stage) -> Case:
    """All versions of a table that has many."""
    connection, official = stage.server.connection(ARCHIVE), stage.official(ARCHIVE)
    versions = len(connection.history("t0000"))
    return Case(
        "history",
        f"history of {versions} versions, warm",
        {
            "ours": Contender(lambda: connection.history("t0000"), _CALLS, process=lambda: stage.server.process),
            "official reader on S3": Contender(lambda: datom.history(official, "t0000", n=10**6), _PEER_CALLS),
        },
        [_median(5)],
    )


def tables(stage: Stage) -> Case:
    """All tables of a project that has many."""
    connection, official = stage.server.connection(ARCHIVE), stage.official(ARCHIVE)
    number = len(connection.tables())
    return Case(
        "tables",
        f"list of {number} tables, warm",
        {
            "ours": Contender(lambda: connection.tables(), _PEER_CALLS, process=lambda: stage.server.process),
            "official reader on S3": Contender(lambda: datom.list_artifacts(official), _PEER_CALLS),
        },
        [_median(50)],
    )


def first_batch(stage: Stage) -> Case:
    """The first rows of the whole table."""
    connection = stage.server.connection(STUDY)

    def ours() -> Any:
        reader = connection.scan("lb")
        return reader, reader.read_next_batch()

    def bare() -> Any:
        reader = stage.bare_client.do_get(fl.Ticket(b"lb"))
        return reader, reader.read_chunk()

    return Case(
        "first-batch",
        "first batch of the full scan, warm",
        {
            "ours": Contender(ours, _PEER_CALLS, after=lambda r: r[0].close(), process=lambda: stage.server.process),
            "bare Flight server": Contender(
                bare, _PEER_CALLS, after=lambda r: r[0].cancel(), process=lambda: stage.bare
            ),
        },
    )


def start(stage: Stage) -> Case:
    """A server's start, until it answers; it knows a project of many tables and has nothing cached."""
    server = stage.cold_server

    def answers() -> None:
        server.connection(ARCHIVE).tables()

    return Case(
        "start",
        "start to serving, and the list of tables",
        {"ours": Contender(answers, before=server.stop)},
        [Bar("≤ 2 s", lambda t: t["ours"].median, at_most=2, unit="s", needs=("ours",))],
        warm=False,
    )


def _median(milliseconds: float, ceiling: str | None = None) -> Bar:
    return Bar(
        f"median ≤ {milliseconds:g} ms",
        lambda t: t["ours"].median * 1e3,
        at_most=milliseconds,
        unit="ms",
        needs=("ours",),
        ceiling=None if ceiling is None else lambda t: t[ceiling].median * 1e3,
    )
