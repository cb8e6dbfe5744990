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
import pyarrow.flight as fl
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, Counter

from datom_flight.protocol.errors import UnavailableError
from datom_flight_server.flight.health import SERVICES, Health
from datom_flight_server.flight.pulse import Pulse
from datom_flight_server.listening import reached_at
from datom_flight_server.management import Management
from support.server import await_condition
from support.tls import write_certificate

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


def test_healthz_says_when_requests_are_not_answered_any_more() -> None:
    state = State()
    state.is_alive = False
    with managed(state) as management:
        assert get(management, "/healthz")[0] == 503


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


def test_a_check_that_hangs_is_a_problem_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datom_flight_server.management.HUNG_SECONDS", 0)
    state = State()
    state.said = ["something"]
    with managed(state) as management:
        get(management, "/readyz")
        state.telling.clear()
        said = json.loads(get(management, "/readyz")[1])["problems"]
        assert said[0] == "something"
        assert said[1].endswith("a check hangs")
        state.telling.set()
        await_condition(
            lambda: json.loads(get(management, "/readyz")[1])["problems"] == ["something"], 10, "it is over"
        )


def test_a_check_that_fails_is_a_problem_and_stops_neither_readiness_nor_metrics() -> None:
    def failing() -> list[str]:
        raise ZeroDivisionError("a path of the server")

    state = State()
    management = Management("127.0.0.1:0", state.alive, state.ready, failing, CollectorRegistry())
    try:
        status, body = get(management, "/readyz")
        assert (status, json.loads(body)["problems"]) == (200, ["what is wrong cannot be told: ZeroDivisionError"])
        assert "datom_flight_problems 1.0" in get(management, "/metrics")[1]
    finally:
        management.close()


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


def test_health_is_not_serving_while_nobody_can_tell() -> None:
    telling = threading.Event()

    def serving() -> bool:
        telling.wait(30)
        return True

    telling.set()
    health = Health("127.0.0.1:0", serving)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{health.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answers = stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)
            assert next(answers).status == SERVING
            telling.clear()
            assert next(answers).status == NOT_SERVING
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == NOT_SERVING
            telling.set()
            assert next(answers).status == SERVING
            answers.cancel()
    finally:
        telling.set()
        health.close()


def test_health_is_not_serving_when_asking_fails() -> None:
    def serving() -> bool:
        raise ZeroDivisionError

    health = Health("127.0.0.1:0", serving)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{health.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == NOT_SERVING
    finally:
        health.close()


class DataPlane(fl.FlightServerBase):  # type: ignore[misc]
    """A Flight server that refuses with a code, or hangs.

    Attributes:
        answering: cleared, it hangs.
    """

    def __init__(self, location: str = "grpc://127.0.0.1:0", **options: Any) -> None:
        self.answering = threading.Event()
        self.answering.set()
        super().__init__(location, **options)

    def list_actions(self, context: fl.ServerCallContext) -> Any:
        self.answering.wait(30)
        raise fl.FlightUnauthenticatedError("unauthenticated: no token", extra_info=b"{}")


@contextmanager
def pulse_of(url: str) -> Iterator[Pulse]:
    pulse = Pulse(url, silent_seconds=0.5, every_seconds=0.05, call_seconds=0.2)
    pulse.start()
    try:
        yield pulse
    finally:
        pulse.close()


@pytest.mark.parametrize("scheme", ["grpc", "grpc+tls"])
def test_a_data_plane_that_hangs_is_noticed_and_so_is_its_recovery(scheme: str, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    options = {"tls_certificates": [(certificate.read_bytes(), key.read_bytes())]} if scheme == "grpc+tls" else {}
    with DataPlane(f"{scheme}://127.0.0.1:0", **options) as server:
        server.answering.clear()
        with pulse_of(f"{scheme}://127.0.0.1:{server.port}") as pulse:
            await_condition(lambda: not pulse.beats, 10, "it hangs")
            assert pulse.problems()[0].startswith("the Flight port has not answered for ")
            server.answering.set()
            await_condition(lambda: not pulse.problems(), 10, "it answers")
            server.answering.clear()
            await_condition(lambda: not pulse.beats, 10, "it hangs again")
            server.answering.set()


def test_a_data_plane_that_is_gone_is_noticed() -> None:
    with DataPlane() as server:
        url = f"grpc://127.0.0.1:{server.port}"
    with pulse_of(url) as pulse:
        await_condition(lambda: not pulse.beats, 10, "nobody answers")


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("grpc://0.0.0.0:0", "grpc://127.0.0.1:8815"),
        ("grpc+tls://[::]:8815", "grpc+tls://[::1]:8815"),
        ("grpc://10.0.0.7:0", "grpc://10.0.0.7:8815"),
        ("grpc://flight.example.org:8815", "grpc://flight.example.org:8815"),
    ],
)
def test_a_server_reaches_itself_wherever_it_listens(listen: str, url: str) -> None:
    assert reached_at(listen, 8815) == url
