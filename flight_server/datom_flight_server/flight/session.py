"""What a connection has settled for all its statements: the project whose tables need no prefix, and an instant.

It comes with every call: in headers of its own, or behind the token in the authorization header, which drivers replace
by what a call answers them (RFC 6750 allows ``~`` there, and tokens have none). It grants nothing, so it is not signed.
"""

from __future__ import annotations

import base64
import binascii
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from datom_flight.protocol.errors import AuthenticationError, DatomError, InvalidRequestError
from datom_flight.protocol.messages import decode_object, encode_object, optional_count, optional_text
from datom_flight.protocol.names import parse_instant, validate_name

PROJECT_HEADER = "x-datom-project"
AS_OF_HEADER = "x-datom-as-of"

_SEPARATOR = "~"
_SETTINGS = frozenset({"project", "as_of", "began"})


@dataclass(frozen=True, slots=True)
class Session:
    """The settings of a connection. None is not settled; an empty text is settled, and none: it was taken back.

    Attributes:
        project: where tables are looked for that are named without one.
        as_of: ISO 8601; tables are read as they were then.
        began: ISO 8601; when the connection's transaction began, which is read as of unless there is an `as_of`.
    """

    project: str | None = None
    as_of: str | None = None
    began: str | None = None

    def __post_init__(self) -> None:
        """Raises InvalidRequestError: ``invalid_name`` or ``invalid_argument``."""
        if self.project:
            validate_name(self.project, "project")
        for instant in (self.as_of, self.began):
            if instant:
                parse_instant(instant)

    @property
    def instant(self) -> str | None:
        """What tables are read as of; None is what is current."""
        return self.as_of or self.began or None

    def over(self, other: Session) -> Session:
        """These settings, and those of `other` where there are none."""
        settled = self.settled()
        if not settled:
            return other
        together = other.settled() | settled
        return self if together == settled else Session(**together)

    def settled(self) -> dict[str, str]:
        """The settings there are, by name; `of` reads them."""
        named = {"project": self.project, "as_of": self.as_of, "began": self.began}
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def of(cls, settled: Any) -> Session:
        """The session with these settings; raises InvalidRequestError for anything that `settled` does not give."""
        if not isinstance(settled, dict) or not settled.keys() <= _SETTINGS:
            raise InvalidRequestError("the session's settings are not an object with " + ", ".join(sorted(_SETTINGS)))
        if not all(isinstance(value, str) for value in settled.values()):
            raise InvalidRequestError("a session's setting is not a text")
        return cls(**settled)


@dataclass(frozen=True, slots=True)
class Carried:
    """What stands behind a token.

    Attributes:
        connection: tells one connection of a caller from another; None before it was given one.
        turn: counts how often it settled something.
    """

    session: Session = Session()
    connection: str | None = None
    turn: int = 0

    def behind(self, bearer: str | None) -> str:
        """What goes into an authorization header after ``Bearer`` for a caller with that token."""
        body = encode_object({"session": self.session.settled(), "connection": self.connection, "turn": self.turn})
        return (bearer or "") + _SEPARATOR + base64.urlsafe_b64encode(body).decode().rstrip("=")


def split_bearer(credentials: str | None) -> tuple[str | None, Carried]:
    """The token and what stands behind it, in what came after ``Bearer``; no token is None.

    Raises:
        AuthenticationError: ``unauthenticated`` when what stands behind the token is not of `Carried.behind`.
    """
    token, separator, encoded = (credentials or "").partition(_SEPARATOR)
    if not separator:
        return credentials, Carried()
    try:
        decoded = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        body = decode_object(decoded, "what follows the token", ("session", "connection", "turn"))
        session, turn = Session.of(body.get("session")), optional_count(body, "turn") or 0
        return token or None, Carried(session, optional_text(body, "connection"), turn)
    except (binascii.Error, ValueError, DatomError):
        raise AuthenticationError("what follows the token in the authorization header is not of this server") from None


class Sessions:
    """What connections have settled lately and have not come back with yet.

    Drivers can miss the header that a call answers (ADBC's does, of one action in some hundred). What was settled is
    remembered here until the connection comes with it, and said again in the meantime.

    Args:
        most: how many connections are remembered.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._awaited: OrderedDict[tuple[str, str], Carried] = OrderedDict()
        self._lock = threading.Lock()

    def newest(self, caller: str, carried: Carried) -> Carried:
        """What the connection that came with `carried` has settled last."""
        if carried.connection is None:
            return carried
        key = caller, carried.connection
        with self._lock:
            awaited = self._awaited.get(key)
            if awaited is None or awaited.turn > carried.turn:
                return awaited or carried
            del self._awaited[key]
            return carried

    def settle(self, caller: str, carried: Carried, session: Session) -> Carried:
        """Let `session` be what the connection has settled, and give what it is to come with from now on."""
        connection = carried.connection or uuid.uuid4().hex
        settled = Carried(session, connection, carried.turn + 1)
        with self._lock:
            self._awaited[caller, connection] = settled
            self._awaited.move_to_end((caller, connection))
            while len(self._awaited) > self._most:
                self._awaited.popitem(last=False)
        return settled
