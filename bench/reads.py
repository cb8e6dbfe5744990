"""Reading tables: whole, cold, in part, large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datom
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.flight as fl
import pyarrow.parquet as pq

from .data import STUDY
from .rounds import Bar, Case, Contender, Timings
from .stage import COLUMNS, FOLDER, SMALL_CACHE_BYTES, Stage

_ALLOWANCE_BYTES = 400 * 10**6

_WHERE = "LBTESTCD = 'ALT' AND LBSTRESN > 100"
_EXPRESSION = (pc.field("LBTESTCD") == "ALT") & (pc.field("LBSTRESN") > 100)
_SUBJECT = "001-102-00704"


def scan(stage: Stage) -> Case:
    """The whole table, warm."""
    official = stage.official(STUDY)
    return Case(
        "scan",
        "full scan, warm",
        {
            "ours": _ours(stage, lambda conn: conn.read("lb")),
            "ours, pinned": _ours(stage, lambda conn: conn.read("lb", stage.data.version("lb"))),
            "bare Flight server": _bare(stage, "lb"),
            "pyarrow on S3": Contender(lambda: pq.read_table(stage.s3_path("lb"), filesystem=stage.s3_files)),
            "DuckDB, local file": Contender(lambda: stage.duckdb.sql("FROM lb").to_arrow_table()),
            "official reader on S3": Contender(lambda: datom.read(official, "lb", as_arrow=True)),
        },
        [
            times_as_fast("bare Flight server", 0.90, "≥ 0.90 of the bare Flight server"),
            Bar(
                "≥ 0.85 of the bare server's lead over the official reader",
                _share_of_lead,
                at_least=0.85,
                needs=("bare Flight server", "official reader on S3"),
            ),
        ],
    )


def cold(stage: Stage) -> Case:
    """The whole table with nothing cached: fetched, verified, decoded, sent."""
    server = stage.cold_server
    official = stage.official(STUDY)

    def ours(project: str) -> Contender:
        def begin_anew() -> None:
            server.stop()
            # a process that is at work, as the others are, and has no data yet
            server.connection(project).tables()

        return Contender(
            lambda: server.connection(project).read("lb"), before=begin_anew, process=lambda: server.process
        )

    return Case(
        "cold",
        "full scan, cold",
        {
            "ours": ours(STUDY),
            "ours, from a folder": ours(FOLDER),
            "pyarrow on S3": Contender(lambda: pq.read_table(stage.s3_path("lb"), filesystem=stage.s3_files)),
            "official reader on S3": Contender(lambda: datom.read(official, "lb", as_arrow=True)),
        },
        [
            Bar(
                "≤ 1.6 × the time of pyarrow on the same S3 (aim: 1.2)",
                lambda t: t["ours"].median / t["pyarrow on S3"].median,
                at_most=1.6,
                needs=("ours", "pyarrow on S3"),
            )
        ],
        warm=False,
    )


def columns(stage: Stage) -> Case:
    """Two columns of ten, warm."""
    official = stage.official(STUDY)
    return Case(
        "columns",
        "two columns of ten, warm",
        {
            "ours": _ours(stage, lambda conn: conn.read("lb", columns=COLUMNS)),
            "ours, full scan": _ours(stage, lambda conn: conn.read("lb")),
            "bare Flight server": _bare(stage, "columns"),
            "pyarrow on S3": Contender(
                lambda: pq.read_table(stage.s3_path("lb"), columns=COLUMNS, filesystem=stage.s3_files)
            ),
            "DuckDB, local file": Contender(
                lambda: stage.duckdb.sql(f"SELECT {', '.join(COLUMNS)} FROM lb").to_arrow_table()
            ),
            "official reader on S3": Contender(lambda: datom.read(official, "lb", as_arrow=True).select(COLUMNS)),
        },
        [
            times_as_fast("ours, full scan", 4, "≥ 4 × faster than the full scan"),
            times_as_fast("official reader on S3", 8, "≥ 8 × faster than the official reader", "bare Flight server"),
        ],
    )


def filtered(stage: Stage) -> Case:
    """A few rows of all over the table: no row group can be skipped."""
    return _where(stage, "filter", "selective filter, warm", _WHERE, _EXPRESSION)


def subject(stage: Stage) -> Case:
    """One subject's rows, which stand together: most row groups can be skipped."""
    return _where(
        stage, "subject", "one subject's rows, warm", f"USUBJID = '{_SUBJECT}'", pc.field("USUBJID") == _SUBJECT
    )


def limit(stage: Stage) -> Case:
    """The first hundred rows."""
    return Case(
        "limit",
        "limit 100, warm",
        {
            "ours": _ours(stage, lambda conn: conn.read("lb", limit=100), calls=20),
            "pyarrow on S3": Contender(
                lambda: ds.dataset(stage.s3_path("lb"), filesystem=stage.s3_files).head(100), calls=3
            ),
            "DuckDB, local file": Contender(lambda: stage.duckdb.sql("FROM lb LIMIT 100").to_arrow_table(), calls=20),
        },
    )


def wide(stage: Stage) -> Case:
    """A table of many columns, whole."""
    return Case(
        "wide",
        "wide table, full scan, warm",
        {
            "ours": _ours(stage, lambda conn: conn.read("wide")),
            "bare Flight server": _bare(stage, "wide"),
            "pyarrow on S3": Contender(lambda: pq.read_table(stage.s3_path("wide"), filesystem=stage.s3_files)),
        },
    )


def wide_columns(stage: Stage) -> Case:
    """Two columns of a table of many."""
    names = ["USUBJID", "A0010"]
    return Case(
        "wide-columns",
        "wide table, two columns, warm",
        {
            "ours": _ours(stage, lambda conn: conn.read("wide", columns=names)),
            "pyarrow on S3": Contender(
                lambda: pq.read_table(stage.s3_path("wide"), columns=names, filesystem=stage.s3_files)
            ),
        },
    )


def large(stage: Stage) -> Case:
    """A table larger than the server's memory may be, streamed through."""
    server = stage.small_server

    def stream() -> None:
        for _ in server.connection(STUDY).scan("long"):
            pass

    return Case(
        "large",
        "20-million-row table, memory cache of 256 MB",
        {"ours": Contender(stream, process=lambda: server.process)},
        [
            Bar(
                "server peak ≤ 256 MB + 400 MB",
                lambda t: (t["ours"].peak_bytes or 0) / 10**6,
                at_most=(SMALL_CACHE_BYTES + _ALLOWANCE_BYTES) / 10**6,
                unit="MB",
                needs=("ours",),
            )
        ],
        warm=False,
    )


def times_as_fast(other: str, times: float, text: str, ceiling: str | None = None) -> Bar:
    """Ours takes at most the time of `other` divided by `times`; `ceiling` is who cannot be beaten."""
    return Bar(
        text,
        lambda t: t[other].median / t["ours"].median,
        at_least=times,
        needs=("ours", other),
        ceiling=None if ceiling is None else lambda t: t[other].median / t[ceiling].median,
    )


def _share_of_lead(timings: Timings) -> float:
    official = timings["official reader on S3"].median
    return (official / timings["ours"].median) / (official / timings["bare Flight server"].median)


def _ours(stage: Stage, read: Callable[[Any], Any], calls: int = 1) -> Contender:
    connection = stage.server.connection(STUDY)
    return Contender(lambda: read(connection), calls, process=lambda: stage.server.process)


def _bare(stage: Stage, name: str) -> Contender:
    return Contender(lambda: stage.bare_client.do_get(fl.Ticket(name.encode())).read_all(), process=lambda: stage.bare)


def _where(stage: Stage, name: str, what: str, where: str, expression: pc.Expression) -> Case:
    return Case(
        name,
        what,
        {
            "ours": _ours(stage, lambda conn: conn.read("lb", where=where), calls=3),
            "pyarrow on S3": Contender(
                lambda: pq.read_table(stage.s3_path("lb"), filters=expression, filesystem=stage.s3_files)
            ),
            "DuckDB, local file": Contender(
                lambda: stage.duckdb.sql(f"FROM lb WHERE {where}").to_arrow_table(), calls=3
            ),
        },
    )
