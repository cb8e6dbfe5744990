"""What every call has before it is handled: a request id, and a known caller."""

from __future__ import annotations

import base64
import binascii
import logging
import re
import time
import uuid
from collections.abc import Mapping, Sequence

import pyarrow.flight as fl

from datom_flight.protocol.errors import AuthenticationError

from ..auth.base import Authenticator
from ..model import Principal
from .boundary import boundary

REQUEST = "request"
"""The name under which handlers find the call's `Request`."""

_REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_access_log = logging.getLogger("datom_flight_server.access")


class Request(fl.ServerMiddleware):  # type: ignore[misc]
    """One call.

    Attributes:
        id: names the call in the log, in response headers and in errors.
        principal: who calls.
        bearer: the token they came with; None without one.
        subject: what the call is about, for the log; set by handlers.
    """

    def __init__(
        self, request_id: str, method: str, principal: Principal, bearer: str | None, answer: str | None
    ) -> None:
        super().__init__()
        self.id = request_id
        self.principal = principal
        self.bearer = bearer
        self.subject = ""
        self._method = method
        self._answer = answer
        self._started = time.monotonic()

    def sending_headers(self) -> dict[str, str]:
        """The headers of the answer; may be asked for more than once."""
        headers = {_REQUEST_ID_HEADER: self.id}
        if self._answer is not None:
            headers["authorization"] = f"Bearer {self._answer}"
        return headers

    def call_completed(self, exception: BaseException | None) -> None:
        """Write the call's line to the access log."""
        outcome = "ok" if exception is None else str(exception).split(":", 1)[0][:40]
        milliseconds = (time.monotonic() - self._started) * 1000
        _access_log.info(
            "%s %s %s %s %s %.1fms",
            self.id,
            self.principal.name,
            self._method,
            self.subject or "-",
            outcome,
            milliseconds,
        )


class RequestFactory(fl.ServerMiddlewareFactory):  # type: ignore[misc]
    """Makes a `Request` of every call, or refuses it.

    A Handshake may come with Basic (any user name, the token as password) and is answered with a Bearer, which is
    what ADBC, JDBC and `authenticate_basic_token` do.
    """

    def __init__(self, authenticator: Authenticator) -> None:
        super().__init__()
        self._authenticator = authenticator

    def start_call(self, info: fl.CallInfo, headers: Mapping[str, Sequence[str | bytes]]) -> Request:
        """See `pyarrow.flight.ServerMiddlewareFactory`. Raises a Flight error for a caller who is not known."""
        request_id = _request_id(_header(headers, _REQUEST_ID_HEADER))
        with boundary(request_id):
            bearer = _token(_header(headers, "authorization"))
            principal = self._authenticator.authenticate(bearer)
            # any other call that answers with an authorization header makes drivers replace their token
            answer = bearer if info.method == fl.FlightMethod.HANDSHAKE else None
            return Request(request_id, info.method.name, principal, bearer, answer)


class NoHandshake(fl.ServerAuthHandler):  # type: ignore[misc]
    """Lets Handshake calls through: `RequestFactory` does the work."""

    def authenticate(self, outgoing: fl.ServerAuthSender, incoming: fl.ServerAuthReader) -> None:
        """Nothing to exchange."""

    def is_valid(self, token: bytes) -> bytes:
        """No identity of its own."""
        return b""


def request_of(context: fl.ServerCallContext) -> Request:
    """The call's `Request`."""
    request: Request = context.get_middleware(REQUEST)
    return request


def _header(headers: Mapping[str, Sequence[str | bytes]], name: str) -> str | None:
    values = headers.get(name) or ()
    if not values:
        return None
    value = values[0]
    return value if isinstance(value, str) else value.decode("latin-1")


def _request_id(sent: str | None) -> str:
    return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex[:16]


def _token(authorization: str | None) -> str | None:
    if authorization is None:
        return None
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() == "basic":
        return _password(value.strip())
    raise AuthenticationError('the authorization header is neither "Bearer TOKEN" nor "Basic …"')


def _password(value: str) -> str:
    try:
        # Go's drivers leave the padding out
        decoded = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        raise AuthenticationError("the Basic authorization is not base64 of USER:TOKEN") from None
    token = decoded.partition(":")[2]
    if not token:
        raise AuthenticationError("the Basic authorization has no password", hint="give the token as the password")
    return token
