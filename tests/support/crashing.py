"""Servers that are killed in the middle of a write, and started again."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pyarrow.flight as fl

import datom_flight
from datom_flight_server.auth.tokens import Tokens
from datom_flight_server.model import Principal, Role

from . import crash_server
from .server import SECRET, START_SECONDS, await_condition, clean_environment


class CrashingServer:
    """One server at a time, each the child of a process that has everything loaded.

    Attributes:
        config: its configuration.
        url: where the present server listens.
    """

    def __init__(self, config: Path) -> None:
        self.config = config
        self.url = ""
        self._pid = 0
        self._stop_at = config.parent / "stop_at"
        self._log = (config.parent / "server.log").open("ab")
        self._parent = subprocess.Popen(
            [sys.executable, "-W", "ignore", crash_server.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=clean_environment(config.parent),
            cwd=config.parent,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reading = threading.Thread(target=self._read_lines)
        self._reading.start()
        self.token = Tokens(SECRET).create(Principal("ann", Role.DEVELOPER), timedelta(hours=1))

    def start(self) -> None:
        """Start a server, and wait until it has brought the storage up to git."""
        assert self._parent.stdin is not None
        self._parent.stdin.write(f"{self.config}\n")
        self._parent.stdin.flush()
        self._pid = int(self._await("pid "))
        self.url = self._await("listening on ")
        self._await("reconciled")

    def kill(self) -> None:
        """Kill the server, if it still runs, and wait until it is gone."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            await_condition(lambda: not self.alive, START_SECONDS, "the killed server is gone")
            self._pid = 0

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True

    def stop_at(self, step: int) -> None:
        """Have the server killed before that step, counted from 1, of the next write."""
        self._stop_at.write_text(str(step))

    def forget_stop(self) -> None:
        """Have the next write go through."""
        self._stop_at.unlink(missing_ok=True)

    def killed_before(self) -> str:
        """The step before which the server was killed."""
        return self._await("killed before ")

    @property
    def steps(self) -> list[str]:
        """The steps of the last write that went through."""
        return (self.config.parent / "steps").read_text().splitlines()

    @property
    def log(self) -> str:
        """All that servers wrote to stderr."""
        return (self.config.parent / "server.log").read_text(errors="replace")

    def connect(self, project: str) -> datom_flight.Connection:
        """A developer's connection to the present server."""
        return datom_flight.connect(self.url, project, token=self.token)

    def raw(self) -> fl.FlightClient:
        """A plain client of the present server."""
        return fl.FlightClient(self.url)

    def call_options(self, token: str | None = None, seconds: float = 30) -> fl.FlightCallOptions:
        """Options for a plain client, a developer's."""
        value = f"Bearer {token or self.token}".encode()
        return fl.FlightCallOptions(timeout=seconds, headers=[(b"authorization", value)])

    def close(self) -> None:
        """End everything."""
        self.kill()
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(START_SECONDS)
        self._reading.join(START_SECONDS)
        self._log.close()

    def _await(self, beginning: str) -> str:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                line = self._lines.get(timeout=deadline - time.monotonic())
            except (queue.Empty, ValueError):
                raise TimeoutError(f'no "{beginning}" from the server: {self.log}') from None
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()

    def _read_lines(self) -> None:
        assert self._parent.stdout is not None
        with self._parent.stdout as lines:
            for line in lines:
                self._lines.put(line)


@contextmanager
def crashing(config: Path) -> Iterator[CrashingServer]:
    """A `CrashingServer`, started, for the time of a ``with`` block."""
    server = CrashingServer(config)
    try:
        server.start()
        yield server
    finally:
        server.close()
