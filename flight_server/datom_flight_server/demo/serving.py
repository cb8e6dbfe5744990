"""Settings for the demo's organisation, and tokens to try it with."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import timedelta

from ..auth.tokens import Tokens
from ..model import Principal, Role
from ..settings import Settings
from .store import PROJECT, Organisation

PEOPLE = {Role.READER: "statistician", Role.DEVELOPER: "engineer"}

_TOKEN_LIFE = timedelta(days=90)
_SECRET_BYTES = 32

_SETTINGS = """\
# The demo's server: `datom-flight-server serve --config` takes this file too.

[server]
listen = {listen}
shutdown_grace_seconds = 2

[auth]
secret = "file:secret"

[governance]
repo = {governance}

[projects.{project}]
repo = {repository}

[cache]
directory = "cache"
disk_bytes = "1GB"
"""


def demo_settings(organisation: Organisation, listen: str) -> Settings:
    """The settings of a server for `organisation` at `listen`; with its signing secret, they are kept in its folder.

    Raises:
        DatomError: ``invalid_argument`` when `listen` is not a URL to listen on.
        OSError: when the folder cannot be written.
    """
    secret = organisation.root / "secret"
    if not secret.exists():
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(_SECRET_BYTES))
    path = organisation.root / "server.toml"
    path.write_text(
        _SETTINGS.format(
            listen=_toml_text(listen),
            governance=_toml_text(str(organisation.governance_repository)),
            project=PROJECT,
            repository=_toml_text(organisation.data_repository.url),
        )
    )
    return Settings.load(path, {})


def demo_tokens(settings: Settings) -> Mapping[Role, str]:
    """A token for each of the demo's people, good for 90 days, by their role."""
    tokens = Tokens(settings.auth.secret.get_secret_value())
    return {
        role: tokens.create(Principal(name, role, frozenset({PROJECT})), _TOKEN_LIFE) for role, name in PEOPLE.items()
    }


def _toml_text(text: str) -> str:
    # a JSON string is a TOML string, but for what lies beyond the first 65,536 characters of Unicode
    return json.dumps(text, ensure_ascii=False)
