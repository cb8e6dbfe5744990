"""A query's turn: one process, one caller, and what the two may take of each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from datom_flight.protocol.errors import DatomError

from ..model import Principal
from . import frames
from .processes import Gone, Late, Process

NOTICE_SECONDS = 0.25
"""Within which a query ends whose caller went away."""
_INTERRUPT_SECONDS = 2
_BROKEN = ("InternalException", "FatalException")
_OUT_OF_MEMORY = ("OutOfMemoryException", "MemoryError", "ArrowMemoryError")


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How much queries may take.

    Attributes:
        memory_bytes: of one query.
        spill_bytes: on disk, of one query that sorts, joins or groups more than its memory holds.
        threads: of one query.
        seconds: that one query may compute; the time its reader takes does not count.
        result_rows, result_bytes: of one query.
        concurrent: queries at a time, and one more where an admin asks.
        concurrent_each: of them, those of one caller.
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
    concurrent_each: int = 3
    queue_seconds: float = 30
    stalled_seconds: float = 60


@dataclass(frozen=True, slots=True)
class Job:
    """A query that was checked, and what it reads.

    Attributes:
        query: one SELECT, of the names that `setup` makes and of nothing else.
        setup: the statements that make them.
        folder: where the files are that they name, see `Engine.folder`; None when they name none.
    """

    query: str
    setup: tuple[str, ...] = ()
    folder: Path | None = None


class Turn:
    """One query's use of a process.

    Attributes:
        process: None until there is one.
        caller: whose query it is.
        idle_since: since when its reader is waited for; None while it computes.
        given_up: whether it was ended for others who wait.
    """

    def __init__(
        self,
        limits: EngineLimits,
        clock: Callable[[], float],
        caller: Principal,
        is_cancelled: Callable[[], bool],
        process: Process | None,
    ) -> None:
        self.process = process
        self.caller = caller
        self._is_cancelled = is_cancelled
        self.idle_since: float | None = None
        self._limits = limits
        self._clock = clock
        self._left = limits.seconds
        self._running = False
        self.given_up = False
        self._healthy = True

    @property
    def reusable(self) -> bool:
        """Whether the process can take another query."""
        return self.process is not None and self._healthy and not self._running and not self.given_up

    def ask(self, job: Job, *, schema_only: bool) -> pa.Schema:
        """Start the query and give its schema."""
        assert self.process is not None
        setup = list(job.setup)
        if job.folder is not None:
            files = self.process.adopt(job.folder)
            setup = [statement.replace(str(job.folder), files) for statement in setup]
        self._running = True
        self.process.send({"setup": setup, "query": job.query, "schema_only": schema_only})
        schema = pa.ipc.read_schema(self._frame(frames.SCHEMA))
        if schema_only:
            self._frame(frames.END)
        return schema

    def batch(self) -> pa.Buffer | None:
        """The next batch's message, or None at the end."""
        return self._frame(frames.BATCH)

    def end(self) -> None:
        """Stop a query that somebody has lost interest in; its process stays if it stops soon."""
        if not self._running or self.given_up or self.process is None or not self._healthy:
            return
        try:
            self.process.send({"interrupt": True})
            deadline = self._clock() + _INTERRUPT_SECONDS
            while True:
                kind, _ = self.process.frame(deadline - self._clock())
                if kind in (frames.END, frames.FAILED):
                    self._running = False
                    return
        except (Gone, Late):
            self._healthy = False

    def give_up(self) -> None:
        """Let go of the process, whatever it does."""
        self.given_up = True
        if self.process is not None:
            self.process.terminate()

    def _frame(self, wanted: bytes) -> pa.Buffer | None:
        assert self.process is not None
        self.idle_since = None
        started = self._clock()
        try:
            while not self.process.answers(min(NOTICE_SECONDS, left := started + self._left - self._clock())):
                if self._is_cancelled():
                    raise cancelled()
                if left <= 0:
                    raise Late
            kind, body = self.process.frame(self._left)
        except Late:
            raise DatomError.of(
                "timeout",
                f"the query was still computing after {self._limits.seconds:g} seconds",
                hint="ask for less: fewer rows, a narrower join",
                fields={"limit": "sql.max_seconds", "value": self._limits.seconds},
            ) from None
        finally:
            self.idle_since = self._clock()
            self._left = max(0.0, self._left - (self.idle_since - started))
        if kind in (frames.END, frames.FAILED):
            self._running = False
        if kind == frames.FAILED:
            raise self._failure(json.loads(body.to_pybytes()))
        return body if kind == wanted else None

    def _failure(self, told: Mapping[str, Any]) -> DatomError:
        message = self._without_paths(str(told["message"]).strip().split("\n\n")[0].split("\nLINE ")[0])[:500]
        if told["kind"] in _OUT_OF_MEMORY or message.startswith("Out of Memory Error"):
            # what the allocator kept of it would be missing for the next query
            self._healthy = False
            most = self._limits.memory_bytes
            return too_much(f"the query needs more than {most} bytes of memory", "memory_bytes", most)
        if told["kind"] in _BROKEN:
            # DuckDB refuses or half does all that follows
            self._healthy = False
        if told["kind"] == frames.RowTooLarge.__name__:
            return too_much(message)
        return DatomError.of("sql_error", message, hint="")

    def _without_paths(self, message: str) -> str:
        assert self.process is not None
        return message.replace(str(self.process.folder), "…")


def cancelled() -> DatomError:
    """For a caller who waits no longer."""
    return DatomError.of("cancelled", "the caller went away", hint="")


def too_much(message: str, limit: str | None = None, value: int = 0) -> DatomError:
    """For a query that needs, or gives, more than `limit` of ``[sql]`` allows."""
    fields = {} if limit is None else {"limit": f"sql.{limit}", "value": value}
    hint = "ask for less: fewer rows, fewer columns, a narrower join"
    return DatomError.of("too_large", message, hint=hint, fields=fields)
