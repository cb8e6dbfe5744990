"""A proxy that does to HTTP what bad networks and busy storages do."""

from __future__ import annotations

import http.client
import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

_UPSTREAM_SECONDS = 30
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with RST
_PER_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, with which requests.

    Attributes:
        on: part of ``METHOD /path`` of the requests concerned; empty is all.
        times: how many requests; None is all.
        reset_at: bytes of the request's body that are read before the connection ends with RST; a shorter body is met
            by it too, in full. Nothing is passed on.
        status: answered instead of passing the request on.
        says: the body of that answer.
        silent_seconds: before the answer begins.
        cut_after: bytes of the body that are sent before the connection ends; with RST if it is that of `status`.
        reset: whether it ends with RST; else it ends as if all had been said.
        altered_at: the byte of the body that is changed.
        drip_seconds: before each byte of the body.
    """

    on: str = ""
    times: int | None = None
    reset_at: int | None = None
    status: int | None = None
    says: bytes = b""
    silent_seconds: float = 0
    cut_after: int | None = None
    reset: bool = False
    altered_at: int | None = None
    drip_seconds: float = 0


class FaultyProxy:
    """A proxy in front of one HTTP server, faultless until told otherwise.

    Attributes:
        url: where it listens.
        requests: ``METHOD /path`` of each request, in order of arrival, those that fail included.
        headers: of each of them.
        weather: asked what happens to each request while nothing is injected.
    """

    def __init__(self, upstream: str, one_at_a_time: bool = False) -> None:
        self._alone: AbstractContextManager[object] = threading.Lock() if one_at_a_time else nullcontext()
        self.requests: list[str] = []
        self.headers: list[Message] = []
        self.weather: Callable[[str], Fault] = lambda request: Fault()
        self._upstream = urlsplit(upstream).netloc
        self._fault: Fault | None = None
        self._left = 0
        self._healed = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def inject(self, fault: Fault) -> None:
        """From now on `fault` happens, in place of any before it."""
        self.heal()
        with self._lock:
            self._fault, self._left = fault, -1 if fault.times is None else fault.times
            self._healed = threading.Event()

    def heal(self) -> None:
        """From now on all is well; what is being held back is let go."""
        with self._lock:
            self._fault = None
            self._healed.set()

    def _meet(self, request: str, headers: Message) -> tuple[Fault, threading.Event]:
        """The fault that happens to `request` (one of no effect if none does), and what ends it early."""
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            fault = self._fault
            if fault is None:
                return self.weather(request), self._healed
            if fault.on not in request or self._left == 0:
                return Fault(), self._healed
            self._left -= 1
            return fault, self._healed


@contextmanager
def faulty_proxy(upstream: str, *, one_at_a_time: bool = False) -> Iterator[FaultyProxy]:
    """A proxy in front of the server at the URL `upstream`, on a free port; it is stopped at the end.

    Args:
        one_at_a_time: whether a request waits for the one before it. rclone, unlike S3, has no object for a moment when
            one is put in another's place.
    """
    proxy = FaultyProxy(upstream, one_at_a_time)
    serving = threading.Thread(target=proxy._server.serve_forever, args=(0.05,))
    serving.start()
    try:
        yield proxy
    finally:
        proxy.heal()
        proxy._server.stop()
        serving.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        # Without the shutdown of the base class, which would say a proper end before a reset.
        self._open.discard(request)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are gone are no error: what they gave up is what the tests are about."""

    def stop(self) -> None:
        self.shutdown()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass_on(self) -> None:
        proxy = self.server.proxy
        fault, healed = proxy._meet(f"{self.command} {self.path}", self.headers)
        body = self._body(fault.reset_at)
        if fault.reset_at is not None:
            self.close_connection = True
            self._reset()
            return
        if fault.silent_seconds:
            healed.wait(fault.silent_seconds)
        if fault.status is not None:
            self._answer(fault.status, [], fault.says[: fault.cut_after], str(len(fault.says)))
            if fault.cut_after is not None:
                self.close_connection = True
                self._reset()
        else:
            with proxy._alone:
                answer = self._ask(proxy._upstream, body)
            self._relay(fault, healed, *answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - the base class calls them so

    def _body(self, most: int | None) -> bytes:
        """What the request carries, in chunks or not; `most` bytes of it if that is given."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length", 0))
            return self.rfile.read(length if most is None else min(length, most))
        body = b""
        while (most is None or len(body) < most) and (size := int(self.rfile.readline().partition(b";")[0], 16)):
            body += self.rfile.read(size)
            self.rfile.readline()
        if most is None:
            self.rfile.readline()
        return body

    def _ask(self, upstream: str, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(upstream, timeout=_UPSTREAM_SECONDS)
        try:
            # The headers as they came, Host included: the signature covers it.
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "transfer-encoding":
                    connection.putheader(name, value)
            if "Transfer-Encoding" in self.headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def _relay(self, fault: Fault, healed: threading.Event, response: http.client.HTTPResponse, body: bytes) -> None:
        length = response.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        headers = [(name, value) for name, value in response.headers.items() if name.lower() not in _PER_CONNECTION]
        if fault.altered_at is not None and fault.altered_at < len(body):
            body = body[: fault.altered_at] + bytes([body[fault.altered_at] ^ 0xFF]) + body[fault.altered_at + 1 :]
        if fault.cut_after is not None:
            body = body[: fault.cut_after]
            self.close_connection = True
        self._answer(response.status, headers, b"" if fault.drip_seconds else body, length)
        if fault.drip_seconds:
            for byte in body:
                healed.wait(fault.drip_seconds)
                self.wfile.write(bytes([byte]))
        if fault.reset:
            self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: str) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != http.HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body)
