"""The Envoy of ``deploy/envoy``, run before real servers: what it says of itself is what happens."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest

import datom_flight
from support.server import Server, await_condition, running, write_config
from support.stores import write_store
from support.tls import write_certificate

ENVOY = Path(__file__).parents[2] / "deploy" / "envoy"
SECONDS = 20

LB = pa.table({"LBSEQ": pa.array(range(400_000)), "LBSTRESN": pa.array(float(n) for n in range(400_000))})


class Edge:
    """A running Envoy; `certificate` is what it shows, `url` where it listens."""

    def __init__(self, folder: Path, replace: dict[str, str]) -> None:
        self.folder = folder
        self.certificate, _ = self.renew_certificate()
        for file in ENVOY.glob("*.yaml"):
            text = file.read_text()
            for old, new in replace.items():
                text = text.replace(old, new)
            (folder / file.name).write_text(text)
        address = folder / "admin"
        self._log = (folder / "envoy.log").open("wb")
        self.process = subprocess.Popen(
            [Path(sys.executable).parent / "envoy", "--config-path", folder / "envoy.yaml", "--use-dynamic-base-id",
             "--admin-address-path", address, "--log-level", "warn", "--concurrency", "1"],
            stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        await_condition(lambda: address.exists() and address.read_text(), SECONDS, "Envoy has not started")
        self._admin = address.read_text()
        await_condition(lambda: self.asked("ready").strip() == "LIVE", SECONDS, "Envoy is not live")
        listeners = json.loads(self.asked("listeners?format=json"))["listener_statuses"]
        self.port = int(listeners[0]["local_address"]["socket_address"]["port_value"])
        self.url = f"grpc+tls://127.0.0.1:{self.port}"

    def renew_certificate(self) -> tuple[Path, Path]:
        """Put a new certificate and its key where Envoy reads them, one after the other."""
        fresh = write_certificate(self.folder / "fresh")
        (self.folder / "tls").mkdir(exist_ok=True)
        return fresh[0].rename(self.folder / "tls" / "tls.crt"), fresh[1].rename(self.folder / "tls" / "tls.key")

    def asked(self, path: str) -> str:
        """What the admin address answers."""
        with closing(http.client.HTTPConnection(self._admin, timeout=5)) as connection:
            connection.request("GET", f"/{path}")
            return connection.getresponse().read().decode()

    def shown(self) -> str:
        """The certificate that a new connection is shown, PEM."""
        return ssl.get_server_certificate(("127.0.0.1", self.port), timeout=5)

    def connect(self, token: str) -> datom_flight.Connection:
        """A connection of the client through it."""
        return datom_flight.connect(self.url, "TEST", token=token, tls_root_certs=self.certificate.read_bytes())

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(SECONDS)
        self._log.close()


@contextmanager
def edge(folder: Path, server: Server, health_port: int) -> Iterator[Edge]:
    """An Envoy as deployed, but for paths, ports and the replicas' name."""
    envoy = Edge(
        folder,
        {
            "/etc/envoy": str(folder),
            "port_value: 9901": "port_value: 0",
            "port_value: 8443": "port_value: 0",
            "datom-flight-replicas, port_value: 8815": f"127.0.0.1, port_value: {server.url.rpartition(':')[2]}",
            "port_value: 8817": f"port_value: {health_port}",
        },
    )
    try:
        yield envoy
    finally:
        envoy.stop()


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Edge, Server]]:
    folder = tmp_path_factory.mktemp("edge")
    write_store(folder / "store", {"lb": [LB]})
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        health_port = taken.getsockname()[1]
    projects: dict[str, Any] = {"TEST": {"data": f"file://{folder / 'store'}"}}
    config = write_config(folder / "server", projects, server={"health": f"127.0.0.1:{health_port}"})
    with running(config) as server, edge(folder, server, health_port) as envoy:
        await_condition(_healthy(envoy), SECONDS, "Envoy finds the server healthy")
        yield envoy, server


def _healthy(envoy: Edge) -> Callable[[], bool]:
    return lambda: "health_flags::healthy" in envoy.asked("clusters")


def test_tables_queries_and_errors_come_through(envoy: tuple[Edge, Server]) -> None:
    edge, server = envoy
    with edge.connect(server.token()) as connection:
        assert connection.read("lb").equals(LB)
        assert connection.history("lb")[0].version
        assert connection.sql("SELECT count(*) AS n FROM lb").to_pylist() == [{"n": LB.num_rows}]
        with pytest.raises(datom_flight.NotFoundError) as refused:
            connection.read("nothing")
        assert refused.value.code == "not_found"
        assert refused.value.request_id


def test_what_is_no_call_of_flight_is_not_passed_on(envoy: tuple[Edge, Server]) -> None:
    edge, _ = envoy
    credentials = grpc.ssl_channel_credentials(edge.certificate.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{edge.port}", credentials) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.RpcError) as refused:
            check(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_new_certificate_is_shown_while_old_streams_go_on(envoy: tuple[Edge, Server]) -> None:
    edge, server = envoy
    before = edge.shown()
    with edge.connect(server.token()) as connection:
        stream = connection.scan("lb")
        rows = stream.read_next_batch().num_rows
        edge.renew_certificate()
        await_condition(lambda: edge.shown() != before, SECONDS, "the new certificate is shown")
        assert rows + sum(batch.num_rows for batch in stream) == LB.num_rows
    with edge.connect(server.token()) as connection:
        assert connection.read("lb", limit=3).num_rows == 3
