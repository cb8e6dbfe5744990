"""SQL by the stock ADBC driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .data import STUDY
from .processes import Process
from .reads import times_as_fast
from .rounds import Bar, Case, Contender
from .stage import Stage

_CALLS = 100
_AGGREGATION = (
    'SELECT "LBTESTCD", count(*) AS n, avg("LBSTRESN") AS mean, min("LBSTRESN") AS low, max("LBSTRESN") AS high '
    'FROM lb GROUP BY "LBTESTCD" ORDER BY "LBTESTCD"'
)
_FILTERED = 'SELECT * FROM lb WHERE "LBTESTCD" = \'ALT\' AND "LBSTRESN" > 100'


def scan(stage: Stage) -> Case:
    """The whole table."""
    return Case(
        "adbc-scan",
        "SELECT * by ADBC, warm",
        {
            "ours": _ours(stage, "SELECT * FROM lb"),
            "bare Flight server": Contender(
                _query(stage.cursor(stage.bare.said), "SELECT * FROM lb"), process=lambda: stage.bare
            ),
            **_peers(stage, "SELECT * FROM lb"),
        },
        [
            times_as_fast("bare Flight server", 0.90, "≥ 0.90 of the bare Flight server"),
            *(times_as_fast(peer, 2, f"≥ 2 × {peer}", "bare Flight server") for peer in ("ROAPI", "Sail")),
        ],
    )


def aggregation(stage: Stage) -> Case:
    """A row for each test."""
    return _computed(stage, "aggregation", "aggregation by ADBC, warm", _AGGREGATION)


def filtered(stage: Stage) -> Case:
    """A few rows of all over the table."""
    return _computed(stage, "adbc-filter", "filtered query by ADBC, warm", _FILTERED)


def one(stage: Stage) -> Case:
    """A round trip, with a cursor that is open: to open one takes the driver longer than a server's answer."""
    connection = stage.server.connection(STUDY)
    return Case(
        "select-1",
        "SELECT 1 by ADBC",
        {
            "ours": _ours(stage, "SELECT 1", _CALLS),
            "ours, by its own client": Contender(
                lambda: connection.sql("SELECT 1"), _CALLS, process=lambda: stage.server.process
            ),
            "bare Flight server": Contender(
                _query(stage.cursor(stage.bare.said), "SELECT 1"), _CALLS, process=lambda: stage.bare
            ),
            **_peers(stage, "SELECT 1", _CALLS),
        },
        [
            _under_three_ms("median < 3 ms", "ours", ceiling="bare Flight server"),
            _under_three_ms("by its own client: median < 3 ms", "ours, by its own client"),
        ],
    )


def _computed(stage: Stage, name: str, what: str, query: str) -> Case:
    return Case(
        name,
        what,
        {
            "ours": _ours(stage, query, 3),
            **_peers(stage, query, 3),
            "DuckDB, local file": Contender(lambda: stage.duckdb.sql(query).to_arrow_table(), 3),
        },
        [times_as_fast(peer, 1, f"faster than {peer}") for peer in ("ROAPI", "Sail")],
    )


def _ours(stage: Stage, query: str, calls: int = 1) -> Contender:
    server = stage.server
    return Contender(_query(stage.cursor(server.url, server.token), query), calls, process=lambda: server.process)


def _peers(stage: Stage, query: str, calls: int = 1) -> dict[str, Contender]:
    def contender(process: Process, text: str) -> Contender:
        return Contender(_query(stage.cursor(process.said), text), calls, process=lambda: process)

    peers = {}
    if stage.has("roapi"):
        peers["ROAPI"] = contender(stage.roapi, query)
    if stage.has("pysail"):
        # Spark's SQL quotes names with backticks
        peers["Sail"] = contender(stage.sail, query.replace('"', "`"))
    return peers


def _query(cursor: Any, query: str) -> Callable[[], Any]:
    def run() -> Any:
        cursor.execute(query)
        return cursor.fetch_arrow_table()

    return run


def _under_three_ms(name: str, who: str, ceiling: str | None = None) -> Bar:
    return Bar(
        name,
        lambda t: t[who].median * 1e3,
        at_most=3,
        unit="ms",
        needs=(who,),
        ceiling=None if ceiling is None else lambda t: t[ceiling].median * 1e3,
    )
