"""The signals that a process is sent, in the order they arrive."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable, Iterator


class Signals:
    """Listens for `numbers` from now on, in place of what they did; for the main thread.

    Iterating waits for the next one. A handler that puts them on a queue would not do: handlers run in the main thread,
    which does not wake from waiting on a lock for a signal that another thread received.
    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._arrived, self._arriving = socket.socketpair()
        self._arriving.setblocking(False)
        signal.set_wakeup_fd(self._arriving.fileno(), warn_on_full_buffer=False)
        self._numbers = frozenset(numbers)
        for number in self._numbers:
            signal.signal(number, lambda *_: None)

    def __iter__(self) -> Iterator[signal.Signals]:
        while True:
            number = self._arrived.recv(1)[0]
            if number in self._numbers:
                yield signal.Signals(number)
