"""Processes that are measured: started, known to be ready, watched for their memory, ended by their id."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0


def command(name: str) -> str:
    """The path of a command of this Python's environment."""
    return str(Path(sys.executable).parent / name)


class Process:
    """A running server.

    Attributes:
        started_seconds: how long it took until it was ready.

    Args:
        arguments: the command line.
        log: where all that it prints goes.
        ready: what it prints once it is; its first group, if any, is `said`. Or a function that is true then.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        ready: re.Pattern[str] | Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._log = log
        self._name = Path(arguments[0]).name
        self.said = ""
        log.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                arguments,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env={**os.environ, **(environment or {})},
            )
        try:
            self._await(ready)
        except BaseException:
            self.stop()
            raise
        self.started_seconds = time.perf_counter() - started

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def stop(self) -> None:
        """End it, the polite way first."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)

    def forget_peak(self) -> None:
        """Let `peak_bytes` begin anew from what is used now."""
        for pid in _family(self.pid):
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    @property
    def peak_bytes(self) -> int | None:
        """The most resident memory since it started or since `forget_peak`, its children's included.

        None where the system does not tell.
        """
        peaks = [_peak_bytes(pid) for pid in _family(self.pid)]
        return sum(peaks) or None

    def _await(self, ready: re.Pattern[str] | Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        pause = threading.Event()
        while not self._is_ready(ready):
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._name} ended before it was ready: {self._text()[-2000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._name} is not ready: {self._text()[-2000:]}")
            pause.wait(0.01)

    def _is_ready(self, ready: re.Pattern[str] | Callable[[], bool]) -> bool:
        if callable(ready):
            return ready()
        found = ready.search(self._text())
        if found is None:
            return False
        self.said = found[1] if ready.groups else found[0]
        return True

    def _text(self) -> str:
        return self._log.read_text(errors="replace")


def _family(pid: int) -> list[int]:
    """The process and all that it started."""
    family = [pid]
    for member in family:
        with suppress(OSError):
            for thread in Path(f"/proc/{member}/task").iterdir():
                family += map(int, (thread / "children").read_text().split())
    return family


def _peak_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
