"""How long storage may take, and how a caller stops waiting for a call that cannot be interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long each step may take.

    Attributes:
        connect_seconds: to open a connection.
        read_seconds: silence on an open connection.
        total_seconds: a whole control request: its attempts, the waits between them, its body.
        range_seconds: a range of a large object that is read: its attempts, the waits between them, its bytes.
        write_silence_seconds: silence on a connection while the storage keeps what it was sent.
        write_seconds: one request of a write: its attempts, the waits between them, its body.
        attempts: how often a request is sent when the storage fails in passing.
    """

    connect_seconds: float = 3
    read_seconds: float = 5
    total_seconds: float = 20
    range_seconds: float = 30
    write_silence_seconds: float = 30
    write_seconds: float = 60
    attempts: int = 4


class Background:
    """Runs calls beside the caller, who waits as long as it likes and no longer.

    A call that is given up goes on in its own thread until it ends by itself; its result is dropped. At most `limit`
    calls run at once, given-up ones included, so a storage that swallows calls cannot use up the server's threads.
    """

    def __init__(self, limit: int) -> None:
        self._places = threading.BoundedSemaphore(limit)

    def begin(self, call: Callable[[], T], seconds: float) -> Callable[[], T]:
        """What gives the outcome of `call`. Either raises TimeoutError: no place gets free in time, or no outcome.

        Args:
            seconds: from now.
        """
        end = time.monotonic() + seconds
        if not self._places.acquire(timeout=seconds):
            raise TimeoutError
        future: Future[T] = Future()
        try:
            # A daemon, unlike the threads of an executor: a call that hangs does not hold up the end of the process.
            threading.Thread(target=self._work, args=(call, future), name="storage", daemon=True).start()
        except RuntimeError:
            self._places.release()
            raise
        return lambda: future.result(end - time.monotonic())

    def _work(self, call: Callable[[], T], future: Future[T]) -> None:
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            self._places.release()
