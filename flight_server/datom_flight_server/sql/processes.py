"""The processes that run queries, seen from the server."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from datom_flight.protocol.errors import UnavailableError

from . import frames

_OWN_BYTES = 768 * 1024 * 1024
"""What a process needs beside the memory that queries may take."""
_START_SECONDS = 60
_BODY_SECONDS = 2
"""For the rest of a frame that has begun."""
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What one process may take: memory of queries, what they spill to the disk, and threads."""

    memory_bytes: int
    spill_bytes: int
    threads: int


class Gone(Exception):  # noqa: N818
    """The process ended."""


class Late(Exception):  # noqa: N818
    """The process did not answer in time."""


class Process:
    """A worker: requests in, frames out."""

    def __init__(self, directory: Path, limits: ProcessLimits) -> None:
        self.folder = directory / f"process-{uuid.uuid4().hex}"
        options = {"folder": str(self.folder), "process_bytes": limits.memory_bytes + _OWN_BYTES, **asdict(limits)}
        self._adopted: Path | None = None
        # nothing of the environment: it holds secrets
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        try:
            self.folder.mkdir()
            (self.folder / "files").mkdir()
            self._popen = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-m", f"{__package__}.worker", json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**environment, "ARROW_DEFAULT_MEMORY_POOL": "system"},
                # Ctrl-C is for the server, which lets queries end
                start_new_session=True,
            )
        except OSError:
            raise _not_started() from None
        self._answers = select.poll()
        self._answers.register(self._popen.stdout or 0, select.POLLIN)
        try:
            self.frame(_START_SECONDS)
        except (Gone, Late):
            self.close()
            raise _not_started() from None

    @property
    def id(self) -> int:
        """The operating system's."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def adopt(self, folder: Path) -> str:
        """Make the files in `folder` readable for queries, and give the folder they are in now."""
        files = self.folder / "files" / folder.name
        try:
            folder.rename(files)
        except FileNotFoundError:
            raise Gone from None
        self._adopted = files
        return str(files)

    def disown(self) -> None:
        """Remove the files of the last query."""
        if self._adopted is not None:
            shutil.rmtree(self._adopted, ignore_errors=True)
            self._adopted = None

    def send(self, request: Mapping[str, Any]) -> None:
        """Send one request."""
        assert self._popen.stdin is not None
        data = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while data:
                data = data[self._popen.stdin.write(data) :]
        except (OSError, ValueError):
            raise Gone from None

    def answers(self, seconds: float) -> bool:
        """Whether a frame, or the end of the process, comes within `seconds`."""
        return bool(self._answers.poll(max(0.0, seconds) * 1000))

    def frame(self, seconds: float) -> tuple[bytes, pa.Buffer]:
        """The next frame.

        Raises:
            Late: it does not begin within `seconds`.
            Gone: there will be none.
        """
        head = self._read(frames.FRAME.size, seconds)
        kind, size = frames.FRAME.unpack(head.to_pybytes())
        return kind, self._read(size, max(seconds, _BODY_SECONDS))

    def terminate(self) -> None:
        """End the process and remove its files; whoever waits for a frame learns that there is none."""
        self._popen.kill()
        self._popen.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """As `terminate`, for the one thread that talks to it."""
        self.terminate()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _read(self, size: int, seconds: float) -> pa.Buffer:
        pipe = self._popen.stdout
        assert pipe is not None
        buffer = pa.allocate_buffer(size)
        view = memoryview(buffer)
        deadline = time.monotonic() + seconds
        try:
            while view:
                if not self.answers(deadline - time.monotonic()):
                    raise Late
                count = pipe.readinto(view)  # type: ignore[attr-defined]
                if not count:
                    raise Gone
                view = view[count:]
        except (OSError, ValueError):
            raise Gone from None
        return buffer


def _not_started() -> UnavailableError:
    return UnavailableError("the process that runs queries did not start", code="overloaded")
