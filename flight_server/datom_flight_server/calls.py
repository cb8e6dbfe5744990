"""One call to the server, as it is told of when it has ended: in the access log, in metrics, in traces."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Subject(NamedTuple):
    """What a call is about; what is not settled yet is None."""

    project: str
    table: str | None = None
    version: str | None = None


class Trace(NamedTuple):
    """The W3C trace context a call came with.

    Attributes:
        parent: the header ``traceparent``.
        state: the header ``tracestate``.
    """

    parent: str
    state: str | None = None

    @classmethod
    def of(cls, parent: str | None, state: str | None) -> Trace | None:
        """The context of these headers; None where there is none, or none of version 00."""
        return cls(parent, state) if parent is not None and _TRACEPARENT.fullmatch(parent) else None

    @property
    def trace_id(self) -> str:
        """Names the whole trace: 32 hex digits."""
        return self.parent[3:35]


@dataclass(slots=True)
class Call:
    """What is known of one call. Handlers add to it as they learn more; one thread at a time.

    Attributes:
        id: names it in the log, in the answer's headers and in errors.
        verb: Flight's, in lower case.
        principal: who calls; None until they are known.
        started: on the monotonic clock, as all times here.
        trace: what it is part of, where the caller said so.
        action: of the verbs that do many things, which of them.
        subjects: what it is about; several for a query.
        rows, bytes: that were sent, or of a write received. Bytes are Arrow's; those sent are estimated.
        first_seconds: from the start to the first rows; None without any.
        seconds: from the start to the end.
        code: ``ok`` or an error's.
        limit: the name of the limit it was refused for.
    """

    id: str
    verb: str
    principal: str | None = None
    started: float = field(default_factory=time.monotonic)
    trace: Trace | None = None
    action: str | None = None
    subjects: Sequence[Subject] = ()
    rows: int = 0
    bytes: int = 0
    first_seconds: float | None = None
    seconds: float = 0
    code: str = ""
    limit: str | None = None

    def about(self, project: str, table: str | None = None, version: str | None = None) -> None:
        """Note what the call is about."""
        self.subjects = (Subject(project, table, version),)

    def count(self, rows: int, size: int) -> None:
        """Add rows that are on their way, and their bytes."""
        if self.first_seconds is None:
            self.first_seconds = time.monotonic() - self.started
        self.rows += rows
        self.bytes += size

    def end(self, code: str, limit: str | None = None) -> None:
        """Note the outcome, and the time; the first one counts."""
        if self.code:
            return
        self.seconds = time.monotonic() - self.started
        self.code = code
        self.limit = limit
