"""A keyring that keeps its entries in the file that KEYRING_FILE names, for commands run by the tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked


class FileKeyring(KeyringBackend):
    """Chosen by PYTHON_KEYRING_BACKEND only, never by itself."""

    priority = -1

    def get_password(self, service: str, username: str) -> str | None:
        return self._entries().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._path.write_text(json.dumps({**self._entries(), f"{service} {username}": password}))

    def delete_password(self, service: str, username: str) -> None:
        self._path.write_text(json.dumps({k: v for k, v in self._entries().items() if k != f"{service} {username}"}))

    @property
    def _path(self) -> Path:
        return Path(os.environ["KEYRING_FILE"])

    def _entries(self) -> dict[str, str]:
        entries: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return entries


class LockedKeyring(FileKeyring):
    """The same, before anybody has unlocked it."""

    def get_password(self, service: str, username: str) -> str | None:
        raise KeyringLocked("locked")
