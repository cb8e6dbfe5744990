"""Tokens: signed JSON Web Tokens (HS256) that say who calls, with which role, for which projects, until when."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import jwt

from datom_flight.protocol.errors import AuthenticationError, InvalidRequestError, PermissionDeniedError

from ..model import Principal, Role
from ..settings import AuthSettings
from .base import IssuedToken
from .revocations import Revocations

ISSUER = "datom-flight"
WEAK_SECRET_BYTES = 32
"""A signing secret shorter than this can be guessed by trying."""

LEEWAY = timedelta(seconds=5)
SESSION = timedelta(hours=1)
MAX_TOKEN_LENGTH = 8192

_ALGORITHM = "HS256"
_CLAIMS = ["sub", "role", "iat", "exp", "iss", "jti"]
_ANONYMOUS = "anonymous"
_KNOWN_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What a good token says.

    Attributes:
        id: names it, and the sessions made from it, when it is taken back.
        principal: who it was made for.
        made, expires: instants in UTC.
    """

    id: str
    principal: Principal
    made: datetime
    expires: datetime


class Tokens:
    """An `Authenticator` by tokens signed with one secret, which every replica shares.

    Attributes:
        anonymous: the role of a caller without a token; None refuses them.
    """

    def __init__(self, secret: str, anonymous: Role | None = None, revocations: Revocations | None = None) -> None:
        self._go_by(secret, anonymous, revocations or Revocations())

    @classmethod
    def of(cls, settings: AuthSettings) -> Tokens:
        """As the settings say."""
        return cls(*_parts(settings))

    def renew(self, settings: AuthSettings) -> None:
        """Go by these settings from now on."""
        self._go_by(*_parts(settings))

    def _go_by(self, secret: str, anonymous: Role | None, revocations: Revocations) -> None:
        # HMAC fills a short key up with zeros itself (RFC 2104), so the signature is the same; filled up here, PyJWT
        # has nothing to warn of at every request. `check` is where a weak secret is reported.
        self._key = secret.encode().ljust(WEAK_SECRET_BYTES, b"\0")
        self.anonymous = anonymous
        self._revocations = revocations
        # a connection sends its token with every call
        self._known = lru_cache(_KNOWN_TOKENS)(self._decoded)

    def create(self, principal: Principal, expires: timedelta) -> str:
        """A token for `principal` that is good for the time `expires`.

        Raises:
            InvalidRequestError: ``invalid_argument`` when the name is empty, or the time is not positive or ends
                beyond what a calendar holds.
        """
        return self._issue(principal, _after(expires)).token

    def verify(self, token: str) -> Principal:
        """Who `token` was made for.

        Raises:
            AuthenticationError: ``unauthenticated``, saying whether it expired, was taken back, is no token of this
                server, or is no token at all. The token is not in the message.
        """
        return self._good(token)[1]

    def facts(self, token: str) -> TokenFacts:
        """What `token` says; raises as `verify` does."""
        claims, principal = self._good(token)
        made, expires = (datetime.fromtimestamp(claims[key], UTC) for key in ("iat", "exp"))
        return TokenFacts(claims["jti"], principal, made, expires)

    def authenticate(self, bearer: str | None) -> Principal:
        """See `Authenticator.authenticate`."""
        if bearer is not None:
            return self.verify(bearer)
        if self.anonymous is None:
            raise AuthenticationError("this server takes no request without a token")
        return Principal(_ANONYMOUS, self.anonymous)

    def withdrawn(self, bearer: str | None) -> AuthenticationError | None:
        """Why `bearer`, good when somebody came with it, is refused now; that it has expired is no reason."""
        try:
            self.authenticate(bearer)
        except _ExpiredError:
            return None
        except AuthenticationError as error:
            return error
        return None

    def narrow(self, principal: Principal, role: Role, bearer: str | None) -> IssuedToken:
        """See `Authenticator.narrow`. The token is good for an hour at most."""
        if not principal.role.covers(role):
            raise PermissionDeniedError(
                f'a session cannot have the role "{role.value}", which is wider than "{principal.role.value}"',
                hint="ask for a token with the role needed",
                fields={"needed": role.value, "role": principal.role.value},
            )
        expires = _after(SESSION)
        origin = {}
        if bearer is not None:
            claims, _ = self._good(bearer)
            expires = min(expires, datetime.fromtimestamp(claims["exp"], UTC))
            origin = {
                "origin": claims.get("origin", claims["jti"]),
                "auth_time": claims.get("auth_time", claims["iat"]),
            }
        return self._issue(Principal(principal.name, role, principal.projects), expires, origin)

    def _issue(
        self, principal: Principal, expires: datetime, more: Mapping[str, Any] = MappingProxyType({})
    ) -> IssuedToken:
        if not principal.name.strip():
            raise InvalidRequestError("the principal of a token has no name", hint="name whoever will hold it")
        expires = expires.replace(microsecond=0)
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": principal.name,
            "role": principal.role.value,
            "iat": datetime.now(UTC),
            "exp": expires,
            "jti": uuid4().hex,
            **more,
        }
        if principal.projects is not None:
            claims["projects"] = sorted(principal.projects)
        return IssuedToken(jwt.encode(claims, self._key, algorithm=_ALGORITHM), expires)

    def _good(self, token: str) -> tuple[dict[str, Any], Principal]:
        """What `token` claims and for whom, if it is good now."""
        claims, _ = known = self._known(token)
        if int(claims["exp"]) <= time.time() - LEEWAY.total_seconds():
            raise _expired()
        if self._revocations.cover(claims):
            raise AuthenticationError("the token was taken back", hint="ask for a new token")
        return known

    def _decoded(self, token: str) -> tuple[dict[str, Any], Principal]:
        try:
            if len(token) > MAX_TOKEN_LENGTH:
                raise jwt.DecodeError
            claims = jwt.decode(
                token, self._key, algorithms=[_ALGORITHM], issuer=ISSUER, leeway=LEEWAY, options={"require": _CLAIMS}
            )
        except jwt.ExpiredSignatureError:
            raise _expired() from None
        except jwt.ImmatureSignatureError:
            raise AuthenticationError("the token is not valid yet", hint="check this machine's clock") from None
        except (
            jwt.InvalidSignatureError,
            jwt.InvalidAlgorithmError,
            jwt.InvalidIssuerError,
            jwt.InvalidAudienceError,
            jwt.MissingRequiredClaimError,
        ):
            raise _foreign() from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise AuthenticationError(
                "the token is malformed", hint="give the token exactly as it was issued, on one line"
            ) from None
        return claims, _principal(claims)


def _parts(settings: AuthSettings) -> tuple[str, Role | None, Revocations]:
    return (
        settings.secret.get_secret_value(),
        Role.READER if settings.anonymous == "reader" else None,
        Revocations(frozenset(settings.revoked), settings.revoked_before),
    )


def _principal(claims: dict[str, Any]) -> Principal:
    name, projects = claims["sub"], claims.get("projects")
    try:
        role = Role(claims["role"])
    except ValueError:
        raise _foreign() from None
    if not name or not (
        projects is None or (isinstance(projects, list) and all(isinstance(project, str) for project in projects))
    ):
        raise _foreign()
    return Principal(name, role, None if projects is None else frozenset(projects))


class _ExpiredError(AuthenticationError):
    pass


def _expired() -> AuthenticationError:
    return _ExpiredError("the token has expired", hint="ask for a new token")


def _foreign() -> AuthenticationError:
    return AuthenticationError(
        "the token is not one of this server", hint="ask whoever runs this server for a token made with its settings"
    )


def _after(time: timedelta) -> datetime:
    if time <= timedelta(0):
        raise InvalidRequestError("a token cannot expire before it is made", hint='say for how long, like "90d"')
    try:
        return datetime.now(UTC) + time
    except OverflowError:
        raise InvalidRequestError("a token cannot be good for so long", hint='say for how long, like "90d"') from None
