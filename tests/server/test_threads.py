"""What Python keeps of gRPC's threads: for as long as their calls last, and no longer."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from datom_flight.protocol.errors import AuthenticationError, InvalidRequestError
from datom_flight_server.calls import Call
from datom_flight_server.flight.boundary import Boundary
from datom_flight_server.flight.middleware import REQUEST, RequestFactory, request_of
from datom_flight_server.flight.rates import Rates
from datom_flight_server.flight.session import Sessions
from datom_flight_server.flight.threads import HeldThread
from datom_flight_server.model import Principal, Role

ROWS = pa.record_batch({"SEQ": pa.array(range(100_000))})


class OneCaller:
    """An `Authenticator` that knows one token."""

    def authenticate(self, bearer: str | None) -> Principal:
        if bearer != "made-up":
            raise AuthenticationError("who is that?")
        return Principal("amelie", Role.ADMIN)

    def narrow(self, principal: Principal, role: Role, bearer: str | None) -> Any:
        raise NotImplementedError


class Server(fl.FlightServerBase):  # type: ignore[misc]
    """Sends some rows, or refuses; remembers which threads its handlers ran in, and the calls that ended."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []
        self.ended: list[str] = []
        factory = RequestFactory(OneCaller(), Rates(1000), Sessions(), self._told)
        super().__init__("grpc://127.0.0.1:0", middleware={REQUEST: factory})

    def _told(self, call: Call) -> None:
        self.ended.append(call.code)

    def do_get(self, context: fl.ServerCallContext, ticket: fl.Ticket) -> fl.FlightDataStream:
        began = current_state()
        with Boundary(request_of(context).id):
            if ticket.ticket == b"refused":
                raise InvalidRequestError("no")

        def batches() -> Iterator[pa.RecordBatch]:
            for _ in range(20):
                self.places.append((began, current_state()))
                yield ROWS

        return fl.GeneratorStream(ROWS.schema, batches())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def current_state() -> int:
    get = ctypes.pythonapi.PyThreadState_Get
    get.restype = ctypes.c_void_p
    return int(get())


def known_states() -> int:
    """How many threads Python keeps a state of."""
    interpreter, head, following = (
        ctypes.pythonapi.PyInterpreterState_Get,
        ctypes.pythonapi.PyInterpreterState_ThreadHead,
        ctypes.pythonapi.PyThreadState_Next,
    )
    interpreter.restype = head.restype = following.restype = ctypes.c_void_p
    head.argtypes = following.argtypes = [ctypes.c_void_p]
    count, state = 0, head(interpreter())
    while state:
        count, state = count + 1, following(state)
    return count


def options(token: str = "made-up") -> fl.FlightCallOptions:
    return fl.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())], timeout=60)


def test_a_call_has_one_state_of_its_thread_from_its_start_to_its_end(server: Server) -> None:
    with fl.connect(f"grpc://127.0.0.1:{server.port}") as client:
        client.do_get(fl.Ticket(b"rows"), options()).read_all()
    assert len({state for places in server.places for state in places}) == 1


def test_calls_leave_no_state_of_their_threads_behind_however_they_end(server: Server) -> None:
    before = known_states()

    def call(number: int) -> None:
        with fl.connect(f"grpc://127.0.0.1:{server.port}") as client, suppress(fl.FlightError):
            match number % 4:
                case 0:
                    assert client.do_get(fl.Ticket(b"rows"), options()).read_all().num_rows == 20 * ROWS.num_rows
                case 1:
                    reader = client.do_get(fl.Ticket(b"rows"), options())
                    reader.read_chunk()
                    reader.cancel()
                case 2:
                    client.do_get(fl.Ticket(b"refused"), options())
                case 3:
                    client.do_get(fl.Ticket(b"rows"), options("unknown"))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(call, range(200)))
    server.shutdown()
    assert len(server.ended) == 200
    assert {"ok", "invalid_argument", "unauthenticated"} <= set(server.ended)
    assert known_states() <= before


def test_a_thread_held_in_another_is_let_be() -> None:
    held: list[HeldThread] = []
    thread = threading.Thread(target=lambda: held.append(HeldThread()))
    thread.start()
    thread.join()
    held[0].let_go()
    assert current_state()
