"""How often each caller may ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from datom_flight.protocol.errors import UnavailableError

from ..model import Principal, Role

_BURST_SECONDS = 10
_KNOWN_CALLERS = 1000


class Rates:
    """Token buckets, one a caller, filled at `per_second` and holding what comes in within ten seconds.

    Each is one number: the instant until which the caller has had what fills up. Admins may ask as often as they like.

    Attributes:
        per_second: may change at any time.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._had_until: dict[str, float] = {}

    def count(self, principal: Principal) -> None:
        """Count one request.

        Raises:
            UnavailableError: ``overloaded``, saying when there is room for it; it is not counted then.
        """
        if principal.role is Role.ADMIN:
            return
        with self._lock:
            now = self._clock()
            until = max(self._had_until.get(principal.name, now), now) + 1 / self.per_second
            ahead = until - now - _BURST_SECONDS
            if ahead <= 0:
                self._had_until[principal.name] = until
                if len(self._had_until) > _KNOWN_CALLERS:
                    self._had_until = {name: until for name, until in self._had_until.items() if until > now}
                return
        raise UnavailableError(
            f'"{principal.name}" asks more than {self.per_second:g} times a second',
            code="overloaded",
            fields={
                "limit": "limits.requests_per_second",
                "value": self.per_second,
                "retry_after_seconds": round(ahead, 3),
            },
        )
