"""What a connection has settled for all its statements: the project whose tables need no prefix, and an instant.

The server keeps none of it. It comes with every call: in headers of its own, or behind the token in the authorization
header, which drivers replace by what a call answers them (RFC 6750 allows ``~`` there, and tokens have none). It grants
nothing, so it is not signed.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from datom_flight.protocol.errors import AuthenticationError, DatomError, InvalidRequestError
from datom_flight.protocol.messages import decode_object, encode_object
from datom_flight.protocol.names import parse_instant, validate_name

PROJECT_HEADER = "x-datom-project"
AS_OF_HEADER = "x-datom-as-of"

_SEPARATOR = "~"


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
        return replace(other, **self.settled())

    def settled(self) -> dict[str, str]:
        """The settings there are, by name; `of` reads them."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, settled: Any) -> Session:
        """The session with these settings; raises InvalidRequestError for anything that `settled` does not give."""
        known = {field.name for field in fields(cls)}
        if not isinstance(settled, dict) or not settled.keys() <= known:
            raise InvalidRequestError("the session's settings are not an object with " + ", ".join(sorted(known)))
        if not all(isinstance(value, str) for value in settled.values()):
            raise InvalidRequestError("a session's setting is not a text")
        return cls(**settled)

    def behind(self, bearer: str | None) -> str:
        """What goes into an authorization header after ``Bearer`` for a caller with that token."""
        settled = base64.urlsafe_b64encode(encode_object(self.settled()))
        return (bearer or "") + _SEPARATOR + settled.decode().rstrip("=")


def split_bearer(credentials: str | None) -> tuple[str | None, Session]:
    """The token and the settings in what came after ``Bearer``; no token is None.

    Raises:
        AuthenticationError: ``unauthenticated`` when what stands behind the token is not of `Session.behind`.
    """
    token, separator, settled = (credentials or "").partition(_SEPARATOR)
    if not separator:
        return credentials, Session()
    try:
        decoded = base64.urlsafe_b64decode(settled + "=" * (-len(settled) % 4))
        return token or None, Session.of(decode_object(decoded, "the session"))
    except (binascii.Error, ValueError, DatomError):
        raise AuthenticationError("what follows the token in the authorization header is not of this server") from None
