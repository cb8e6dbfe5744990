"""The port that Flight is served at: by one server after another, as its certificate is renewed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pyarrow as pa
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from .service import DatomFlightServer

_TAKE_OVER_SECONDS = 5
_RETRY_SECONDS = 0.01

Certificate = tuple[bytes, bytes] | None
"""Chain and key, both PEM; None without TLS."""


class Port:
    """Listens from construction until `close`.

    Args:
        serve: makes a server of a location and a certificate.
        location: ``grpc://host:port`` or ``grpc+tls://host:port``; port 0 takes a free one.

    Attributes:
        number: the port taken.
        url: the location, with it.
    """

    def __init__(
        self, serve: Callable[[str, Certificate], DatomFlightServer], location: str, certificate: Certificate
    ) -> None:
        self._serve = serve
        self._server = serve(location, certificate)
        self.number: int = self._server.port
        self.url = f"{location.rpartition(':')[0]}:{self.number}"
        self._ending: list[threading.Thread] = []

    def renew(self, certificate: Certificate) -> None:
        """Serve new connections with `certificate`.

        Streams under way go on, and idle connections are told to come anew. For some milliseconds nobody listens, since
        Flight does not share ports: who connects just then is refused, and tries again.

        Raises:
            ArrowException: the port cannot be taken again; nothing listens any more.
        """
        self._end()
        take = Retrying(
            retry=retry_if_exception_type(pa.ArrowException),
            stop=stop_after_delay(_TAKE_OVER_SECONDS),
            wait=wait_fixed(_RETRY_SECONDS),
            reraise=True,
        )
        self._server = take(self._serve, self.url, certificate)

    def close(self, seconds: float) -> bool:
        """Stop listening, and wait for calls under way: whether they ended within `seconds`."""
        self._end()
        deadline = time.monotonic() + seconds
        for ending in self._ending:
            ending.join(max(0.0, deadline - time.monotonic()))
        return not any(ending.is_alive() for ending in self._ending)

    def _end(self) -> None:
        # it closes the port at once, and waits for every handler: a stalled reader's may take its time
        ending = threading.Thread(target=self._server.shutdown, name="shutdown", daemon=True)
        ending.start()
        self._ending = [*(earlier for earlier in self._ending if earlier.is_alive()), ending]
