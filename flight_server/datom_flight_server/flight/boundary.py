"""Where errors leave the server: each becomes a Flight error that carries its code and no trace of the inside."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

import pyarrow.flight as fl

from datom_flight.protocol.errors import DatomError, InternalError

T = TypeVar("T")

_log = logging.getLogger(__name__)

_MAX_TEXT_BYTES = 1000
_MAX_FIELDS_TEXT = 1000

_FLIGHT_ERRORS: dict[str, type[fl.FlightError]] = {
    "unauthenticated": fl.FlightUnauthenticatedError,
    "permission_denied": fl.FlightUnauthorizedError,
    "timeout": fl.FlightTimedOutError,
    "cancelled": fl.FlightCancelledError,
    "overloaded": fl.FlightUnavailableError,
    "unavailable": fl.FlightUnavailableError,
    "store_unreachable": fl.FlightUnavailableError,
    "mirror_pending": fl.FlightUnavailableError,
    "access_denied": fl.FlightUnavailableError,
    "internal": fl.FlightInternalError,
}


def flight_error(error: Exception, request_id: str) -> Exception:
    """`error` as what may be sent: its text, and the same as JSON in ``extra_info``.

    What is no `DatomError` is a fault of ours: it is logged whole, and the caller gets ``internal`` and the request id.
    """
    if not isinstance(error, DatomError):
        _log.error("request %s failed", request_id, exc_info=error)
        error = InternalError("the server failed at this request")
    sent = _sendable(error).with_request_id(request_id)
    if sent.code == "unsupported":
        # the one way to the status UNIMPLEMENTED, which drivers look for; it has no room for extra_info
        return NotImplementedError(str(sent))
    flight_class: Callable[..., Exception] = _FLIGHT_ERRORS.get(sent.code, fl.FlightServerError)
    return flight_class(str(sent), extra_info=sent.to_json())


class Boundary:
    """Around every handler: nothing but what `flight_error` makes leaves it.

    A class, which is entered quicker than a generator: each call passes three.
    """

    __slots__ = ("_request_id",)

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises what may be sent in place of `error`; lets by what is no `Exception`."""
        if isinstance(error, Exception):
            raise flight_error(error, self._request_id) from None


def bounded(results: Iterator[T], request_id: str) -> Generator[T, None, None]:
    """`results`, with a `Boundary` around every step."""
    with Boundary(request_id):
        yield from results


def _sendable(error: DatomError) -> DatomError:
    """`error`, short enough for gRPC's headers: 8 KiB in all, where its text stands twice, once percent-encoded."""
    fields = error.fields if len(json.dumps(error.fields, default=str)) <= _MAX_FIELDS_TEXT else {}
    return DatomError.of(error.code, _clipped(error.message), hint=_clipped(error.hint), fields=fields)


def _clipped(text: str) -> str:
    if len(quote(text)) <= _MAX_TEXT_BYTES:
        return text
    room = _MAX_TEXT_BYTES
    for kept, character in enumerate(text):
        room -= len(quote(character))
        if room < 0:
            return text[:kept] + "…"
    return text
