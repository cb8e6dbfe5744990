"""The command that runs SQL."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Unpack

import click
import pyarrow as pa

from .. import text
from ..origins import Pinned, pins_of
from ..pins import Pin
from ..progress import RowProgress
from ..protocol.errors import InvalidRequestError
from .options import At, connected, options, usage

PREVIEW_ROWS = 100

_SHOWN_PINS = 5


@click.command()
@click.argument("query", required=False)
@click.option("--file", "query_file", metavar="FILE", help="Take the query from a file.")
@click.option("--param", "parameters", multiple=True, metavar="VALUE", help="A value for the next ? of the query.")
@click.option("--as-of", metavar="TIME", help="Read tables as they were at that date or time (ISO 8601, UTC).")
@click.option("--pin", "pin_file", metavar="FILE", help="Take the versions of this pin, or of this earlier result.")
@click.option("-o", "--output", "target", metavar="FILE", help="Write to a file: .parquet .arrow .feather .csv .json")
@options(rows=True)
def sql(
    query: str | None,
    query_file: str | None,
    parameters: tuple[str, ...],
    as_of: str | None,
    pin_file: str | None,
    target: str | None,
    how: str,
    **at: Unpack[At],
) -> None:
    """Run one SELECT on the server.

    QUERY is the query itself, or - to read it from stdin. Rows go to a file with -o, else to stdout; as a table, only
    the first of them do. Parameters are texts, which take the type of what they are compared with.
    """
    from .. import rows
    from .showing import check_terminal, show

    if target is not None:
        usage(rows.file_format, target)
    asked = _text(query, query_file)
    check_terminal(how, target)
    pin = _pin(pin_file) if pin_file is not None else None
    with connected(pin if isinstance(pin, Pin) else None, **at) as conn, RowProgress("sql") as progress:
        scan = conn.open_sql(asked, parameters or None, as_of=as_of, pin=pin)
        show(scan, how, target, PREVIEW_ROWS, _origin(scan.schema, conn.project), progress)


def _text(query: str | None, file: str | None) -> str:
    if (query is None) == (file is None):
        raise click.UsageError("give a query, - to read it from stdin, or --file FILE")
    if file is not None:
        return Path(file).read_text(encoding="utf-8-sig", errors="replace")
    return sys.stdin.read() if query == "-" else str(query)


def _pin(path: str) -> Pinned:
    """The pin in a file, or what a result that was saved in one says of itself."""
    from .. import rows

    return rows.read_schema(path) if Path(path).suffix.lower() in rows.SCHEMA_ENDINGS else Pin.load(path)


def _origin(schema: pa.Schema, project: str | None) -> str:
    """What a result is of, as the line below it says it."""
    try:
        pins = pins_of(schema)
    except InvalidRequestError:
        # The current document of a table is in no version of its history; the rows are right all the same.
        return ""
    names = [
        text.clean(f"{'' if pin.project == project else pin.project + '.'}{pin.table}@{pin.version[:8]}")
        for pin in pins
    ]
    more = f" and {len(names) - _SHOWN_PINS} more" if len(names) > _SHOWN_PINS else ""
    return f", of {', '.join(names[:_SHOWN_PINS])}{more}" if names else ""


COMMANDS = (sql,)
