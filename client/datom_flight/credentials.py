"""The caller's token: where it is looked for, where `datom-flight login` keeps it, and narrower ones for a session."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from .protocol.errors import AuthenticationError, InvalidRequestError

KEYRING_SERVICE = "datom-flight"
TOKEN_VARIABLE = "DATOM_FLIGHT_TOKEN"  # noqa: S105 - the name of the variable

_USE_INSTEAD = f"set {TOKEN_VARIABLE} instead, or pass --token-file FILE"
_RENEW_AFTER = 0.8
_SHORTEST_SECONDS = 10.0


class Credential(Protocol):
    """What goes into each call's ``authorization`` header."""

    def token(self) -> str | None:
        """The token to send now; None sends none."""
        ...

    def refused(self, token: str | None) -> bool:
        """Take note that the server refused `token`; whether asking again may give another."""
        ...


class FixedToken:
    """The one token the caller has, or none."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def token(self) -> str | None:
        """The token."""
        return self._token

    def refused(self, token: str | None) -> bool:
        """False: there is no other."""
        return False


class SessionToken:
    """A short-lived, narrower token, asked for when first needed and again before it expires.

    Args:
        request: asks the server; gives the token and when it expires (None: it does not say).
    """

    def __init__(self, request: Callable[[], tuple[str, datetime | None]]) -> None:
        self._request = request
        self._lock = threading.Lock()
        self._held: str | None = None
        self._renew_at = float("inf")

    def token(self) -> str | None:
        """A token with a fifth of its time left at least. Raises what asking for one raises."""
        with self._lock:
            if self._held is None or time.monotonic() >= self._renew_at:
                token, expires = self._request()
                left = float("inf") if expires is None else expires.timestamp() - time.time()
                # This machine's clock may be ahead of the server's; a call for each call would be worse than a refusal.
                left = max(left, _SHORTEST_SECONDS)
                self._held, self._renew_at = token, time.monotonic() + _RENEW_AFTER * left
            return self._held

    def refused(self, token: str | None) -> bool:
        """True: the next `token` is a new one."""
        with self._lock:
            if self._held == token:
                self._held = None
        return True


def find_token(argument: str | None, urls: Sequence[str]) -> str | None:
    """The token for a server: `argument`, else the environment's, else the OS keyring's; None when there is none.

    An empty `argument` means no token, whatever the environment and the keyring hold.

    Raises:
        InvalidRequestError: ``invalid_argument`` when it holds characters that no header may.
        AuthenticationError: ``unauthenticated`` when the keyring is there but refuses to open.
    """
    if argument is not None:
        return checked(argument)
    variable = os.environ.get(TOKEN_VARIABLE)
    return checked(variable) if variable else _from_keyring(urls)


def checked(token: str) -> str | None:
    """`token` without the white space around it, or None when nothing is left.

    Raises:
        InvalidRequestError: ``invalid_argument``; the token itself is not repeated.
    """
    token = token.strip()
    if any(not "!" <= character <= "~" for character in token):
        raise InvalidRequestError(
            "the token holds spaces or characters that tokens do not have", hint="copy it again, on one line"
        )
    return token or None


def store_token(url: str, token: str) -> None:
    """Keep `token` in the OS keyring for the server at `url`, a normalised URL.

    Raises:
        InvalidRequestError: ``unsupported`` when this machine has no keyring that can hold it.
    """
    import keyring
    import keyring.errors

    try:
        keyring.set_password(KEYRING_SERVICE, url, token)
        # Some backends accept anything and keep nothing.
        if keyring.get_password(KEYRING_SERVICE, url) == token:
            return
        reason = "it keeps nothing"
    except keyring.errors.KeyringError as error:
        reason = "there is none" if isinstance(error, keyring.errors.NoKeyringError) else type(error).__name__
    raise InvalidRequestError(f"the OS keyring cannot hold the token: {reason}", code="unsupported", hint=_USE_INSTEAD)


def _from_keyring(urls: Sequence[str]) -> str | None:
    import keyring
    import keyring.errors

    try:
        for url in urls:
            if token := keyring.get_password(KEYRING_SERVICE, url):
                return checked(token)
    except keyring.errors.NoKeyringError:
        return None
    except keyring.errors.KeyringError as error:
        reason = type(error).__name__
    else:
        return None
    raise AuthenticationError(f"the OS keyring does not open: {reason}", hint=f"unlock it, or {_USE_INSTEAD}")
