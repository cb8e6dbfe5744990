"""The servers that can answer: one Flight client each, opened when first needed."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.flight as fl

from .failures import TRANSPORT_ERRORS, to_datom_error
from .protocol.compression import COMPRESSION_HEADER
from .protocol.errors import DatomError, InvalidRequestError

_OPTIONS = [
    # gRPC waits a second before it tries a lost connection again; a restarted server is back sooner.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # It waits twenty seconds for a machine that does not answer at all.
    ("grpc.min_reconnect_backoff_ms", 5000),
    # What a stream may send ahead of its reader. Left to itself gRPC measures that, and on a busy machine takes it all.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 16 * 1024 * 1024),
]

_AVOIDED_SECONDS = 30.0
"""How long a replica that failed is not gone to just because a server named it."""


class Replica(NamedTuple):
    """A server, and the client that talks to it."""

    url: str
    client: fl.FlightClient


class Authorisation(fl.ClientMiddlewareFactory):  # type: ignore[misc]
    """Gives calls that others make with a Flight client the headers of the connection's own.

    A header that a call's own options hold comes first, and servers heed the first.

    Args:
        headers: what every call carries besides the token.

    Attributes:
        token: gives it; one that fails sends none.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__()
        self._headers = headers
        self.token: Callable[[], str | None] = lambda: None

    def start_call(self, info: fl.CallInfo) -> fl.ClientMiddleware | None:
        """See `pyarrow.flight.ClientMiddlewareFactory`."""
        try:
            token = self.token()
        except DatomError:
            # Nothing may be raised here; the server will say that the call has no token.
            token = None
        return _Headers({**self._headers, **authorised(token)})


def authorised(token: str | None) -> dict[str, str]:
    """The header that `token` goes into; none for None."""
    return {"authorization": f"Bearer {token}"} if token else {}


class _Headers(fl.ClientMiddleware):  # type: ignore[misc]
    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__()
        self._headers = headers

    def sending_headers(self) -> dict[str, str]:
        return self._headers


class Replicas:
    """Servers that give the same answers. Calls go to one of them until it fails, then to the next.

    Streams may go to others that a server names for them.

    Safe to use from many threads.

    Args:
        compression: the codec by which rows are to come; None is not compressed.

    Attributes:
        headers: what calls carry beside their authorisation.
        authorisation: what calls carry that others make with `lent`.
        closed: whether calls are refused.
    """

    def __init__(
        self,
        urls: Sequence[str],
        tls_root_certs: str | os.PathLike[str] | bytes | None = None,
        compression: str | None = None,
    ) -> None:
        self.urls = tuple(urls)
        self.headers = {} if compression is None else {COMPRESSION_HEADER: compression}
        self.authorisation = Authorisation(self.headers)
        self._root_certs = tls_root_certs
        self._lock = threading.Lock()
        self._clients: dict[str, fl.FlightClient] = {}
        self._lent: dict[str, fl.FlightClient] = {}
        self._current = 0
        self._left: dict[str, float] = {}
        self.closed = False

    @property
    def root_certificates(self) -> bytes | None:
        """The authorities that were given, as PEM; None leaves them to this machine. Raises as `current`."""
        return None if self._root_certs is None else _pem(self._root_certs)

    def current(self) -> Replica:
        """The server to ask now.

        Raises:
            InvalidRequestError: ``invalid_argument``: closed, or `tls_root_certs` is neither PEM nor a file of it.
            OSError: the file of `tls_root_certs` cannot be read.
        """
        with self._lock:
            return self._replica(self.urls[self._current])

    def lent(self) -> fl.FlightClient:
        """A client of that server for others: it gives each call the connection's headers. Raises as `current`."""
        url = self.current().url
        with self._lock:
            if url not in self._lent:
                self._lent[url] = self._open(url, [self.authorisation])
            return self._lent[url]

    def near(self, locations: Sequence[str]) -> Replica:
        """The server to fetch from where `locations` are named, best first: one of them or, at last, the current one.

        One that failed lately comes after all others. Raises as `current`.
        """
        if not locations:
            return self.current()
        with self._lock:
            candidates = [*filter(self._is_trusted, locations), self.urls[self._current]]
            lately = time.monotonic() - _AVOIDED_SECONDS
            return self._replica(min(candidates, key=lambda url: max(lately, self._left.get(url, lately))))

    def leave(self, replica: Replica) -> None:
        """Ask the next server from now on, unless another thread has moved on from `replica` already."""
        with self._lock:
            self._left[replica.url] = time.monotonic()
            if self.urls[self._current] == replica.url:
                self._current = (self._current + 1) % len(self.urls)

    def close(self) -> None:
        """Refuse calls from now on. The connections end with the last call under way."""
        with self._lock:
            self.closed = True
            # Not closed, but let go of: to close a client while another thread calls with it crashes the process.
            self._clients.clear()
            self._lent.clear()

    def _is_trusted(self, url: str) -> bool:
        # A token that is sent encrypted is sent so everywhere.
        return url.startswith("grpc+tls://") or any(own.startswith("grpc://") for own in self.urls)

    def _replica(self, url: str) -> Replica:
        if self.closed:
            raise closed_error()
        if url not in self._clients:
            self._clients[url] = self._open(url)
        return Replica(url, self._clients[url])

    def _open(self, url: str, middleware: Sequence[fl.ClientMiddlewareFactory] = ()) -> fl.FlightClient:
        certificates = None
        if url.startswith("grpc+tls"):
            certificates = _system_certificates() if self._root_certs is None else _pem(self._root_certs)
        try:
            return fl.FlightClient(url, tls_root_certs=certificates, middleware=middleware, generic_options=_OPTIONS)
        except TRANSPORT_ERRORS as error:
            failure = to_datom_error(error, url)
        raise failure


def closed_error() -> InvalidRequestError:
    """What calls get once the connection is closed."""
    return InvalidRequestError("the connection is closed", hint="open another with connect()")


def _pem(source: str | os.PathLike[str] | bytes) -> bytes:
    if isinstance(source, str) and "-----BEGIN" in source:
        source = source.encode()
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise InvalidRequestError(
            "tls_root_certs holds no PEM certificate", hint='give a file, or text, with "-----BEGIN CERTIFICATE-----"'
        )
    return data


def _system_certificates() -> bytes | None:
    """The authorities this machine trusts; None leaves the choice to gRPC, whose own list may be missing or old."""
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode() or None
