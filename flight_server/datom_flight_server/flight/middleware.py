"""What every call has before it is handled: a request id, and a known caller."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import pyarrow.flight as fl

from datom_flight.protocol.compression import COMPRESSION_HEADER
from datom_flight.protocol.errors import CODES, AuthenticationError, DatomError
from datom_flight.protocol.listings import PACKED, RESULTS_HEADER

from ..auth.base import Authenticator
from ..calls import Call, Trace
from ..model import Principal
from .boundary import Boundary
from .rates import Rates
from .session import AS_OF_HEADER, PROJECT_HEADER, Carried, Session, Sessions, split_bearer
from .threads import HeldThread

REQUEST = "request"
"""The name under which handlers find the call's `Request`."""

_REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VERBS = {method: method.name.lower() for method in fl.FlightMethod}

_KNOWN_HEADERS = 1024

_LIMITED = frozenset({"overloaded", "too_large", "timeout"})
"""Codes of errors that may say which limit they are about."""

Ended = Callable[[Call], None]


class Request(fl.ServerMiddleware):  # type: ignore[misc]
    """One call.

    Attributes:
        id: names the call in the log, in the answer's headers and trailers, and in errors.
        call: what is told of it when it has ended; handlers add to it.
        principal: who calls.
        bearer: the token they came with; None without one.
        session: what is settled for all calls of the connection.
        carried: what of that stands, or is to stand, behind the token.
        is_behind: whether it does not stand there yet.
        packs: whether they take many rows of a listing in one result.
        codec: what they ask rows to be compressed by, whatever that is.
        is_cancelled: whether the caller went away.
        peer: the other end of the connection, as gRPC names it.
    """

    def __init__(
        self,
        call: Call,
        principal: Principal,
        bearer: str | None,
        session: Session,
        carried: Carried,
        is_behind: bool,
        packs: bool,
        codec: str | None,
        answer: str | None,
        ended: Ended,
    ) -> None:
        super().__init__()
        self.id = call.id
        self.call = call
        self.principal = principal
        self.bearer = bearer
        self.session = session
        self.carried = carried
        self.is_behind = is_behind
        self.packs = packs
        self.codec = codec
        self.is_cancelled: Callable[[], bool] = lambda: False
        self.peer = ""
        self._answer = answer
        self._ended = ended
        self._thread = HeldThread()

    def sending_headers(self) -> dict[str, str]:
        """The headers of the answer; may be asked for more than once."""
        headers = {_REQUEST_ID_HEADER: self.id}
        if self._answer is not None:
            headers["authorization"] = f"Bearer {self._answer}"
        return headers

    def call_completed(self, exception: BaseException | None) -> None:
        """Tell of the call; the last that is heard of it."""
        try:
            self.call.end(*_outcome(exception))
            self._ended(self.call)
        finally:
            self._thread.let_go()


class RequestFactory(fl.ServerMiddlewareFactory):  # type: ignore[misc]
    """Makes a `Request` of every call, or refuses it.

    A Handshake may come with Basic (any user name, the token as password) and is answered with a Bearer, which is
    what ADBC, JDBC and `authenticate_basic_token` do.

    Args:
        sessions: of all connections.
        ended: told of every call that has ended.
    """

    def __init__(self, authenticator: Authenticator, rates: Rates, sessions: Sessions, ended: Ended) -> None:
        super().__init__()
        self._authenticator = authenticator
        self._rates = rates
        self._sessions = sessions
        self._ended = ended
        # a connection sends the same headers with every call
        self._came = lru_cache(_KNOWN_HEADERS)(_came)
        self._session = lru_cache(_KNOWN_HEADERS)(_session)

    def start_call(self, info: fl.CallInfo, headers: Mapping[str, Sequence[str | bytes]]) -> Request:
        """See `pyarrow.flight.ServerMiddlewareFactory`. Who is not known, or asks too often, gets a Flight error."""
        call = Call(_request_id(_header(headers, _REQUEST_ID_HEADER)), _VERBS[info.method])
        call.trace = Trace.of(_header(headers, "traceparent"), _header(headers, "tracestate"))
        with Boundary(call.id):
            try:
                bearer, came = self._came(_header(headers, "authorization"))
                principal = self._authenticator.authenticate(bearer)
                call.principal = principal.name
                self._rates.count(principal)
                carried = self._sessions.newest(principal.name, came)
                session = self._session(
                    carried.session, _header(headers, PROJECT_HEADER), _header(headers, AS_OF_HEADER)
                )
            except DatomError as error:
                call.end(error.code, error.fields.get("limit"))
                self._ended(call)
                raise
            # any other call that answers with an authorization header makes drivers replace their token
            answer = bearer if info.method == fl.FlightMethod.HANDSHAKE else None
            is_behind = carried != came
            packs = _header(headers, RESULTS_HEADER) == PACKED
            codec = _header(headers, COMPRESSION_HEADER)
            return Request(call, principal, bearer, session, carried, is_behind, packs, codec, answer, self._ended)


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
    context.add_trailer(_REQUEST_ID_HEADER, request.id)
    request.is_cancelled = context.is_cancelled
    request.peer = context.peer()
    return request


def _outcome(exception: BaseException | None) -> tuple[str, str | None]:
    """The code, and the name of the limit it is about."""
    if exception is None:
        return "ok", None
    # an error of ours begins with its code; any other is Flight's, most often a client that went away
    code = str(exception).partition(":")[0]
    if code not in CODES:
        return "cancelled", None
    told = getattr(exception, "extra_info", b"") if code in _LIMITED else b""
    return code, json.loads(told)["fields"].get("limit") if told else None


def _header(headers: Mapping[str, Sequence[str | bytes]], name: str) -> str | None:
    values = headers.get(name) or ()
    if not values:
        return None
    value = values[0]
    return value if isinstance(value, str) else value.decode("latin-1")


def _request_id(sent: str | None) -> str:
    return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else os.urandom(8).hex()


def _came(authorization: str | None) -> tuple[str | None, Carried]:
    """The token in the header, and what stands behind it."""
    return split_bearer(_token(authorization))


def _session(carried: Session, project: str | None, as_of: str | None) -> Session:
    return carried.over(Session(project, as_of))


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
