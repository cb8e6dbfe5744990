"""``datom-flight-server``: serve, check the settings, make tokens."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click
import platformdirs

from datom_flight.protocol.errors import DatomError
from datom_flight.protocol.names import validate_name

from . import logs
from .listening import refuse_taken
from .model import Principal, Role
from .settings import Settings, SettingsError, load_auth
from .signals import Signals

if TYPE_CHECKING:
    from .app import App

_log = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Commands(click.Group):
    """Commands whose refusals are one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DatomError as error:
            _report(error)
        raise click.exceptions.Exit(1)


class _Duration(click.ParamType[timedelta]):
    """A time like 90d, 12h, 30m or 45s."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"([0-9]{1,5})([smhdw])", value.strip().lower())
        if match is None or int(match[1]) == 0:
            raise click.BadParameter(f'"{value}" is not a time like 90d, 12h or 30m', ctx, param)
        units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
        return timedelta(**{units[match[2]]: int(match[1])})


_config = click.option(
    "--config", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The settings, a TOML file."
)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="datom-flight", message="%(prog)s %(version)s")
def main() -> None:
    """Serve datom tables over Arrow Flight."""


@main.command()
@_config
def serve(config: Path) -> None:
    """Serve until SIGTERM or Ctrl-C; a second one ends at once. SIGHUP reads FILE again, and looks for new projects."""
    _lighten_arrow()
    settings = Settings.load(config, os.environ)
    logs.configure(settings.log.format, settings.log.level, sys.stderr)
    with _ending():
        _serve(settings, logs.AccessLog(settings.log.format, sys.stderr), lambda: Settings.load(config, os.environ))


@main.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path), metavar="DIR", help="Where the demo is kept.")
@click.option("--listen", metavar="URL", help="Where to listen [grpc://127.0.0.1:8815; for the story, a free port].")
@click.option("--story", is_flag=True, help="Play the hand-off from engineer to statistician instead, and end.")
def demo(directory: Path | None, listen: str | None, story: bool) -> None:
    """Serve a made-up study, with a token for a reader and one for a developer."""
    _lighten_arrow()

    from .demo.serving import demo_settings, demo_tokens
    from .demo.store import create_organisation
    from .demo.story import CUTS_AT_HANDOFF, play, write_cuts

    with _ending(), tempfile.TemporaryDirectory(prefix="datom-flight-demo-") as elsewhere:
        if story:
            play(create_organisation(directory or elsewhere), listen or "grpc://127.0.0.1:0", click.echo)
            return
        organisation = create_organisation(directory or platformdirs.user_data_path("datom-flight") / "demo")
        write_cuts(organisation, CUTS_AT_HANDOFF)
        settings = demo_settings(organisation, listen or "grpc://127.0.0.1:8815")
        logs.configure(settings.log.format, settings.log.level, sys.stderr)
        for role, made in demo_tokens(settings).items():
            click.echo(f"{role.value} token: {made}")
        for line in (
            f"the demo is kept in {organisation.root}; in another terminal, try:",
            "  export DATOM_FLIGHT_TOKEN=<the reader token>",
            f"  export DATOM_FLIGHT_URL={settings.server.listen} DATOM_FLIGHT_PROJECT={organisation.project.name}",
            "  datom-flight tables",
            "  datom-flight read dm --limit 5",
        ):
            click.echo(line, err=True)
        _serve(settings)


class _WithoutPandas(MetaPathFinder):
    """Hides pandas from Arrow, which loads it wherever it is installed: 35 MB, and a third of the time to start."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("the server does without pandas", name=fullname)


def _lighten_arrow() -> None:
    """To be called before Arrow is loaded."""
    # its own choice of allocator holds on to half as much again as is kept of decoded tables
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    sys.meta_path.insert(0, _WithoutPandas())


@contextmanager
def _ending() -> Iterator[None]:
    """Around a server: end the process when it is done, by force.

    A stalled reader holds a thread that the interpreter would wait for.
    """
    try:
        yield
    except (DatomError, OSError) as error:
        _report(error if isinstance(error, DatomError) else DatomError.of("unavailable", str(error), hint=""))
        _end(1)
    _end(0)


def _serve(
    settings: Settings, access: logs.AccessLog | None = None, read_again: Callable[[], Settings] | None = None
) -> None:
    # Loading Arrow takes longer than all that other commands do.
    from .app import App

    refuse_taken("server.listen", settings.server.listen.partition("://")[2])
    app = App(settings, access)
    try:
        url = app.start()
    except OSError as error:
        raise DatomError.of("unavailable", f"the server cannot start: {error}", hint="") from None
    signals = Signals((*_STOP_SIGNALS, signal.SIGHUP))
    click.echo(f"listening on {url}")
    for number in signals:
        if number in _STOP_SIGNALS:
            break
        if read_again is None:
            app.refresh()
        else:
            _renew(app, read_again)
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda number, _: _end(128 + number))
    if not app.stop():
        _log.warning("streams were still running at the end of the grace period, and were cut")


def _renew(app: App, read_again: Callable[[], Settings]) -> None:
    try:
        later = app.renew(read_again())
    except DatomError as error:
        _log.error("settings stay as they were: %s", error)
        return
    _log.info("settings were read again")
    if later:
        _log.warning("these take a restart: %s", ", ".join(later))


@main.command()
@_config
def check(config: Path) -> None:
    """Say whether everything the settings name is there and can be reached."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .check import State, run_checks

    styles = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "bold red"}
    results = list(run_checks(config, os.environ))
    table = Table("check", "state", "detail", box=None, pad_edge=False)
    for result in results:
        table.add_row(Text(result.subject), Text(result.state.value, styles[result.state]), Text(result.detail))
    # into a file or a pipe, lines are not broken to a width that nobody has
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
    failed = sum(result.state is State.FAILED for result in results)
    if failed:
        _complain(f"{failed} of {len(results)} checks failed; what to do stands beside each")
        sys.exit(1)


@main.command()
@_config
@click.argument("project")
def init(config: Path, project: str) -> None:
    """Begin PROJECT, which the settings name, in an empty place and an empty repository."""
    from .creation import begin

    with _ending():
        commit = begin(Settings.load(config, os.environ), project)
        click.echo(f"project {project} begins with commit {commit}")


@main.command()
@_config
@click.argument("projects", nargs=-1, metavar="[PROJECT]...")
def repair(config: Path, projects: tuple[str, ...]) -> None:
    """Write what git has and the storage lacks, or has otherwise; data is never touched."""
    from .repair import repair as repaired

    written = failed = 0
    with _ending():
        for project, outcome in repaired(Settings.load(config, os.environ), projects):
            if isinstance(outcome, DatomError):
                failed += 1
                _complain(f"{project}: {outcome}")
            elif outcome.done:
                written += 1
                click.echo(f"{project}: {outcome.key} {outcome.reason}: written")
            else:
                failed += 1
                _complain(f"{project}: {outcome.key} {outcome.reason}")
        click.echo(f"{written} documents written", err=True)
        if failed:
            _end(1)


@main.group()
def token() -> None:
    """Make tokens, and look at them."""


@token.command()
@_config
@click.option("--principal", required=True, metavar="P", help="Who will hold the token.")
@click.option("--role", required=True, type=click.Choice([role.value for role in Role]))
@click.option("--project", "projects", multiple=True, metavar="P", help="A project it holds for; none: all.")
@click.option("--expires", type=_Duration(), default="90d", show_default=True, help="For how long: 90d, 12h, 30m.")
def create(config: Path, principal: str, role: str, projects: tuple[str, ...], expires: timedelta) -> None:
    """Print a new token."""
    from .auth.tokens import Tokens

    held_for = frozenset(validate_name(name, "project") for name in projects) if projects else None
    tokens = Tokens.of(load_auth(config, os.environ))
    click.echo(tokens.create(Principal(principal, Role(role), held_for), expires))


@token.command()
@_config
@click.argument("source", metavar="[FILE]", type=click.File(), default="-")
def show(config: Path, source: TextIO) -> None:
    """Print what the token in FILE, or on stdin, says: its id, whose it is, what for, from when and until when."""
    from .auth.tokens import Tokens

    facts = Tokens.of(load_auth(config, os.environ)).facts(source.read().strip())
    projects = facts.principal.projects
    for name, value in (
        ("id", facts.id),
        ("principal", facts.principal.name),
        ("role", facts.principal.role.value),
        ("projects", "all" if projects is None else ", ".join(sorted(projects))),
        ("made", f"{facts.made:%Y-%m-%dT%H:%M:%SZ}"),
        ("expires", f"{facts.expires:%Y-%m-%dT%H:%M:%SZ}"),
    ):
        click.echo(f"{name:<10}{value}")


def _report(error: DatomError) -> None:
    if isinstance(error, SettingsError):
        for problem in error.problems:
            _complain(f"{error.path}: {problem}")
    else:
        _complain(f"{error.message} ({error.hint})" if error.hint else error.message)


def _complain(text: str) -> None:
    click.echo("error: " + " ".join(text.split()), err=True)


def _end(code: int) -> NoReturn:
    # a stalled reader holds a thread that the interpreter would wait for, and DuckDB reports to stderr as it goes
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
