"""A project's data repository, from where it is and how to get there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from .model import RepositoryAccess
from .outcomes import Outcomes

if TYPE_CHECKING:
    from .metadata.observed import ObservedRepository


class Repositories:
    """Opens data repositories; their clones are kept below one directory.

    Attributes:
        outcomes: of all that was asked of their remotes.
    """

    def __init__(self, directory: Path) -> None:
        self.outcomes = Outcomes()
        self._directory = directory

    def open(self, access: RepositoryAccess) -> ObservedRepository:
        """The branch of `access`. Nothing is asked of the remote yet."""
        # git is loaded by servers that need it
        from .metadata.observed import ObservedRepository

        place = hashlib.sha256(f"{access.url}\n{access.branch}".encode()).hexdigest()[:16]
        return ObservedRepository(access.url, access.token, access.branch, self._directory / place, self.outcomes)
