"""Answers that may be slow, for callers who may not wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """What `ask` gives, asked by one thread at a time, however many callers want to know.

    Args:
        seconds: how long callers wait for an answer, in all.
    """

    def __init__(self, name: str, ask: Callable[[], T], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._asking: Future[T] | None = None
        self._began = 0.0

    @property
    def waiting_seconds(self) -> float:
        """For how long the question that is open now has been."""
        return time.monotonic() - self._began

    def now(self) -> T:
        """The answer of now; raises what `ask` does, and TimeoutError while it takes too long."""
        with self._lock:
            if self._asking is None or self._asking.done():
                self._began = time.monotonic()
                self._asking = self._pool.submit(self._ask)
            asking = self._asking
        return asking.result(max(0, self._seconds - self.waiting_seconds))

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown(wait=False)
