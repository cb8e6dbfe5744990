"""What the transport says, in words that help."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from datom_flight.failures import to_datom_error

PREFIX = "Flight returned unavailable error, with message: failed to connect to all addresses; last error: UNKNOWN: "


@pytest.mark.parametrize(
    ("reason", "url", "hint"),
    [
        ("ipv4:10.0.0.1:1: Peer name datom is not in peer certificate", "grpc+tls://datom:1", "another host name"),
        ("ipv4:10.0.0.1:1: CERTIFICATE_VERIFY_FAILED", "grpc+tls://datom:1", "tls_root_certs"),
        ("ipv4:10.0.0.1:1: WRONG_VERSION_NUMBER", "grpc+tls://datom:1", "use grpc://"),
        ("ipv4:10.0.0.1:1: Socket closed", "grpc://datom:1", "use grpc+tls://"),
        ("ipv4:10.0.0.1:1: No route to host", "grpc://datom:1", "check the address and port"),
    ],
)
def test_a_failed_connection_says_what_to_change(reason: str, url: str, hint: str) -> None:
    error = to_datom_error(fl.FlightUnavailableError(PREFIX + reason), url)
    assert error.code == "unavailable"
    assert f'"{url}": ipv4' in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    "text", ["Received RST_STREAM with error code 2", "Connection reset by peer", "GOAWAY received"]
)
def test_a_lost_connection_is_unavailable_whatever_class_carries_it(text: str) -> None:
    for error in (fl.FlightInternalError(text), OSError(text)):
        assert to_datom_error(error, "grpc://a:1").code == "unavailable"


def test_bytes_that_are_not_arrow_are_internal() -> None:
    error = to_datom_error(pa.ArrowInvalid("Tried reading schema message, was null or length 0"), "grpc://a:1")
    assert error.code == "internal"
    assert "Tried reading schema" in error.message


def test_a_message_is_one_line_without_grpc_s_own_context() -> None:
    told = "no such thing\nreally. gRPC client debug context: UNKNOWN: Traceback (most recent call last)"
    error = to_datom_error(fl.FlightServerError(told), "grpc://a:1")
    assert error.message == 'the call to "grpc://a:1" failed: no such thing really'
