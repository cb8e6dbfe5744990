"""The servers that share the work: their URLs, looked up again and again where the settings give a name for all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence

from .addresses import split_host_port

DNS = "dns:///"
"""What an address begins with that stands for all that its name resolves to."""

_MAX_AGE_SECONDS = 10.0

Resolve = Callable[[str, int], Sequence[str]]
"""Gives the addresses of a name, ready for a URL; raises OSError."""


def addresses_of(name: str, port: int) -> list[str]:
    """The addresses that `name` resolves to, those of IPv6 in brackets. Raises OSError."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [f"[{place[0]}]" if ":" in str(place[0]) else str(place[0]) for *_, place in found]


class Replicas:
    """The replicas of the settings.

    No caller waits for a lookup: it goes on beside them, and they have what the one before found.

    Args:
        addresses: ``grpc://HOST:PORT``, ``grpc+tls://HOST:PORT``, or ``dns:///NAME:PORT``.
        scheme: of the URLs of what a name resolves to.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        scheme: str,
        resolve: Resolve = addresses_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._named = tuple(address for address in addresses if address.startswith(DNS))
        self._scheme = scheme
        self._resolve = resolve
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_up = float("-inf")
        self._found: dict[str, tuple[str, ...]] = {}
        self._failures: dict[str, str] = {}
        self._fixed = tuple(address for address in addresses if not address.startswith(DNS))

    def urls(self) -> tuple[str, ...]:
        """Of all that are known now, each once."""
        if self._named:
            self._refresh()
        resolved = (url for urls in self._found.values() for url in urls)
        return tuple(dict.fromkeys((*self._fixed, *resolved)))

    def problems(self) -> list[str]:
        """The names that could not be looked up, one sentence each."""
        return [f'server.replicas: "{name}" cannot be resolved: {why}' for name, why in self._failures.items()]

    def _refresh(self) -> None:
        with self._lock:
            if self._clock() - self._looked_up < _MAX_AGE_SECONDS:
                return
            self._looked_up = self._clock()
        threading.Thread(target=self._look_up, name="replicas", daemon=True).start()

    def _look_up(self) -> None:
        found, failures = dict(self._found), {}
        for address in self._named:
            name, port = split_host_port(address.removeprefix(DNS))
            try:
                found[address] = tuple(f"{self._scheme}://{host}:{port}" for host in self._resolve(name, port))
            except OSError as error:
                # what was found last still stands
                failures[address] = error.strerror or type(error).__name__
        self._found, self._failures = found, failures
