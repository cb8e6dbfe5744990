"""Who may stream now: places for streams, a queue for places, and what each stream may take."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from datom_flight.protocol.errors import DatomError, InvalidRequestError, UnavailableError

from ..calls import Call
from ..model import Principal, Role

_NOTICE_SECONDS = 0.25
"""Within which a caller who waits for a place, and goes away, is noticed."""
_LOOK_SECONDS = 1
_CUT_SECONDS = 2
"""For what still computes to end by itself, before connections are cut."""
_STALLED_SECONDS = 30
"""After which a stream whose caller fetches nothing makes room for one that waits."""
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How much streams may take.

    Attributes:
        streams: at a time. Those of admins do not count.
        streams_each: of them, those of one caller.
        queued: how many more may wait for a place.
        queue_seconds: for how long.
        rows, size: that one stream may give; `size` in bytes of Arrow data.
        idle_seconds: that a caller may fetch, or send, nothing.
        seconds: that one stream may take.
    """

    streams: int = 512
    streams_each: int = 256
    queued: int = 256
    queue_seconds: float = 30
    rows: int = 1_000_000_000
    size: int = 50 * 10**9
    idle_seconds: float = 300
    seconds: float = 6 * 3600


class Caller(Protocol):
    """Whose stream it is."""

    @property
    def principal(self) -> Principal:
        """Who they are."""
        ...

    @property
    def call(self) -> Call:
        """What their stream's rows are counted for."""
        ...

    @property
    def bearer(self) -> str | None:
        """The token they came with."""
        ...

    @property
    def peer(self) -> str:
        """The other end of their connection, as gRPC names it."""
        ...

    @property
    def is_cancelled(self) -> Callable[[], bool]:
        """Whether they went away."""
        ...


class Streams:
    """The streams that run now, and those that wait for a place.

    Args:
        cut_connections: closes connections, by their peers: the one way to end a call whose caller fetches nothing.

    Attributes:
        limits: may be replaced at any time; places taken stay taken.
    """

    def __init__(
        self,
        limits: StreamLimits,
        cut_connections: Callable[[Collection[str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self._cut_connections = cut_connections
        self._clock = clock
        self._changed = threading.Condition()
        self._running: set[Stream] = set()
        self._queue: dict[Stream, threading.Event] = {}
        self._places: Counter[str] = Counter()
        self._draining = False
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._look_after, name="stalled streams", daemon=True)

    @property
    def draining(self) -> bool:
        """Whether new streams are refused."""
        return self._draining

    @property
    def open(self) -> int:
        """How many run now."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    def start(self) -> None:
        """Look after streams that take too long, until `close`."""
        self._watch.start()

    def running(self, caller: Caller) -> Stream:
        """A stream of `caller`, for the ``with`` block around it.

        Entering it may wait for a place, and raises:

            UnavailableError: ``unavailable`` once the server is stopping, ``overloaded`` when there is no place in
                time, ``cancelled`` when the caller went away.
        """
        return Stream(self, caller, self._clock)

    def drain(self, grace_seconds: float) -> bool:
        """Refuse new streams and wait for those that run; whether all ended within `grace_seconds`.

        The rest is cut: it ends at its next batch.
        """
        with self._changed:
            self._draining = True
            for admitted in self._queue.values():
                admitted.set()
            ended = self._changed.wait_for(lambda: not self._running, grace_seconds)
            for stream in list(self._running):
                self._cut(stream, UnavailableError("the server stopped before the stream ended"))
            return ended

    def close(self) -> None:
        """After `drain`: cut the connections of those whose callers fetch no next batch."""
        self._closed.set()
        with self._changed:
            self._changed.wait_for(lambda: all(stream.idle_since is not None for stream in self._running), _CUT_SECONDS)
            stalled = {stream.caller.peer for stream in self._running}
        self._cut_connections(stalled)

    def cut(self, reason: Callable[[Caller], DatomError | None]) -> None:
        """End the streams for whose callers there is a `reason`; soon, if they fetch nothing."""
        with self._changed:
            for stream in list(self._running):
                told = reason(stream.caller)
                if told is not None:
                    self._cut(stream, told)

    def look(self) -> None:
        """Cut the streams that take too long, and the connections of those whose callers do not fetch even that.

        A connection stays while another stream on it goes on: proxies put many callers on one.
        """
        now, limits = self._clock(), self.limits
        with self._changed:
            patience = min(limits.idle_seconds, _STALLED_SECONDS) if self._queue else limits.idle_seconds
            for stream in list(self._running):
                if now - stream.started > limits.seconds:
                    self._cut(stream, _late("max_seconds", limits.seconds, "the stream took"))
                elif stream.idle_since is not None and now - stream.idle_since > patience:
                    self._cut(stream, _late("idle_seconds", patience, "nothing was fetched, or sent, for"))
            going = {stream.caller.peer for stream in self._running if stream.cut is None}
            stalled = {stream.caller.peer for stream in self._running if stream.cut and stream.idle_since is not None}
        self._cut_connections(stalled - going)

    def enter(self, stream: Stream) -> None:
        """See `running`."""
        principal = stream.caller.principal
        with self._changed:
            self._refuse_when_draining()
            if self._fits(principal):
                self._admit(stream)
                return
            if len(self._queue) >= self.limits.queued:
                raise self._crowded(principal)
            admitted = self._queue[stream] = threading.Event()
        deadline = self._clock() + self.limits.queue_seconds
        while not admitted.wait(_NOTICE_SECONDS) and self._clock() < deadline and not stream.caller.is_cancelled():
            continue
        with self._changed:
            if self._queue.pop(stream, None) is None:
                return
            self._refuse_when_draining()
            if stream.caller.is_cancelled():
                raise UnavailableError("the caller went away", code="cancelled", hint="")
            raise self._crowded(principal)

    def leave(self, stream: Stream) -> None:
        """The end of its ``with`` block."""
        with self._changed:
            self._running.discard(stream)
            self._free(stream)
            self._changed.notify_all()

    def _look_after(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            self.look()

    def _fits(self, principal: Principal) -> bool:
        if principal.role is Role.ADMIN:
            return True
        limits = self.limits
        return self._places.total() < limits.streams and self._places[principal.name] < limits.streams_each

    def _admit(self, stream: Stream) -> None:
        self._running.add(stream)
        if stream.caller.principal.role is not Role.ADMIN:
            stream.has_place = True
            self._places[stream.caller.principal.name] += 1

    def _cut(self, stream: Stream, reason: DatomError) -> None:
        if stream.cut is None:
            stream.cut = reason
            # Flight knows nothing of it, and would say that the call was ok
            stream.caller.call.end(reason.code, reason.fields.get("limit"))
        # whatever its caller does now is not held against others
        self._free(stream)

    def _free(self, stream: Stream) -> None:
        if not stream.has_place:
            return
        stream.has_place = False
        name = stream.caller.principal.name
        self._places[name] -= 1
        if not self._places[name]:
            del self._places[name]
        for waiting, admitted in list(self._queue.items()):
            if self._fits(waiting.caller.principal):
                del self._queue[waiting]
                self._admit(waiting)
                admitted.set()

    def _refuse_when_draining(self) -> None:
        if self._draining:
            raise UnavailableError("the server is stopping")

    def _crowded(self, principal: Principal) -> UnavailableError:
        limits = self.limits
        message, limit, value = f"{limits.streams} streams run, the most at once", "max_streams", limits.streams
        if self._places[principal.name] >= limits.streams_each:
            message = f'{limits.streams_each} streams of "{principal.name}" run, the most at once'
            limit, value = "max_streams_each", limits.streams_each
        return UnavailableError(
            message,
            code="overloaded",
            fields={"limit": f"limits.{limit}", "value": value, "retry_after_seconds": _RETRY_SECONDS},
        )


class Stream:
    """One stream, from entering its ``with`` block to leaving it.

    Attributes:
        caller: whose it is.
        started: when it was let in.
        idle_since: since when its caller is waited for; None while it computes.
        cut: why it must end.
        has_place: whether it counts.
    """

    def __init__(self, streams: Streams, caller: Caller, clock: Callable[[], float]) -> None:
        self.caller = caller
        self.started = 0.0
        self.idle_since: float | None = None
        self.cut: DatomError | None = None
        self.has_place = False
        self._streams = streams
        self._clock = clock

    def __enter__(self) -> Self:
        self._streams.enter(self)
        self.started = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._streams.leave(self)

    def give(self, rows: int, size: int) -> None:
        """Before so many rows, of so many bytes, leave. From now on the caller is waited for.

        Raises:
            InvalidRequestError: ``too_large``: with them it would be more than one stream may give.
        """
        limits = self._streams.limits
        call = self.caller.call
        call.count(rows, size)
        if call.rows > limits.rows:
            raise _too_large("max_rows", limits.rows, "rows")
        if call.bytes > limits.size:
            raise _too_large("max_bytes", limits.size, "bytes")
        self.wait()

    def wait(self) -> None:
        """From now on the caller is waited for."""
        self.idle_since = self._clock()

    def check(self) -> None:
        """The caller was there; raises why the stream must end, if it must."""
        self.idle_since = None
        if self.cut is not None:
            raise self.cut


def _late(limit: str, seconds: float, what: str) -> DatomError:
    return DatomError.of(
        "timeout",
        f"{what} more than {seconds:g} seconds",
        hint="ask again, and fetch rows as they come",
        fields={"limit": f"limits.{limit}", "value": seconds},
    )


def _too_large(limit: str, value: int, unit: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the rows asked for are more than {value} {unit}",
        code="too_large",
        hint="ask for less at once: columns, where, limit",
        fields={"limit": f"limits.{limit}", "value": value},
    )
