"""A data repository, with a count of what was asked of its remote and how that ended."""

from __future__ import annotations

from pathlib import Path

from ..outcomes import Outcomes
from .bare import BareRepository


class ObservedRepository(BareRepository):
    """A `BareRepository` that tells `outcomes` of its fetches and pushes; ``conflict``: others were faster."""

    def __init__(self, url: str, token: str | None, branch: str, directory: Path, outcomes: Outcomes) -> None:
        super().__init__(url, token, branch, directory)
        self._outcomes = outcomes

    def fetch(self) -> str | None:
        """See `DataRepository.fetch`."""
        with self._outcomes.of("fetch"):
            return super().fetch()

    def push(self, commit: str) -> None:
        """See `DataRepository.push`."""
        with self._outcomes.of("push"):
            super().push(commit)
