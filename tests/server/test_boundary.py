"""Nothing but coded errors leaves the server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pyarrow.flight as fl
import pytest

from datom_flight.protocol.errors import CODES, DatomError
from datom_flight_server.flight.boundary import Boundary, bounded, flight_error


def sent(error: Exception) -> dict[str, object]:
    answer = flight_error(error, "r1")
    assert isinstance(answer, fl.FlightError)
    body = json.loads(answer.extra_info)
    assert str(answer).startswith(f"{body['code']}: {body['message']}")
    return dict(body)


@pytest.mark.parametrize("code", sorted(set(CODES) - {"unsupported"}))
def test_every_code_leaves_with_its_text_and_its_json(code: str) -> None:
    body = sent(DatomError.of(code, "what happened", fields={"current": "ab"}))
    assert body == {
        "code": code,
        "message": "what happened",
        "hint": CODES[code].hint,
        "fields": {"current": "ab"},
        "request_id": "r1",
    }


def test_what_is_not_supported_is_unimplemented() -> None:
    answer = flight_error(DatomError.of("unsupported", "no action"), "r1")
    assert isinstance(answer, NotImplementedError)
    assert str(answer).startswith("unsupported: no action")


def test_a_fault_of_ours_tells_the_caller_nothing_and_the_log_everything(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(fl.FlightInternalError) as left, Boundary("r1"):
        raise ZeroDivisionError("/srv/secret/path")
    assert "/srv" not in str(left.value)
    assert "/srv" not in left.value.extra_info.decode()
    assert "r1" in caplog.text
    assert "/srv/secret/path" in caplog.text
    assert "test_boundary.py" in caplog.text


def test_an_error_amid_results_is_bounded_too() -> None:
    def results() -> Iterator[int]:
        yield 1
        raise KeyError("/srv/secret/path")

    arriving = bounded(results(), "r1")
    assert next(arriving) == 1
    with pytest.raises(fl.FlightInternalError):
        next(arriving)


def test_requests_that_share_an_error_each_have_their_own_id() -> None:
    shared = DatomError.of("timeout", "too slow")
    ids = {json.loads(flight_error(shared, name).extra_info)["request_id"] for name in ("r1", "r2")}  # type: ignore[attr-defined]
    assert ids == {"r1", "r2"}


@pytest.mark.parametrize("character", ["x", "é", "中", "😀", '"', "\\", "%"])
def test_an_error_never_outgrows_the_headers_it_travels_in(character: str) -> None:
    huge = DatomError.of(
        "invalid_argument", character * 10_000, hint=character * 10_000, fields={"columns": ["x" * 100] * 1000}
    )

    class Refusing(fl.FlightServerBase):  # type: ignore[misc]
        def get_flight_info(self, context: fl.ServerCallContext, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
            with Boundary("r1"):
                raise huge

    with Refusing("grpc://127.0.0.1:0") as server, fl.FlightClient(f"grpc://127.0.0.1:{server.port}") as client:
        for _ in range(20):  # above the soft limit, gRPC refuses some at random
            with pytest.raises(fl.FlightServerError) as refused:
                client.get_flight_info(fl.FlightDescriptor.for_path("x"))
            assert json.loads(refused.value.extra_info)["message"].startswith(character * 50)
