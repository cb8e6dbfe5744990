"""A project's data repository, from where it is and how to get there."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .metadata.bare import BareRepository
from .model import RepositoryAccess


class Repositories:
    """Opens data repositories; their clones are kept below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, access: RepositoryAccess) -> BareRepository:
        """The branch of `access`. Nothing is asked of the remote yet."""
        place = hashlib.sha256(f"{access.url}\n{access.branch}".encode()).hexdigest()[:16]
        return BareRepository(access.url, access.token, access.branch, self._directory / place)
