"""The commands that read, and those that say who one is and what there is."""

from __future__ import annotations

import os
import sys
from typing import Unpack

import click

from .. import output
from ..addresses import parse_urls
from ..credentials import checked, store_token
from ..opening import connect
from ..pins import Pin
from ..progress import RowProgress
from ..protocol.errors import InvalidRequestError
from .options import At, connected, fail, file_token, options, usage, version_options

PREVIEW_ROWS = 20


@click.command()
@click.argument("server", metavar="URL", required=False)
@options()
def login(server: str | None, how: str, **at: Unpack[At]) -> None:
    """Keep the token in the OS keyring, after asking for it and checking it."""
    url = server or at["url"] or os.environ.get("DATOM_FLIGHT_URL")
    if not url:
        raise click.UsageError("name the server: datom-flight login URL")
    urls = parse_urls(url)
    token = file_token(at["token_file"]) or checked(_asked_token())
    if token is None:
        raise InvalidRequestError("no token was given", hint="paste the token you were handed, on one line")
    with connect(url, at["project"], token=token, tls_root_certs=at["tls_root_certs"]) as conn:
        identity = conn.whoami()
    for each_url in urls:
        store_token(each_url, token)
    click.echo(f"token kept in the OS keyring for {', '.join(urls)}", err=True)
    output.print_answer(identity, how)


@click.command()
@options()
def whoami(how: str, **at: Unpack[At]) -> None:
    """Show who the server says you are."""
    with connected(**at) as conn:
        output.print_answer(conn.whoami(), how)


@click.command()
@options()
def projects(how: str, **at: Unpack[At]) -> None:
    """List the projects you may see."""
    with connected(**at) as conn:
        output.print_listing(conn.projects(), how)


@click.command()
@click.argument("pattern", required=False)
@options()
def tables(pattern: str | None, how: str, **at: Unpack[At]) -> None:
    """List the project's tables and sets.

    All of them, or those that the glob PATTERN fits.
    """
    with connected(**at) as conn:
        output.print_listing(conn.tables(pattern), how)


@click.command()
@options()
def summary(how: str, **at: Unpack[At]) -> None:
    """Show the project at a glance."""
    with connected(**at) as conn:
        output.print_answer(conn.summary(), how)


@click.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@options()
def history(name: str, limit: int | None, how: str, **at: Unpack[At]) -> None:
    """List the versions of NAME, newest first."""
    with connected(**at) as conn:
        output.print_listing(conn.history(name, limit), how)


@click.command()
@click.argument("name")
@version_options
@click.option("--pin", "pin_file", metavar="FILE", help="Take the version that this pin holds.")
@click.option("--columns", metavar="A,B", help="Only these columns, in this order.")
@click.option("--where", metavar="EXPR", help="Only rows for which this SQL expression is true.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Only the first N rows.")
@click.option("-o", "--output", "target", metavar="FILE", help="Write to a file: .parquet .arrow .feather .csv .json")
@options(rows=True)
def read(
    name: str,
    version: str | None,
    as_of: str | None,
    pin_file: str | None,
    columns: str | None,
    where: str | None,
    limit: int | None,
    target: str | None,
    how: str,
    **at: Unpack[At],
) -> None:
    """Read rows of the table NAME.

    They go to a file with -o, else to stdout; as a table, only the first of them do.
    """
    # Loaded here, because parquet and csv take longer to load than the other commands to run.
    from .. import rows
    from .showing import check_terminal, show

    if target is not None:
        usage(rows.file_format, target)
    check_terminal(how, target)
    pin = Pin.load(pin_file) if pin_file is not None else None
    names = None if columns is None else [column.strip() for column in columns.split(",")]
    with connected(pin, **at) as conn, RowProgress(name) as progress:
        scan = conn.open(name, version, as_of=as_of, pin=pin, columns=names, where=where, limit=limit)
        of = f", version {(scan.version or 'unnamed')[:8]}"
        show(scan, how, target, PREVIEW_ROWS if limit is None else limit, of, progress)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--as-of", metavar="TIME", help="The versions current at that date or time (ISO 8601, UTC).")
@click.option("-o", "--output", "target", metavar="FILE", help="Where to save the pin; else it goes to stdout.")
@options()
def pin(names: tuple[str, ...], as_of: str | None, target: str | None, how: str, **at: Unpack[At]) -> None:
    """Save the versions of tables to a file.

    Of the tables named, or of all of the project; the file is made to be committed beside an analysis.
    """
    with connected(**at) as conn:
        made = conn.pin(names or None, as_of=as_of)
    if target is not None:
        made.save(target)
        click.echo(f'pinned {len(made.tables)} tables of "{made.project}" in {target}', err=True)
    elif how == "json":
        click.echo(made.to_json(), nl=False)
    else:
        output.print_listing(made.rows(), how)


@click.command()
@click.argument("file", metavar="FILE")
@options()
def verify(file: str, how: str, **at: Unpack[At]) -> int:
    """Check the tables that a pin holds.

    Every table of the pin in FILE is fetched, and its values are compared with the hash recorded for them.
    """
    pinned = Pin.load(file)
    with connected(pinned, **at) as conn:
        findings = conn.verify(pinned)
    output.print_listing(findings, how)
    differ = sum(not finding.ok for finding in findings)
    return fail(f"{differ} of {len(findings)} tables are not verified (see the findings)") if differ else 0


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@version_options
@click.option("--pin", "pin_file", metavar="FILE", help="The tables, or those named, at the versions this pin holds.")
@options()
def prefetch(
    names: tuple[str, ...],
    version: str | None,
    as_of: str | None,
    pin_file: str | None,
    how: str,
    **at: Unpack[At],
) -> int:
    """Have the server fetch tables before they are read.

    The tables named, or all of the project or the pin; those that the server has already cost nothing.
    """
    pin = Pin.load(pin_file) if pin_file is not None else None
    with connected(pin, **at) as conn:
        fetched = conn.prefetch(names or None, version, as_of=as_of, pin=pin)
    output.print_listing(fetched, how)
    missing = sum(found.error is not None for found in fetched)
    return fail(f"{missing} of {len(fetched)} tables cannot be fetched (see the list)") if missing else 0


def _asked_token() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True, err=True))
    return sys.stdin.readline()


COMMANDS = (login, whoami, projects, tables, summary, history, read, prefetch, pin, verify)
