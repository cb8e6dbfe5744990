"""How often things were tried that can fail, how that ended, and how long it took."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from datom_flight.protocol.errors import DatomError


@dataclass(slots=True)
class Total:
    """What came of one operation in one way: how often, and the seconds of all together."""

    count: int = 0
    seconds: float = 0


class Outcomes:
    """Totals by operation and code, which is ``ok`` or an error's. Safe in many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[tuple[str, str], Total] = {}

    @contextmanager
    def of(self, operation: str) -> Iterator[None]:
        """Around one try."""
        started, code = time.monotonic(), "ok"
        try:
            yield
        except BaseException as error:
            code = code_of(error)
            raise
        finally:
            self.add(operation, code, time.monotonic() - started)

    def add(self, operation: str, code: str, seconds: float) -> None:
        """Count one try that has ended."""
        with self._lock:
            total = self._totals.setdefault((operation, code), Total())
            total.count += 1
            total.seconds += seconds

    def totals(self) -> dict[tuple[str, str], Total]:
        """Those so far, by operation and code."""
        with self._lock:
            return {key: Total(total.count, total.seconds) for key, total in self._totals.items()}


def code_of(error: BaseException) -> str:
    """The code to count `error` under."""
    return error.code if isinstance(error, DatomError) else "internal"
