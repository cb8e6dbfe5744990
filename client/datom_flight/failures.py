"""Flight's errors as `DatomError`."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.flight as fl

from .protocol.errors import DatomError

TRANSPORT_ERRORS = (fl.FlightError, pa.ArrowException, OSError)
"""What pyarrow.flight raises when a call fails."""

_BOILERPLATE = re.compile(
    r"^Flight returned \w+ error, with message: |\. gRPC client debug context: .*|\. Detail: .*", re.S
)
_CONNECTION = re.compile(r"RST_STREAM|Socket closed|Connection reset|GOAWAY|Broken pipe", re.I)

_BY_CLASS: tuple[tuple[type[BaseException], str], ...] = (
    (fl.FlightUnauthenticatedError, "unauthenticated"),
    (fl.FlightUnauthorizedError, "permission_denied"),
    (fl.FlightTimedOutError, "timeout"),
    # without a word of ours: a server that stops does it to calls that it has not begun
    (fl.FlightCancelledError, "unavailable"),
    (pa.ArrowCancelled, "cancelled"),
    (fl.FlightUnavailableError, "unavailable"),
    (pa.ArrowNotImplementedError, "unsupported"),
    (pa.ArrowKeyError, "not_found"),
)


def to_datom_error(error: BaseException, url: str) -> DatomError:
    """What `error`, raised by a call to the server at `url`, means. The result keeps nothing of `error`."""
    told = DatomError.from_json(getattr(error, "extra_info", b"") or b"")
    if told is not None:
        return told
    reason = _reason(error)
    code = next((code for kind, code in _BY_CLASS if isinstance(error, kind)), "internal")
    if code == "internal" and _CONNECTION.search(reason):
        code = "unavailable"
    if code == "unavailable":
        return DatomError.of(
            code, f'no datom server answers at "{url}": {_last_error(reason)}', hint=_connection_hint(reason, url)
        )
    if code == "timeout":
        return DatomError.of(code, f'"{url}" gave no answer within the deadline')
    if code == "unsupported":
        return DatomError.of(code, reason.removeprefix("unsupported: ") or "the server does not offer this call")
    return DatomError.of(code, f'the call to "{url}" failed: {reason or type(error).__name__}')


def _reason(error: BaseException) -> str:
    return " ".join(_BOILERPLATE.sub("", str(error)).split())[:500]


def _last_error(reason: str) -> str:
    return re.sub(r"^(UNKNOWN|UNAVAILABLE): ", "", reason.rpartition("last error: ")[2])


def _connection_hint(reason: str, url: str) -> str:
    tls = url.startswith("grpc+tls")
    if "wrong version number" in reason or "WRONG_VERSION_NUMBER" in reason:
        return "the server there does not speak TLS: use grpc:// instead of grpc+tls://"
    if "certificate verify failed" in reason or "CERTIFICATE_VERIFY_FAILED" in reason:
        return (
            "the server's certificate is not from a known authority: pass its CA as tls_root_certs (--tls-root-certs)"
        )
    if "not in peer certificate" in reason:
        return "the certificate is for another host name: use the name it was issued for"
    if "empty address list" in reason and tls:
        return "tls_root_certs holds no usable PEM certificate"
    if "failed to connect" in reason and "Socket closed" in reason and not tls:
        return "if the server speaks TLS, use grpc+tls:// instead of grpc://"
    if "resol" in reason or "lookup" in reason:
        return "check the host's name"
    return "check the address and port, and that the server is running"
