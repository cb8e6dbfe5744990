"""Runs checked queries, each in a process of its own kind, within limits: one query at a time in each process."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from datom_flight.protocol.errors import DatomError, UnavailableError

from ..model import Principal, Role
from .processes import Gone, Process, ProcessLimits
from .turns import NOTICE_SECONDS, EngineLimits, Job, Turn, cancelled, too_much

_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 5
"""For processes that are being started while the engine is closed."""


class Engine:
    """A few processes that run queries.

    Args:
        directory: for files of queries; on the file system of the cache, so that files can be linked. What killed
            servers left there is removed.
    """

    def __init__(self, directory: Path, limits: EngineLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._process_limits = ProcessLimits(limits.memory_bytes, limits.spill_bytes, limits.threads)
        self._directory, self._lock = _own_folder(directory / "queries")
        self._clock = clock
        self._changed = threading.Condition()
        self._idle: deque[Process] = deque()
        self._busy: set[Turn] = set()
        self._waiting = 0
        self._starting = False
        self._closed = False

    @property
    def running(self) -> int:
        """How many queries run now."""
        return len(self._busy)

    @property
    def process_ids(self) -> list[int]:
        """The operating system's, of the processes there are now."""
        with self._changed:
            turns = (turn.process for turn in self._busy)
            return [process.id for process in (*self._idle, *turns) if process is not None]

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._waiting

    def start(self) -> None:
        """Have a process ready soon, before the next query asks for one."""
        with self._changed:
            if self._closed or self._idle or self._starting:
                return
            self._starting = True
        threading.Thread(target=self._start_process, name="query process", daemon=True).start()

    def close(self) -> None:
        """End all queries and their processes. Queries that run are ``unavailable``, and so are new ones."""
        with self._changed:
            self._closed = True
            while (idle := self._ready_process()) is not None:
                idle.close()
            for turn in self._busy:
                if turn.process is not None:
                    turn.process.terminate()
            self._changed.notify_all()
        with self._changed:
            self._changed.wait_for(
                lambda: not self._starting and all(turn.process for turn in self._busy), _CLOSE_SECONDS
            )
        shutil.rmtree(self._directory, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty folder for the files of one query, removed afterwards.

        Raises:
            UnavailableError: once the engine is closed.
        """
        path = self._directory / uuid.uuid4().hex
        try:
            path.mkdir(mode=0o700)
            yield path
        except FileNotFoundError:
            if self._closed:
                raise _stopping() from None
            raise
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def schema(self, job: Job, caller: Principal, is_cancelled: Callable[[], bool] = lambda: False) -> pa.Schema:
        """The names and types of the columns that `job` gives; all may be missing.

        Args:
            caller, is_cancelled: as for `batches`; what is constant in a query is computed already here.

        Raises:
            DatomError: ``sql_error``, or as `batches`.
        """
        with self._turn(caller, is_cancelled) as turn:
            return turn.ask(job, schema_only=True)

    def batches(
        self, job: Job, caller: Principal, is_cancelled: Callable[[], bool]
    ) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `job`, in batches of a few MiB. Closing the generator ends the query.

        Args:
            caller: who asks; one caller alone does not get all turns.
            is_cancelled: whether they went away; looked at several times a second, from this thread.

        Raises:
            DatomError: ``sql_error`` where values cannot be computed with; ``too_large`` over a limit on memory or on
                the result; ``timeout``; ``overloaded`` when there is no turn within `EngineLimits.queue_seconds`;
                ``cancelled``; ``unavailable`` once the engine is closed.
        """
        with self._turn(caller, is_cancelled) as turn:
            schema = turn.ask(job, schema_only=False)
            rows = size = 0
            while (message := turn.batch()) is not None:
                batch = pa.ipc.read_record_batch(message, schema)
                rows += batch.num_rows
                size += message.size
                self._check_result(rows, size)
                yield batch

    def _check_result(self, rows: int, size: int) -> None:
        if rows > self._limits.result_rows:
            raise too_much(
                f"the result has more than {self._limits.result_rows} rows", "max_rows", self._limits.result_rows
            )
        if size > self._limits.result_bytes:
            raise too_much(
                f"the result has more than {self._limits.result_bytes} bytes", "max_bytes", self._limits.result_bytes
            )

    def _start_process(self) -> None:
        process = None
        # what keeps it from starting, the next query is told
        with suppress(DatomError):
            process = Process(self._directory, self._process_limits)
        with self._changed:
            self._starting = False
            if process is not None and not self._closed and len(self._idle) + len(self._busy) < self._limits.concurrent:
                self._idle.append(process)
                process = None
            self._changed.notify_all()
        if process is not None:
            process.close()

    @contextmanager
    def _turn(self, caller: Principal, is_cancelled: Callable[[], bool]) -> Iterator[Turn]:
        turn = self._admitted(caller, is_cancelled)
        try:
            turn.process = turn.process or Process(self._directory, self._process_limits)
            if self._closed:
                raise _stopping()
            yield turn
        except Gone:
            raise self._lost(turn) from None
        except BaseException:
            turn.end()
            raise
        finally:
            if turn.process is not None:
                turn.process.disown()
            with self._changed:
                self._busy.discard(turn)
                kept = turn.process if turn.reusable and not self._closed else None
                if kept is not None:
                    self._idle.append(kept)
                self._changed.notify_all()
            if kept is None:
                self.start()
                if turn.process is not None:
                    turn.process.close()

    def _admitted(self, caller: Principal, is_cancelled: Callable[[], bool]) -> Turn:
        """A turn, with an idle process if there is one."""
        deadline = self._clock() + self._limits.queue_seconds
        with self._changed:
            while not self._closed and ((busy := self._crowd(caller)) or (self._starting and not self._idle)):
                if busy:
                    self._give_up_stalled()
                    if self._clock() >= deadline:
                        raise busy
                if is_cancelled():
                    raise cancelled()
                self._waiting += 1
                self._changed.wait(NOTICE_SECONDS)
                self._waiting -= 1
            if self._closed:
                raise _stopping()
            turn = Turn(self._limits, self._clock, caller, is_cancelled, self._ready_process())
            self._busy.add(turn)
            return turn

    def _ready_process(self) -> Process | None:
        while self._idle:
            process = self._idle.popleft()
            if process.alive:
                return process
            process.close()
        return None

    def _crowd(self, caller: Principal) -> DatomError | None:
        """What keeps `caller` waiting."""
        limits = self._limits
        if len(self._busy) >= limits.concurrent + (caller.role is Role.ADMIN):
            return _crowded(f"{limits.concurrent} queries run already", "max_concurrent", limits.concurrent)
        if sum(turn.caller.name == caller.name for turn in self._busy) >= limits.concurrent_each:
            message = f'{limits.concurrent_each} queries of "{caller.name}" run already'
            return _crowded(message, "max_concurrent_each", limits.concurrent_each)
        return None

    def _lost(self, turn: Turn) -> DatomError:
        """Why the process of `turn` has ended."""
        if self._closed:
            return _stopping()
        if turn.given_up:
            return DatomError.of(
                "timeout",
                f"no rows were fetched for {self._limits.stalled_seconds:g} seconds while other queries waited",
                hint="run the query again, and fetch its rows as they come",
                fields={"limit": "sql.stalled_seconds", "value": self._limits.stalled_seconds},
            )
        return too_much(
            f"the query took more than {self._limits.memory_bytes} bytes of memory, or ended its process otherwise",
            "memory_bytes",
            self._limits.memory_bytes,
        )

    def _give_up_stalled(self) -> None:
        """End the query whose reader has fetched nothing for longest, if that is too long."""
        stalled = [turn for turn in self._busy if turn.idle_since is not None]
        longest = min(stalled, key=lambda turn: turn.idle_since or 0, default=None)
        if longest is None or longest.idle_since is None:
            return
        if self._clock() - longest.idle_since >= self._limits.stalled_seconds:
            longest.give_up()
            self._busy.discard(longest)


def _own_folder(parent: Path) -> tuple[Path, int]:
    """A new folder for this server, and the lock that says that it is in use."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileNotFoundError):
        for left in parent.iterdir():
            with suppress(OSError):
                lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left)
                finally:
                    os.close(lock)
    # made under another name, so that nobody sweeps it before it is locked
    making = parent.with_name(f"{parent.name}-{uuid.uuid4().hex}")
    making.mkdir(mode=0o700)
    lock = os.open(making, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return making.rename(parent / making.name), lock


def _stopping() -> DatomError:
    return UnavailableError("the server is stopping")


def _crowded(message: str, limit: str, value: int) -> DatomError:
    fields = {"limit": f"sql.{limit}", "value": value, "retry_after_seconds": _RETRY_SECONDS}
    return DatomError.of("overloaded", message, hint="try again later", fields=fields)
