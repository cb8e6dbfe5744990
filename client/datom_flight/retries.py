"""Which failures are worth another attempt, and when to make it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from tenacity import RetryCallState, Retrying, wait_random_exponential

from .protocol.errors import DatomError

T = TypeVar("T")

RETRY_SECONDS = 10.0
"""How long is waited, in all, between attempts of one call."""
BUSY_SECONDS = 60.0
"""How long for servers that are at a limit."""

_MORE_ATTEMPTS = 4
_PASSING = frozenset({"unavailable", "store_unreachable", "mirror_pending"})
"""Codes of what comes back by itself: a server that restarts, a storage that cannot be reached for a moment."""

_jitter = wait_random_exponential(multiplier=0.1, max=2)


class Attempts:
    """The attempts of one call: made again while they fail with a retryable code, within the deadline.

    Other servers are tried at once, the same one again after a pause. Pauses add up to `RETRY_SECONDS` at most; those
    for a server that is ``overloaded``, which says how long, to `BUSY_SECONDS`. After a deadline that passed there is
    no other attempt, unless the last one had progressed. Before any server has answered there are only a few: the
    address may be wrong.

    Args:
        servers: how many there are.
        seconds: the deadline of all attempts together.
        is_known: whether one of them has ever answered.
        progressed: whether the last attempt got somewhere.
    """

    def __init__(self, servers: int, seconds: float, is_known: bool, progressed: Callable[[], bool]) -> None:
        self._servers = servers
        self._seconds = seconds
        self._is_known = is_known
        self._progressed = progressed
        self._waited = {"busy": 0.0, "gone": 0.0}
        self._started = monotonic()

    def make(self, attempt: Callable[[], T]) -> T:
        """What `attempt` gives in the end; raises what the last one does."""
        try:
            return attempt()
        except DatomError as error:
            if not error.retryable:
                raise
            failures = [error]

        # What keeps count of attempts takes as long as a small read: it is only asked when the first one has failed.
        def next_attempt() -> T:
            if failures:
                raise failures.pop()
            return attempt()

        return Retrying(retry=self._again, wait=self._pause)(next_attempt)

    def _again(self, state: RetryCallState) -> bool:
        error = _failure(state)
        if error is None or not error.retryable:
            return False
        if state.attempt_number < self._servers:
            return True
        if error.code == "overloaded":
            return self._waited["busy"] + _told_to_wait(error) < min(BUSY_SECONDS, self._seconds)
        is_passing = self._is_known and error.code in _PASSING
        if state.attempt_number >= self._servers + _MORE_ATTEMPTS and not is_passing:
            return False
        if self._progressed():
            return True
        in_time = monotonic() - self._started < self._seconds and self._waited["gone"] < RETRY_SECONDS
        return in_time and error.code != "timeout"

    def _pause(self, state: RetryCallState) -> float:
        error = _failure(state)
        if error is None or state.attempt_number < self._servers:
            return 0
        pause = _told_to_wait(error) + _jitter(state)
        self._waited["busy" if error.code == "overloaded" else "gone"] += pause
        return pause


def _failure(state: RetryCallState) -> DatomError | None:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, DatomError) else None


def _told_to_wait(error: DatomError) -> float:
    """The seconds after which the server said that there may be room."""
    told = error.fields.get("retry_after_seconds")
    return max(0.0, told) if isinstance(told, int | float) else 0.0
