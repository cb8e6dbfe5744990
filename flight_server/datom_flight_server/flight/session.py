"""What a connection has settled for all its statements: the project whose tables need no prefix, and an instant.

The server keeps none of it. It comes with every call: in headers of its own, or behind the token in the authorization
header, which drivers replace by what a call answers them (RFC 6750 allows ``~`` there, and tokens have none). It grants
nothing, so it is not signed.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, fields, replace

from datom_flight.protocol.errors import AuthenticationError, DatomError
from datom_flight.protocol.messages import decode_object, encode_object, optional_text
from datom_flight.protocol.names import parse_instant, validate_name

PROJECT_HEADER = "x-datom-project"
AS_OF_HEADER = "x-datom-as-of"

_SEPARATOR = "~"


@dataclass(frozen=True, slots=True)
class Session:
    """The settings of a connection; None where nothing is settled.

    Attributes:
        project: where tables are looked for that are named without one.
        as_of: ISO 8601; tables are read as they were then.
    """

    project: str | None = None
    as_of: str | None = None

    def __post_init__(self) -> None:
        """Raises InvalidRequestError: ``invalid_name`` or ``invalid_argument``."""
        if self.project is not None:
            validate_name(self.project, "project")
        if self.as_of is not None:
            parse_instant(self.as_of)

    def over(self, other: Session) -> Session:
        """These settings, and those of `other` where there are none."""
        return replace(other, **{key: value for key, value in self._settled().items() if value is not None})

    def behind(self, bearer: str | None) -> str:
        """What goes into an authorization header after ``Bearer`` for a caller with that token."""
        settled = encode_object(self._settled())
        return (bearer or "") + _SEPARATOR + base64.urlsafe_b64encode(settled).decode().rstrip("=")

    def _settled(self) -> dict[str, str]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in values.items() if value is not None}


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
        body = decode_object(decoded, "the session", [field.name for field in fields(Session)])
        return token or None, Session(optional_text(body, "project"), optional_text(body, "as_of"))
    except (binascii.Error, ValueError, DatomError):
        raise AuthenticationError("what follows the token in the authorization header is not of this server") from None
