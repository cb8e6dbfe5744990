"""``/healthz``, ``/readyz`` and ``/metrics`` over plain HTTP, for whoever runs the server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from datom_flight.protocol.errors import UnavailableError

from .addresses import split_host_port

REQUEST_SECONDS = 10
PROBLEMS_SECONDS = 0.8
"""How long a probe waits for the problems of now before it is answered with those last known."""

StartResponse = Callable[..., Any]


class Management:
    """An HTTP server on threads of its own, from construction until `close`.

    ``/readyz`` is 200 while `ready` says so and 503 otherwise, and names the `problems` either way: what is broken for
    one project is no reason to take the server from all others.

    Args:
        address: ``HOST:PORT``.
        ready: whether new requests are welcome.
        problems: what is wrong, one sentence each; may take its time.
        registry: what ``/metrics`` shows.

    Raises:
        UnavailableError: ``unavailable`` when the address cannot be listened on.
    """

    def __init__(
        self,
        address: str,
        ready: Callable[[], bool],
        problems: Callable[[], list[str]],
        registry: CollectorRegistry,
    ) -> None:
        self._ready = ready
        self._problems = _Latest(problems)
        self._metrics = make_wsgi_app(registry)
        host, port = split_host_port(address)
        try:
            self._server = make_server(
                host, port, self._answer, server_class=_server_class(host), handler_class=_Handler
            )
        except OSError as error:
            raise UnavailableError(
                f'server.management: "{address}" cannot be listened on: {error.strerror}',
                hint="is another process listening there?",
            ) from None
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="management", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._problems.close()

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _send(start, "405 Method Not Allowed", b"only GET\n")
        match environ["PATH_INFO"]:
            case "/healthz":
                return _send(start, "200 OK", b"ok\n")
            case "/readyz":
                ready = self._ready()
                body = json.dumps({"ready": ready, "problems": self._problems.now()}, ensure_ascii=False) + "\n"
                return _send(start, "200 OK" if ready else "503 Service Unavailable", body.encode(), "application/json")
            case "/metrics":
                answer: Iterable[bytes] = self._metrics(environ, start)
                return answer
        return _send(start, "404 Not Found", b"there are /healthz, /readyz and /metrics\n")


class _Latest:
    """What `ask` gives, asked by one thread at a time, so that slow answers hold up no prober."""

    def __init__(self, ask: Callable[[], list[str]]) -> None:
        self._ask = ask
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="readiness")
        self._lock = threading.Lock()
        self._asking: Future[list[str]] | None = None
        self._last: list[str] = []

    def now(self) -> list[str]:
        with self._lock:
            if self._asking is None or self._asking.done():
                self._asking = self._pool.submit(self._ask)
            asking = self._asking
        try:
            self._last = asking.result(PROBLEMS_SECONDS)
        except TimeoutError:
            return self._last
        return self._last

    def close(self) -> None:
        self._pool.shutdown(wait=False)


class _Handler(WSGIRequestHandler):
    # a prober that says nothing must not hold its thread
    timeout = REQUEST_SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds; they are not worth a line."""


def _server_class(host: str) -> type[ThreadingWSGIServer]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return type("_Server", (ThreadingWSGIServer,), {"address_family": family})


def _send(start: StartResponse, status: str, body: bytes, content_type: str = "text/plain") -> list[bytes]:
    start(status, [("Content-Type", f"{content_type}; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
