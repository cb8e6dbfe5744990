"""A relay in front of a server that counts what comes back through it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Relay:
    """Listens on a free port of 127.0.0.1 and passes everything on to `url`.

    Attributes:
        url: where it listens.
        received: bytes that came from the server so far.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.received = 0
        self.url = f"{parts.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """End the connections there are; others can be made."""
        with self._lock:
            _end(self._open)
            self._open.clear()

    def close(self) -> None:
        """End all connections, and listen no more."""
        _end([self._listener])
        self.reset()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    # nobody there: the caller is told so
                    caller.close()
                    continue
                with self._lock:
                    self._open += [caller, server]
                threading.Thread(target=self._pass, args=(caller, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, caller, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if counted:
                    with self._lock:
                        self.received += len(data)
                target.sendall(data)
        # also where it was reset
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _end(connections: list[socket.socket]) -> None:
    for each in connections:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@contextmanager
def relaying(url: str) -> Iterator[Relay]:
    """A relay for the time of a ``with`` block."""
    relay = Relay(url)
    try:
        yield relay
    finally:
        relay.close()
