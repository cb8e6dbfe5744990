"""``/healthz``, ``/readyz`` and ``/metrics`` over plain HTTP, for whoever runs the server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Gauge, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from datom_flight.protocol.errors import UnavailableError

from .addresses import split_host_port
from .latest import Latest

REQUEST_SECONDS = 10
PROBLEMS_SECONDS = 0.8
"""How long a probe waits for the problems of now before it is answered with those last known."""
HUNG_SECONDS = 60
"""After which a check that gives no answer is a problem itself."""

StartResponse = Callable[..., Any]


class Management:
    """An HTTP server on threads of its own, from construction until `close`.

    ``/healthz`` is 200 while `alive` says so: a process that must be started anew is not.
    ``/readyz`` is 200 while `ready` says so and 503 otherwise, and names the `problems` either way: what is broken for
    one project is no reason to take the server from all others.

    Args:
        address: ``HOST:PORT``.
        alive: whether requests are answered at all.
        ready: whether new requests are welcome.
        problems: what is wrong, one sentence each; may take its time.
        registry: what ``/metrics`` shows, beside the number of problems.

    Raises:
        UnavailableError: ``unavailable`` when the address cannot be listened on.
    """

    def __init__(
        self,
        address: str,
        alive: Callable[[], bool],
        ready: Callable[[], bool],
        problems: Callable[[], list[str]],
        registry: CollectorRegistry,
    ) -> None:
        self._alive = alive
        self._ready = ready
        self._problems = _Problems(problems)
        self._metrics = make_wsgi_app(registry)
        problems_now = Gauge("datom_flight_problems", "What is wrong now; /readyz names it.", registry=registry)
        problems_now.set_function(lambda: len(self._problems.now()))
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
                if self._alive():
                    return _send(start, "200 OK", b"ok\n")
                return _send(start, "503 Service Unavailable", b"the Flight port does not answer\n")
            case "/readyz":
                ready = self._ready()
                body = json.dumps({"ready": ready, "problems": self._problems.now()}, ensure_ascii=False) + "\n"
                return _send(start, "200 OK" if ready else "503 Service Unavailable", body.encode(), "application/json")
            case "/metrics":
                answer: Iterable[bytes] = self._metrics(environ, start)
                return answer
        return _send(start, "404 Not Found", b"there are /healthz, /readyz and /metrics\n")


class _Problems:
    """The problems of now; those last known while a check takes its time, and that it hangs when it does."""

    def __init__(self, ask: Callable[[], list[str]]) -> None:
        self._latest = Latest("readiness", ask, PROBLEMS_SECONDS)
        self._known: list[str] = []

    def now(self) -> list[str]:
        try:
            self._known = self._latest.now()
        except TimeoutError:
            waiting = self._latest.waiting_seconds
            if waiting > HUNG_SECONDS:
                return [*self._known, f"what is wrong has been looked for over {waiting:.0f} seconds: a check hangs"]
        except Exception as error:
            # a fault of ours in a check is one more thing that is wrong
            return [f"what is wrong cannot be told: {type(error).__name__}"]
        return self._known

    def close(self) -> None:
        self._latest.close()


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
