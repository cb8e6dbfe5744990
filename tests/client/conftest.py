"""A server of the wire protocol for each test, and a connection to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import datom_flight
from support.wire_server import WireServer


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "PROJECT", "TOKEN"):
        monkeypatch.delenv(f"DATOM_FLIGHT_{name}", raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")


@pytest.fixture
def server() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


@pytest.fixture
def conn(server: WireServer) -> Iterator[datom_flight.Connection]:
    with datom_flight.connect(server.url, token="") as connection:
        yield connection
