"""A server that can be killed at any step of a write; run as a program.

Each line on stdin is the path of a configuration, and has a server of it forked off, which is quick. A server prints
``pid N``, ``listening on URL`` and, whenever its storage was brought up to git, ``reconciled``. When the file
``stop_at`` beside the configuration holds a number n as a write begins, the process is killed by SIGKILL right before
the n-th step of that write; it prints ``killed before STEP``. A write that gets through has ``stop_at`` replaced by
``steps``, the names of its steps.

Production code is not aware of it: its seams are wrapped.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from datom_flight_server.app import App
from datom_flight_server.flight.writes import Writes
from datom_flight_server.metadata import pushes
from datom_flight_server.repositories import Repositories
from datom_flight_server.settings import Settings
from datom_flight_server.stores import Stores
from datom_flight_server.versions.spool import Spool
from datom_flight_server.versions.spooled import Spooled
from datom_flight_server.versions.writer import Writer

STORE_STEPS = ("put", "put_file", "etag", "chunks")
REPOSITORY_STEPS = ("fetch", "commit", "push")
RECONCILING = "reconcile"  # the thread's name


class Steps:
    """Counts the steps of the write under way, of which there is one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop_at: int | None = None
        self._taken: list[str] = []
        self._lock = threading.Lock()
        self._counting = False

    @contextmanager
    def write(self) -> Iterator[None]:
        """Around a write."""
        path = self._folder / "stop_at"
        self._stop_at = int(path.read_text()) if path.exists() else None
        self._taken = []
        self._counting = True
        try:
            yield
            self.step("answer")
        finally:
            self._counting = False
        (self._folder / "steps").write_text("\n".join(self._taken))
        path.unlink(missing_ok=True)

    def step(self, name: str) -> None:
        """Be killed if this is where."""
        with self._lock:
            if not self._counting or threading.current_thread().name == RECONCILING:
                return
            self._taken.append(name)
            if len(self._taken) == self._stop_at:
                say(f"killed before {name}")
                os.kill(os.getpid(), signal.SIGKILL)

    def before(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, a step of that name."""

        @wraps(function)
        def stepped(*arguments: Any, **options: Any) -> Any:
            self.step(name)
            return function(*arguments, **options)

        return stepped


def say(line: str) -> None:
    """One line on stdout, whole even between those of others."""
    os.write(1, f"{line}\n".encode())


def wrap_everything(steps: Steps) -> None:
    """Make steps of what a write does; for good, in this process."""

    def opening(open_it: Callable[..., Any], what: str, names: tuple[str, ...]) -> Callable[..., Any]:
        @wraps(open_it)
        def opened(*arguments: Any) -> Any:
            seam = open_it(*arguments)
            for name in names:
                setattr(seam, name, steps.before(f"{what}.{name}", getattr(seam, name)))
            return seam

        return opened

    def replace(owner: Any, name: str, function: Callable[..., Any]) -> None:
        setattr(owner, name, function)

    replace(Stores, "open", opening(Stores.open, "store", STORE_STEPS))
    replace(Repositories, "open", opening(Repositories.open, "repository", REPOSITORY_STEPS))
    for owner, what, name in (
        (Spool, "spool", "receive"),
        (Spooled, "spool", "identify"),
        (Spooled, "spool", "encode"),
        (pushes, "push", "_write"),
        (pushes, "push", "_move"),
        (os, "disk", "fsync"),
        (os, "disk", "rename"),
    ):
        replace(owner, name, steps.before(f"{what}.{name.strip('_')}", getattr(owner, name)))
    for name in ("put", "put_set"):
        replace(Writes, name, _within(steps.write, getattr(Writes, name)))
    replace(Writer, "reconcile", _then(lambda: say("reconciled"), Writer.reconcile))


def _within(context: Callable[[], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def inside(*arguments: Any) -> Any:
        with context():
            return function(*arguments)

    return inside


def _then(afterwards: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def both(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        afterwards()
        return result

    return both


def serve(config: Path) -> None:
    """Serve `config` until killed."""
    say(f"pid {os.getpid()}")
    wrap_everything(Steps(config.parent))
    server = App(Settings.load(config, os.environ))
    say(f"listening on {server.start()}")
    signal.pause()


def main() -> None:
    """Fork a server for each line that comes; the end of stdin ends the program, and not the servers."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            serve(Path(line.strip()))


if __name__ == "__main__":
    main()
