"""The endpoints for whoever runs the server: HTTP probes, metrics, gRPC health."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, Counter

from datom_flight.protocol.errors import UnavailableError
from datom_flight_server.flight.health import SERVICES, Health
from datom_flight_server.management import Management

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class State:
    """What a server would say of itself."""

    def __init__(self) -> None:
        self.is_alive = True
        self.is_ready = True
        self.said: list[str] = []
        self.telling = threading.Event()
        self.telling.set()

    def alive(self) -> bool:
        return self.is_alive

    def ready(self) -> bool:
        return self.is_ready

    def problems(self) -> list[str]:
        self.telling.wait(30)
        return self.said


@contextmanager
def managed(state: State, address: str = "127.0.0.1:0") -> Iterator[Management]:
    registry = CollectorRegistry()
    Counter("datom_flight_reads", "Reads.", registry=registry).inc()
    management = Management(address, state.alive, state.ready, state.problems, registry)
    try:
        yield management
    finally:
        state.telling.set()
        management.close()


def get(management: Management, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, str]:
    with closing(http.client.HTTPConnection(host, management.port, timeout=10)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_healthz_says_that_the_process_lives() -> None:
    state = State()
    state.is_ready = False
    with managed(state) as management:
        assert get(management, "/healthz") == (200, "ok\n")


def test_readyz_tells_readiness_and_problems() -> None:
    state = State()
    with managed(state) as management:
        status, body = get(management, "/readyz")
        assert (status, json.loads(body)) == (200, {"ready": True, "problems": []})
        state.is_ready = False
        status, body = get(management, "/readyz")
        assert (status, json.loads(body)) == (503, {"ready": False, "problems": []})


def test_a_problem_of_one_project_is_told_but_takes_nothing_from_the_others() -> None:
    state = State()
    state.said = ["project STUDY_001: store_unreachable"]
    with managed(state) as management:
        status, body = get(management, "/readyz")
        assert (status, json.loads(body)) == (200, {"ready": True, "problems": state.said})


def test_a_probe_is_answered_while_the_problems_are_still_looked_for() -> None:
    state = State()
    state.said = ["something"]
    with managed(state) as management:
        get(management, "/readyz")
        state.telling.clear()
        assert json.loads(get(management, "/readyz")[1]) == {"ready": True, "problems": ["something"]}
        assert get(management, "/healthz")[0] == 200


def test_metrics_are_those_of_the_registry() -> None:
    with managed(State()) as management:
        status, body = get(management, "/metrics")
        assert status == 200
        assert "datom_flight_reads_total 1.0" in body


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/healthz/../etc", 404), ("POST", "/readyz", 405)]
)
def test_anything_else_is_refused(method: str, path: str, status: int) -> None:
    with managed(State()) as management:
        assert get(management, path, method)[0] == status


def test_a_silent_client_does_not_hold_up_the_probes() -> None:
    with managed(State()) as management, socket.create_connection(("127.0.0.1", management.port), timeout=10):
        assert get(management, "/healthz")[0] == 200


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_management_listens_on_ipv6() -> None:
    with managed(State(), "[::1]:0") as management:
        assert get(management, "/healthz", host="::1")[0] == 200


def test_a_taken_address_is_named() -> None:
    state = State()
    with managed(state) as management:
        address = f"127.0.0.1:{management.port}"
        for taking in (
            lambda: Management(address, state.alive, state.ready, state.problems, CollectorRegistry()),
            lambda: Health(address, state.ready),
        ):
            with pytest.raises(UnavailableError, match=f'"{address}" cannot be listened on: Address already in use'):
                taking()


@contextmanager
def health_of(state: State) -> Iterator[Any]:
    health = Health("127.0.0.1:0", state.ready)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{health.port}") as channel:
            yield health_pb2_grpc.HealthStub(channel)
    finally:
        health.close()


def test_health_says_whether_the_server_serves_at_that_moment() -> None:
    state = State()
    with health_of(state) as stub:
        for ready, status in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
            state.is_ready = ready
            for service in SERVICES:
                assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status == status


def test_health_of_an_unknown_service_is_not_found() -> None:
    with health_of(State()) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_watchers_hear_of_a_change() -> None:
    state = State()
    with health_of(state) as stub:
        answers = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICES[1]), timeout=10)
        assert next(answers).status == SERVING
        state.is_ready = False
        assert next(answers).status == NOT_SERVING
        answers.cancel()
