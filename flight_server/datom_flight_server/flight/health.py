"""``grpc.health.v1``, on a port of its own because Flight's server takes no other services."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from ..latest import Latest
from ..listening import refuse_taken

SERVICES = ("", "arrow.flight.protocol.FlightService")
FOLLOW_SECONDS = 0.5
ANSWER_SECONDS = 0.5
"""Within which it must be told whether the server serves; else it does not."""


class Health:
    """A gRPC server, from construction until `close`, that says SERVING while `serving` is true.

    Watchers hear of a change within half a second; `Check` answers what holds at that moment. A `serving` that gives no
    answer, or fails, is NOT_SERVING.

    Args:
        address: ``HOST:PORT``.

    Raises:
        UnavailableError: ``unavailable`` when the address cannot be listened on.
    """

    def __init__(self, address: str, serving: Callable[[], bool]) -> None:
        refuse_taken("server.health", address)
        self._servicer = _Servicer(serving)
        # without this, a second server would share the port in silence
        options = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="health"), options=options)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self.port: int = self._server.add_insecure_port(address)
        self._server.start()
        self._closed = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="health", daemon=True)
        self._follower.start()

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        self._follower.join()
        self._server.stop(grace=None).wait()
        self._servicer.close()

    def _follow(self) -> None:
        while not self._closed.wait(FOLLOW_SECONDS):
            self._servicer.update()


class _Servicer(HealthServicer):  # type: ignore[misc]
    def __init__(self, serving: Callable[[], bool]) -> None:
        super().__init__()
        self._serving = Latest("serving", serving, ANSWER_SECONDS)
        self._said: bool | None = None
        self._updating = threading.Lock()
        self.update()

    def update(self) -> None:
        with self._updating:
            serving = self._is_serving()
            if serving == self._said:
                return
            self._said = serving
            answer = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
            for service in SERVICES:
                self.set(service, answer)

    def close(self) -> None:
        self._serving.close()

    def _is_serving(self) -> bool:
        try:
            return self._serving.now()
        except Exception:
            # TimeoutError, or a fault of ours: either way nobody can tell that it serves
            return False

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        self.update()
        return super().Check(request, context)
