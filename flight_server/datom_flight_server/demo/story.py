"""The story of the hand-off, played with the real server and the real commands.

An engineer keeps STUDY_001; a statistician reads it with one token, pins what she read, and gets the same bytes again
when the study has moved on.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from datom_flight.protocol.errors import InternalError

from ..app import App
from ..model import Role
from .data import CUTS, cut, cut_day
from .serving import PEOPLE, demo_settings, demo_tokens
from .store import PROJECT, Organisation

CUTS_AT_HANDOFF = 6
_CUTS_LATER = 3
_ENGINEER = PEOPLE[Role.DEVELOPER]
_STATISTICIAN = PEOPLE[Role.READER]
_PIN = "interim-analysis.pin.json"
_COMMAND_SECONDS = 120


def write_cuts(organisation: Organisation, last: int) -> None:
    """Write the monthly cuts up to `last` that `organisation` does not have yet."""
    for number in range(organisation.cuts_written + 1, last + 1):
        organisation.write_cut(number)


def play(organisation: Organisation, listen: str, say: Callable[[str], None]) -> None:
    """Play the story to its end.

    Args:
        organisation: where it takes place; cuts it already has stay.
        say: told every line.

    Raises:
        DatomError: when the story does not end as it must; ``internal`` names the step.
    """
    write_cuts(organisation, CUTS_AT_HANDOFF)
    settings = demo_settings(organisation, listen)
    app = App(settings)
    try:
        with tempfile.TemporaryDirectory(prefix="datom-flight-story-") as folder:
            _Story(organisation, app.start(), demo_tokens(settings), Path(folder), say).tell()
    finally:
        app.stop(grace_seconds=1)


class _Story:
    def __init__(
        self,
        organisation: Organisation,
        url: str,
        tokens: Mapping[Role, str],
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self._organisation = organisation
        self._url = url
        self._tokens = tokens
        self._laptop = folder / "laptop"
        self._desk = folder / "desk"
        self._say = say
        for place in (self._laptop, self._desk):
            place.mkdir()

    def tell(self) -> None:
        self._hand_off()
        self._read()
        self._pin()
        before = self._snapshot("then")
        self._move_on()
        after = self._snapshot("again")
        self._compare(before, after)
        self._refuse()
        self._say("\nThe hand-off was one-way: nothing was copied, nothing was sent, nothing could be changed.")

    def _hand_off(self) -> None:
        self._title("The engineer hands off")
        cuts = self._organisation.cuts_written
        self._say(
            f"{_ENGINEER}: {PROJECT} holds {cuts} monthly cuts of dm, ex, lb and ae. No file is sent, only this:\n"
        )
        self._say(f"    server   {self._url}")
        self._say(f"    project  {PROJECT}")
        self._say(f"    token    {self._tokens[Role.READER][:16]}…  (reader, 90 days)")

    def _read(self) -> None:
        self._title("The statistician reads")
        self._say(f"{_STATISTICIAN}: no AWS keys, no GitHub account; the token is all she needs.\n")
        self._say(f"$ export DATOM_FLIGHT_URL={self._url} DATOM_FLIGHT_PROJECT={PROJECT}")
        self._say(f"$ export DATOM_FLIGHT_TOKEN={self._tokens[Role.READER][:16]}…")
        self._run("whoami")
        self._run("tables")
        self._run("read", "dm", "--columns", "USUBJID,SEX,AGE,ARM,RFSTDTC", "--limit", "5")
        self._run("read", "lb", "--where", "LBTESTCD = 'ALT' AND LBSTRESN > LBSTNRHI", "--limit", "5",
                  "--columns", "USUBJID,VISIT,LBSTRESN,LBSTNRHI")  # fmt: skip

    def _pin(self) -> None:
        self._title("She pins the interim analysis")
        self._run("history", "dm", "--limit", "3")
        self._run("pin", "dm", "ex", "lb", "ae", "-o", _PIN)
        self._say(f"\nThe file {_PIN} is small, readable, and made to be committed beside the analysis:\n")
        lines = (self._laptop / _PIN).read_text().splitlines()
        for line in lines[:12]:
            self._say(f"    {line}")
        if len(lines) > 12:
            self._say("    …")

    def _snapshot(self, name: str) -> dict[str, str]:
        """Read every table by the pin into files; the sha256 of each."""
        found = {}
        for table in ("dm", "ex", "lb", "ae"):
            file = f"{table}-{name}.parquet"
            self._run("read", table, "--pin", _PIN, "-o", file)
            found[table] = hashlib.sha256((self._laptop / file).read_bytes()).hexdigest()
        return found

    def _move_on(self) -> None:
        self._title("Three months pass")
        cuts = [number for number in CUTS if number > self._organisation.cuts_written][:_CUTS_LATER]
        if not cuts:
            self._say(f"{_ENGINEER}: the study is complete, no more cuts come.")
        for number in cuts[:1]:
            self._say(f"{_ENGINEER}: cut {number} of dm, ex, lb and ae is in; the developer token may write it.\n")
            for table, rows in cut(number).items():
                file = f"{table}-cut{number}.parquet"
                pq.write_table(rows, self._desk / file)
                message = f"{table}: cut {number}, data to {cut_day(number)}"
                self._run("write", table, file, "--message", message, role=Role.DEVELOPER)
        for number in cuts[1:]:
            self._organisation.write_cut(number, datetime.now(UTC))
            self._say(f"{_ENGINEER}: cut {number} is in as well.")
        self._run("history", "dm", "--limit", "4")
        self._title("The safety review asks where the numbers came from")
        self._say(f"{_STATISTICIAN}: the same pin, the same commands.")

    def _compare(self, before: dict[str, str], after: dict[str, str]) -> None:
        self._say("\nWhat she read then, and what she reads now:\n")
        for table, sha in before.items():
            same = "identical" if after[table] == sha else "DIFFERENT"
            self._say(f"    {table}  {sha[:16]}…  {after[table][:16]}…  {same}")
        if before != after:
            raise InternalError("the re-created snapshot differs from the first one")
        self._say("\nAnd the values still have the hash that names them, computed on her side:")
        self._run("verify", _PIN)

    def _refuse(self) -> None:
        self._title("She cannot change anything, not even by accident")
        answer = self._run("write", "dm", "dm-then.parquet", exit_code=1)
        if "permission_denied" not in answer:
            raise InternalError("a reader's write was not refused")

    def _title(self, text: str) -> None:
        self._say(f"\n── {text} " + "─" * max(0, 76 - len(text)) + "\n")

    def _run(self, *arguments: str, role: Role = Role.READER, exit_code: int = 0) -> str:
        """Run ``datom-flight`` as the person with that role types it; what it says."""
        typed = "$ datom-flight " + " ".join(map(_quoted, arguments))
        self._say(typed)
        environment = {
            **os.environ,
            "DATOM_FLIGHT_URL": self._url,
            "DATOM_FLIGHT_PROJECT": PROJECT,
            "DATOM_FLIGHT_TOKEN": self._tokens[role],
        }
        done = subprocess.run(  # noqa: S603 - our own command
            [str(Path(sysconfig.get_path("scripts")) / "datom-flight"), *arguments],
            cwd=self._laptop if role is Role.READER else self._desk,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        for line in done.stdout.splitlines():
            self._say(line)
        if done.returncode != exit_code:
            raise InternalError(f'the story stops at "{typed}", which ended with exit code {done.returncode}')
        return done.stdout


def _quoted(argument: str) -> str:
    """`argument` as a person types it; none of the story's holds what double quotes would not keep."""
    return f'"{argument}"' if "'" in argument else shlex.quote(argument)
