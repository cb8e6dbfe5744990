"""Runs checked queries, each in a process of its own kind, within limits: one query at a time in each process."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from datom_flight.protocol.errors import DatomError, UnavailableError

from . import worker

_PROCESS_BYTES = 768 * 1024 * 1024
"""What a process needs beside the memory that queries may take."""
_START_SECONDS = 60
_INTERRUPT_SECONDS = 2
_OUT_OF_MEMORY = ("OutOfMemoryException", "MemoryError", "ArrowMemoryError")
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How much queries may take.

    Attributes:
        memory_bytes: of one query.
        spill_bytes: on disk, of one query that sorts, joins or groups more than its memory holds.
        threads: of one query.
        seconds: that one query may compute; the time its reader takes does not count.
        result_rows, result_bytes: of one query.
        concurrent: queries at a time.
        queue_seconds: how long one more waits for its turn.
        stalled_seconds: a reader that fetches nothing for so long loses its turn when others wait.
    """

    memory_bytes: int = 2 * 2**30
    spill_bytes: int = 10 * 2**30
    threads: int = 2
    seconds: float = 300
    result_rows: int = 1_000_000_000
    result_bytes: int = 50 * 2**30
    concurrent: int = 4
    queue_seconds: float = 10
    stalled_seconds: float = 60


@dataclass(frozen=True, slots=True)
class Job:
    """A query that was checked, and what it reads.

    Attributes:
        query: one SELECT, of the names that `setup` makes and of nothing else.
        setup: the statements that make them, over files in the folder that the job runs with.
    """

    query: str
    setup: tuple[str, ...] = ()


class Engine:
    """A few processes that run queries.

    Args:
        directory: for files of queries; on the file system of the cache, so that files can be linked.
    """

    def __init__(self, directory: Path, limits: EngineLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory / f"queries-{uuid.uuid4().hex}"
        self._directory.mkdir(parents=True)
        self._limits = limits
        self._clock = clock
        self._changed = threading.Condition()
        self._idle: deque[_Process] = deque()
        self._busy: set[_Turn] = set()
        self._closed = False

    def start(self) -> None:
        """Have a process ready before the first query asks for one."""
        with self._turn():
            pass

    def close(self) -> None:
        """End all queries and their processes."""
        with self._changed:
            self._closed = True
            processes = [*self._idle, *(turn.process for turn in self._busy if turn.process is not None)]
            self._idle.clear()
            self._changed.notify_all()
        for process in processes:
            process.terminate()
        shutil.rmtree(self._directory, ignore_errors=True)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty folder for the files of one query, removed afterwards."""
        path = self._directory / uuid.uuid4().hex
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def schema(self, job: Job, folder: Path) -> pa.Schema:
        """The names and types of the columns that `job` gives; all may be missing.

        Raises:
            DatomError: ``sql_error``, or as `batches`.
        """
        with self._turn() as turn:
            return turn.ask(job, folder, schema_only=True)

    def batches(self, job: Job, folder: Path) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `job`, in batches of a few MiB. Closing the generator ends the query.

        Args:
            folder: what `folder` gave, with the files in it.

        Raises:
            DatomError: ``sql_error`` where values cannot be computed with; ``too_large`` over a limit on memory or on
                the result; ``timeout``; ``overloaded`` when there is no turn within `EngineLimits.queue_seconds`.
        """
        with self._turn() as turn:
            schema = turn.ask(job, folder, schema_only=False)
            rows = size = 0
            while (message := turn.batch()) is not None:
                batch = pa.ipc.read_record_batch(message, schema)
                rows += batch.num_rows
                size += message.size
                self._check_result(rows, size)
                yield batch

    def _check_result(self, rows: int, size: int) -> None:
        if rows > self._limits.result_rows:
            raise _too_much(f"the result has more than {self._limits.result_rows} rows")
        if size > self._limits.result_bytes:
            raise _too_much(f"the result has more than {self._limits.result_bytes} bytes")

    @contextmanager
    def _turn(self) -> Iterator[_Turn]:
        turn = self._admitted()
        try:
            turn.process = turn.process or _Process(self._directory, self._limits)
            yield turn
        except BaseException:
            turn.end()
            raise
        finally:
            with self._changed:
                self._busy.discard(turn)
                kept = turn.process if turn.reusable and not self._closed else None
                if kept is not None:
                    self._idle.append(kept)
                self._changed.notify()
            if kept is None and turn.process is not None:
                turn.process.close()

    def _admitted(self) -> _Turn:
        """A turn, with an idle process if there is one."""
        deadline = self._clock() + self._limits.queue_seconds
        with self._changed:
            while not self._closed and len(self._busy) >= self._limits.concurrent:
                self._give_up_stalled()
                left = deadline - self._clock()
                if left <= 0:
                    raise UnavailableError(
                        f"{self._limits.concurrent} queries run already", code="overloaded", hint="try again later"
                    )
                self._changed.wait(min(left, 1))
            if self._closed:
                raise UnavailableError("the server is stopping")
            turn = _Turn(self._limits, self._clock, self._idle.popleft() if self._idle else None)
            self._busy.add(turn)
            return turn

    def _give_up_stalled(self) -> None:
        """End the query whose reader has fetched nothing for longest, if that is too long."""
        stalled = [turn for turn in self._busy if turn.idle_since is not None]
        longest = min(stalled, key=lambda turn: turn.idle_since or 0, default=None)
        if longest is None or longest.idle_since is None:
            return
        if self._clock() - longest.idle_since >= self._limits.stalled_seconds:
            longest.give_up()
            self._busy.discard(longest)


class _Turn:
    """One query's use of a process."""

    def __init__(self, limits: EngineLimits, clock: Callable[[], float], process: _Process | None) -> None:
        self.process = process
        self.idle_since: float | None = None
        self._limits = limits
        self._clock = clock
        self._left = limits.seconds
        self._running = False
        self._given_up = False
        self._healthy = True

    @property
    def reusable(self) -> bool:
        """Whether the process can take another query."""
        return self.process is not None and self._healthy and not self._running and not self._given_up

    def ask(self, job: Job, folder: Path, *, schema_only: bool) -> pa.Schema:
        """Start the query and give its schema."""
        assert self.process is not None
        files = self.process.adopt(folder)
        setup = [statement.replace(str(folder), files) for statement in job.setup]
        self._running = True
        self.process.send({"setup": setup, "query": job.query, "schema_only": schema_only})
        schema = pa.ipc.read_schema(self._frame(worker.SCHEMA))
        if schema_only:
            self._frame(worker.END)
        return schema

    def batch(self) -> pa.Buffer | None:
        """The next batch's message, or None at the end."""
        return self._frame(worker.BATCH)

    def end(self) -> None:
        """Stop a query that somebody has lost interest in; its process stays if it stops soon."""
        if not self._running or self._given_up or self.process is None or not self._healthy:
            return
        try:
            self.process.send({"interrupt": True})
            deadline = self._clock() + _INTERRUPT_SECONDS
            while True:
                kind, _ = self.process.frame(deadline - self._clock())
                if kind in (worker.END, worker.FAILED):
                    self._running = False
                    return
        except (_Gone, _Late):
            self._healthy = False

    def give_up(self) -> None:
        """Let go of the process, whatever it does."""
        self._given_up = True
        if self.process is not None:
            self.process.terminate()

    def _frame(self, wanted: bytes) -> pa.Buffer | None:
        assert self.process is not None
        self.idle_since = None
        started = self._clock()
        try:
            kind, body = self.process.frame(self._left)
        except _Late:
            raise DatomError.of(
                "timeout",
                f"the query was still computing after {self._limits.seconds:g} seconds",
                hint="ask for less: fewer rows, a narrower join",
            ) from None
        except _Gone:
            self._healthy = False
            raise self._lost() from None
        finally:
            self.idle_since = self._clock()
            self._left = max(0.0, self._left - (self.idle_since - started))
        if kind in (worker.END, worker.FAILED):
            self._running = False
        if kind == worker.FAILED:
            raise self._failure(json.loads(body.to_pybytes()))
        return body if kind == wanted else None

    def _lost(self) -> DatomError:
        if self._given_up:
            return DatomError.of(
                "timeout",
                f"no rows were fetched for {self._limits.stalled_seconds:g} seconds while other queries waited",
                hint="run the query again, and fetch its rows as they come",
            )
        return _too_much(
            f"the query took more than {self._limits.memory_bytes} bytes of memory, or ended its process otherwise"
        )

    def _failure(self, told: Mapping[str, Any]) -> DatomError:
        message = self._without_paths(str(told["message"]).strip().split("\n\n")[0].split("\nLINE ")[0])[:500]
        if told["kind"] in _OUT_OF_MEMORY or message.startswith("Out of Memory Error"):
            # what the allocator kept of it would be missing for the next query
            self._healthy = False
            return _too_much(f"the query needs more than {self._limits.memory_bytes} bytes of memory")
        return DatomError.of("sql_error", message, hint="")

    def _without_paths(self, message: str) -> str:
        assert self.process is not None
        return message.replace(str(self.process.folder), "…")


class _Gone(Exception):  # noqa: N818
    """The process ended."""


class _Late(Exception):  # noqa: N818
    """The process did not answer in time."""


class _Process:
    """A worker: requests in, frames out."""

    def __init__(self, directory: Path, limits: EngineLimits) -> None:
        self.folder = directory / f"process-{uuid.uuid4().hex}"
        (self.folder / "files").mkdir(parents=True)
        options = {
            "folder": str(self.folder),
            "memory_bytes": limits.memory_bytes,
            "spill_bytes": limits.spill_bytes,
            "threads": limits.threads,
            "process_bytes": limits.memory_bytes + _PROCESS_BYTES,
        }
        # nothing of the environment: it holds secrets
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        self._popen = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-m", worker.__name__, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**environment, "ARROW_DEFAULT_MEMORY_POOL": "system"},
        )
        self._answers = select.poll()
        self._answers.register(self._popen.stdout or 0, select.POLLIN)
        try:
            self.frame(_START_SECONDS)
        except (_Gone, _Late):
            self.close()
            raise UnavailableError("the process that runs queries did not start", code="overloaded") from None

    def adopt(self, folder: Path) -> str:
        """Make the files in `folder` readable for queries, and give the folder they are in now."""
        for old in (self.folder / "files").iterdir():
            shutil.rmtree(old, ignore_errors=True)
        files = self.folder / "files" / folder.name
        folder.rename(files)
        folder.mkdir()
        return str(files)

    def send(self, request: Mapping[str, Any]) -> None:
        """Send one request."""
        assert self._popen.stdin is not None
        data = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while data:
                data = data[self._popen.stdin.write(data) :]
        except (OSError, ValueError):
            raise _Gone from None

    def frame(self, seconds: float) -> tuple[bytes, pa.Buffer]:
        """The next frame.

        Raises:
            _Late: it does not begin within `seconds`.
            _Gone: there will be none.
        """
        head = self._read(worker.FRAME.size, seconds)
        kind, size = worker.FRAME.unpack(head.to_pybytes())
        return kind, self._read(size, max(seconds, _INTERRUPT_SECONDS))

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
                if not self._answers.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise _Late
                count = pipe.readinto(view)  # type: ignore[attr-defined]
                if not count:
                    raise _Gone
                view = view[count:]
        except (OSError, ValueError):
            raise _Gone from None
        return buffer


def _too_much(message: str) -> DatomError:
    return DatomError.of("too_large", message, hint="ask for less: fewer rows, fewer columns, a narrower join")
