"""References to secrets, and the secrets they name.

Settings never hold a secret itself: they say where it is, ``env:NAME``, ``file:PATH`` or
``keyring:SERVICE[/USERNAME]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datom_flight.protocol.errors import InvalidRequestError

FORMS = '"env:NAME", "file:PATH" or "keyring:SERVICE[/USERNAME]"'
"""How a reference is written, for messages."""

MAX_SECRET_BYTES = 64 * 1024

_SCHEMES = ("env:", "file:", "keyring:")


def is_reference(text: str) -> bool:
    """Whether `text` is written as a reference, rather than as a secret or a path."""
    return text.startswith(_SCHEMES)


@dataclass(frozen=True, slots=True)
class SecretSources:
    """Where references lead.

    Attributes:
        directory: what the relative paths of ``file:`` references are relative to.
        environment: what ``env:`` references are looked up in.
    """

    directory: Path
    environment: Mapping[str, str] = field(repr=False)

    def resolve(self, reference: str) -> str:
        """The secret that `reference` names; never empty.

        A file's last line end is not part of the secret. A keyring entry without a user name is the service's
        first, which is also what R's ``keyring::key_set(SERVICE)`` stores.

        Raises:
            InvalidRequestError: ``invalid_argument`` when the text is no reference or nothing is found there. The
                message holds no secret, nor a text that may be one.
        """
        scheme, _, place = reference.partition(":")
        if not is_reference(reference) or not place:
            raise InvalidRequestError("is not a reference to a secret", hint=f"write {FORMS}, never the secret itself")
        secret = {"env": self._from_environment, "file": self._from_file, "keyring": _from_keyring}[scheme](place)
        if not secret:
            raise InvalidRequestError(f'"{reference}" is empty', hint="put the secret there")
        return secret

    def _from_environment(self, name: str) -> str:
        if name not in self.environment:
            raise InvalidRequestError(f'environment variable "{name}" is not set', hint="set it before the start")
        return self.environment[name]

    def _from_file(self, name: str) -> str:
        path = self.directory / Path(name).expanduser()
        try:
            with path.open("rb") as file:
                data = file.read(MAX_SECRET_BYTES + 1)
            if len(data) > MAX_SECRET_BYTES:
                raise InvalidRequestError(f'secret file "{path}" is over {MAX_SECRET_BYTES} bytes')
            return data.decode().rstrip("\r\n")
        except OSError as error:
            raise InvalidRequestError(
                f'secret file "{path}" cannot be read: {error.strerror}', hint="check the path and its permissions"
            ) from None
        except UnicodeDecodeError:
            raise InvalidRequestError(f'secret file "{path}" is not text in UTF-8') from None


def _from_keyring(place: str) -> str:
    # Loading keyring looks for backends, which most servers never need.
    import keyring
    from keyring.errors import KeyringError, NoKeyringError

    service, _, user = place.partition("/")
    try:
        if user:
            secret = keyring.get_password(service, user)
        else:
            credential = keyring.get_credential(service, None)
            secret = credential.password if credential else keyring.get_password(service, "")
    except NoKeyringError:
        raise InvalidRequestError(
            f'"keyring:{place}" cannot be looked up: this machine has no keyring',
            hint='use "env:NAME" or "file:PATH" instead',
        ) from None
    except KeyringError as error:
        raise InvalidRequestError(
            f'"keyring:{place}" cannot be looked up: {type(error).__name__}', hint="unlock the keyring"
        ) from None
    if secret is None:
        raise InvalidRequestError(
            f'the keyring has no entry "{place}"', hint=f"store it with `keyring set {service} {user or 'USERNAME'}`"
        )
    return secret
