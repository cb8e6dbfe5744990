"""What the commands share: where they go and as whom, and how they fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import click

from .. import text
from ..connection import Connection
from ..credentials import checked
from ..opening import connect
from ..pins import Pin
from ..protocol.errors import InvalidRequestError

Command = TypeVar("Command", bound=Callable[..., Any])


class At(TypedDict):
    """Where a command goes, and as whom."""

    url: str | None
    project: str | None
    token_file: str | None
    tls_root_certs: str | None


FORMATS = ("table", "json", "csv")
ROW_FORMATS = (*FORMATS, "arrow", "parquet")


def options(*, rows: bool = False) -> Callable[[Command], Command]:
    """Add what every command takes; `rows`: it gives a table's rows, which go out in more formats."""
    return lambda command: _with_options(command, ROW_FORMATS if rows else FORMATS)


def _with_options(command: Command, formats: Sequence[str]) -> Command:
    for option in (
        click.option("--format", "how", type=click.Choice(formats), default="table", show_default=True),
        click.option("--tls-root-certs", metavar="FILE", help="PEM file of the authority of the server's certificate."),
        click.option(
            "--token-file", metavar="FILE", help="File with the token [else DATOM_FLIGHT_TOKEN, else keyring]."
        ),
        click.option("--project", metavar="NAME", help="The project [else DATOM_FLIGHT_PROJECT]."),
        click.option(
            "--url", metavar="URL", help="The server, or replicas with commas between [else DATOM_FLIGHT_URL]."
        ),
    ):
        command = option(command)
    return command


def version_options(command: Command) -> Command:
    """Add what names a version."""
    for option in (
        click.option("--as-of", metavar="TIME", help="The version current at that date or time (ISO 8601, UTC)."),
        click.option("--version", metavar="V", help="A version's id, or a unique prefix of it."),
    ):
        command = option(command)
    return command


def fail(why: str) -> int:
    """Say on stderr why, in one line; gives the exit code."""
    click.echo("error: " + text.clean(why), err=True)
    return 1


def connected(pin: Pin | None = None, **at: Unpack[At]) -> Connection:
    """A connection as the options say; a pin names its project."""
    project = at["project"] or (pin.project if pin is not None else None)
    return connect(at["url"], project, token=file_token(at["token_file"]), tls_root_certs=at["tls_root_certs"])


def file_token(path: str | None) -> str | None:
    """The token in a file, or None without a file."""
    if path is None:
        return None
    token = checked(Path(path).read_text(encoding="utf-8", errors="replace"))
    if token is None:
        raise InvalidRequestError(f'token file "{path}" is empty', hint="put the token into it, on one line")
    return token


def usage(check: Callable[[str], object], value: str) -> None:
    """Wrong usage, exit code 2, when `check` refuses `value`."""
    try:
        check(value)
    except InvalidRequestError as error:
        raise click.UsageError(f"{error.message} ({error.hint})") from None
