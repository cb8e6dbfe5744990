"""Clients of all kinds, as many as asked for in one process, each in a thread of its own.

Run as a program with a plan as JSON; says when it begins, and ends, when its input does, after what its clients have
under way.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import datom_flight

from .kinds import KINDS, Client
from .ledger import Entry, Ledger
from .plans import Plan

_THINK_SECONDS = (0.2, 1.8)
_WRITERS_THINK_SECONDS = (3.0, 9.0)
_END_SECONDS = 90.0


class Clients:
    """The clients of one process."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self._plan = plan
        self._ledger = ledger
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._shared: datom_flight.Connection | None = None

    def run(self) -> bool:
        """Go on until the program's input ends; gives whether every client then came to an end."""
        threads = [
            threading.Thread(target=self._use, args=(kind, name), daemon=True) for kind, name in self._plan.clients
        ]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self._stop.set()
        deadline = time.monotonic() + _END_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _use(self, kind: str, name: str) -> None:
        client = Client(self._plan, name, self._connection)
        think = _WRITERS_THINK_SECONDS if kind == "wrote" else _THINK_SECONDS
        while not self._stop.wait(client.chance.uniform(*think)):
            self._ledger.add(self._tried(kind, client))

    def _tried(self, kind: str, client: Client) -> Entry:
        began, started = time.time(), time.monotonic()
        client.replicas, client.wrote, error = (), None, None
        try:
            KINDS[kind][1](client)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"[:2000]
        return Entry(kind, began, time.monotonic() - started, error, client.replicas, client.wrote)

    def _connection(self) -> datom_flight.Connection:
        with self._lock:
            if self._shared is None:
                self._shared = self._plan.connect()
            return self._shared


def main() -> None:
    """See the module."""
    plan = Plan.from_json(sys.argv[1])
    print("began", flush=True)
    with Ledger(Path(plan.ledger)) as ledger:
        ended = Clients(plan, ledger).run()
    sys.exit(0 if ended else 1)


if __name__ == "__main__":
    main()
