"""What goes wrong by chance on the way to a server."""

from __future__ import annotations

import random
import threading
from collections import Counter

from ..faulty import Fault

_SHARES = {"503": 0.02, "reset": 0.015, "cut with a reset": 0.015, "cut": 0.015, "late": 0.03}
_LATEST_SECONDS = 1.5
_MOST_SENT = 200


class Weather:
    """Chooses what happens to each request, one in ten meeting something.

    Attributes:
        met: how often each thing happened.
    """

    def __init__(self, seed: str) -> None:
        self.met: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._calm = True

    def begin(self) -> None:
        """From now on things go wrong."""
        self._calm = False

    def end(self) -> None:
        """From now on all is well."""
        self._calm = True

    def __call__(self, request: str) -> Fault:
        """What happens to `request`."""
        with self._lock:
            drawn = 1.0 if self._calm else self._chance.random()
            for kind, share in _SHARES.items():
                if drawn < share:
                    self.met[kind] += 1
                    return self._fault(kind)
                drawn -= share
        return Fault()

    def _fault(self, kind: str) -> Fault:
        sent = self._chance.randrange(_MOST_SENT)
        match kind:
            case "503":
                return Fault(status=503)
            case "reset":
                return Fault(reset_at=0)
            case "cut with a reset":
                return Fault(cut_after=sent, reset=True)
            case "cut":
                return Fault(cut_after=sent)
        return Fault(silent_seconds=self._chance.uniform(0.1, _LATEST_SECONDS))
