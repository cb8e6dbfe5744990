"""The command ``datom-flight``: data on stdout, all else on stderr; exit 0 done, 1 refused or failed, 2 usage."""

from __future__ import annotations

import os
import sys
import warnings

import click

from .. import text
from ..protocol.errors import DatomError
from . import querying, reading, writing
from .options import fail

INTERRUPTED = 130


def main() -> int:
    """Run the command line; gives the exit code."""
    # gRPC's own lines about failed handshakes say less than the error that follows them.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = commands.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        # A call under way ends at its deadline only; nobody who pressed Ctrl-C wants to wait for it.
        sys.stdout.flush()
        os._exit(INTERRUPTED)
    except DatomError as error:
        return fail(str(error))
    except OSError as error:
        return fail(f'"{error.filename}": {error.strerror}' if error.filename else str(error))
    return code or 0


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"warning: {text.clean(message)}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="datom-flight")
def commands() -> None:
    """Read pinned tables from a datom server, and write new versions of them."""


for command in (*reading.COMMANDS, *querying.COMMANDS, *writing.COMMANDS):
    commands.add_command(command)
