"""What every call has before it is handled: a request id, and a known caller."""

from __future__ import annotations

import base64
import binascii
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

import pyarrow.flight as fl

from datom_flight.protocol.errors import CODES, AuthenticationError, DatomError
from datom_flight.protocol.listings import PACKED, RESULTS_HEADER

from ..auth.base import Authenticator
from ..model import Principal
from .boundary import boundary
from .session import AS_OF_HEADER, PROJECT_HEADER, Carried, Session, Sessions, split_bearer

REQUEST = "request"
"""The name under which handlers find the call's `Request`."""

_REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

Ended = Callable[[str, str, float], None]

_access_log = logging.getLogger("datom_flight_server.access")


class Request(fl.ServerMiddleware):  # type: ignore[misc]
    """One call.

    Attributes:
        id: names the call in the log, in response headers and in errors.
        principal: who calls.
        bearer: the token they came with; None without one.
        session: what is settled for all calls of the connection.
        carried: what of that stands, or is to stand, behind the token.
        is_behind: whether it does not stand there yet.
        packs: whether they take many rows of a listing in one result.
        subject: what the call is about, for the log; set by handlers.
        is_cancelled: whether the caller went away.
    """

    def __init__(
        self,
        request_id: str,
        verb: str,
        principal: Principal,
        bearer: str | None,
        session: Session,
        carried: Carried,
        is_behind: bool,
        packs: bool,
        answer: str | None,
        ended: Ended,
    ) -> None:
        super().__init__()
        self.id = request_id
        self.principal = principal
        self.bearer = bearer
        self.session = session
        self.carried = carried
        self.is_behind = is_behind
        self.packs = packs
        self.subject = ""
        self.is_cancelled: Callable[[], bool] = lambda: False
        self._verb = verb
        self._answer = answer
        self._ended = ended
        self._started = time.monotonic()

    def sending_headers(self) -> dict[str, str]:
        """The headers of the answer; may be asked for more than once."""
        headers = {_REQUEST_ID_HEADER: self.id}
        if self._answer is not None:
            headers["authorization"] = f"Bearer {self._answer}"
        return headers

    def call_completed(self, exception: BaseException | None) -> None:
        """Write the call's line to the access log, and count it."""
        code = _code(exception)
        seconds = time.monotonic() - self._started
        _access_log.info(
            "%s %s %s %s %s %.1fms", self.id, self.principal.name, self._verb, self.subject or "-", code, seconds * 1000
        )
        self._ended(self._verb, code, seconds)


class RequestFactory(fl.ServerMiddlewareFactory):  # type: ignore[misc]
    """Makes a `Request` of every call, or refuses it.

    A Handshake may come with Basic (any user name, the token as password) and is answered with a Bearer, which is
    what ADBC, JDBC and `authenticate_basic_token` do.

    Args:
        sessions: of all connections.
        ended: told of every call that ended: its verb, ``ok`` or the error's code, and the seconds it took.
    """

    def __init__(self, authenticator: Authenticator, sessions: Sessions, ended: Ended) -> None:
        super().__init__()
        self._authenticator = authenticator
        self._sessions = sessions
        self._ended = ended

    def start_call(self, info: fl.CallInfo, headers: Mapping[str, Sequence[str | bytes]]) -> Request:
        """See `pyarrow.flight.ServerMiddlewareFactory`. Raises a Flight error for a caller who is not known."""
        request_id = _request_id(_header(headers, _REQUEST_ID_HEADER))
        verb = info.method.name.lower()
        with boundary(request_id):
            try:
                bearer, came = split_bearer(_token(_header(headers, "authorization")))
                principal = self._authenticator.authenticate(bearer)
                carried = self._sessions.newest(principal.name, came)
                session = carried.session.over(
                    Session(_header(headers, PROJECT_HEADER), _header(headers, AS_OF_HEADER))
                )
            except DatomError as error:
                _access_log.info("%s - %s - %s", request_id, verb, error.code)
                self._ended(verb, error.code, 0)
                raise
            # any other call that answers with an authorization header makes drivers replace their token
            answer = bearer if info.method == fl.FlightMethod.HANDSHAKE else None
            is_behind = carried != came
            packs = _header(headers, RESULTS_HEADER) == PACKED
            return Request(
                request_id, verb, principal, bearer, session, carried, is_behind, packs, answer, self._ended
            )


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
    request.is_cancelled = context.is_cancelled
    return request


def _code(exception: BaseException | None) -> str:
    if exception is None:
        return "ok"
    # an error of ours begins with its code; any other is Flight's, most often a client that went away
    code = str(exception).partition(":")[0]
    return code if code in CODES else "cancelled"


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
