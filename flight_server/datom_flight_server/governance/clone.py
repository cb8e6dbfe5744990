"""A bare clone of a governance repository, kept on disk, without a work tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pygit2

from datom_flight.protocol.errors import UnavailableError

from ..metadata.remotes import FAILURES, Callbacks, connect, explanation, open_clone, remove_clone

FETCH_SECONDS = 60

_HEAD = "refs/datom/head"
_DEFAULT_BRANCHES = ("HEAD", "refs/heads/main", "refs/heads/master")


class Clone:
    """The default branch of the repository at `url`, as last fetched. For one thread only.

    Args:
        url: https, ssh, or a folder.
        token: the password for https; None is no authentication, or the ssh agent's.
        directory: where the clone is, or will be. A damaged one is made anew.
        cancelled: asked while bytes move; True ends a fetch.
    """

    def __init__(self, url: str, token: str | None, directory: Path, cancelled: Callable[[], bool]) -> None:
        self._url = url
        self._token = token
        self._directory = directory
        self._cancelled = cancelled
        self._repository: pygit2.Repository | None = None

    def commit(self) -> str | None:
        """The commit on disk; None when nothing was ever fetched."""
        try:
            repository = self._opened()
            return str(repository.references[_HEAD].target) if _HEAD in repository.references else None
        except FAILURES:
            return None

    def fetch(self) -> str:
        """The commit at the tip of the remote's default branch, now on disk.

        Raises:
            UnavailableError: ``store_unreachable``, ``access_denied``, ``timeout`` or ``cancelled``; what was on disk
                is still there.
        """
        callbacks = Callbacks(self._url, self._token, FETCH_SECONDS, self._cancelled)
        try:
            remote, tips = connect(self._opened(), self._url, callbacks)
            branch = _default_branch(tips)
            if self.commit() != tips[branch]:
                remote.fetch([f"+{branch}:{_HEAD}"], callbacks=callbacks, proxy=True)
            return tips[branch]
        except FAILURES as error:
            raise explanation(error, self._url) from error

    def references(self, commit: str) -> Mapping[str, bytes]:
        """The text of every project's ref.json in `commit`, by the project's name.

        Raises:
            UnavailableError: ``store_unreachable`` when the clone is damaged; it is made anew by the next `fetch`.
        """
        try:
            return dict(_references(self._opened(), commit))
        except FAILURES:
            if self._repository is not None:
                self._repository.free()
                self._repository = None
            remove_clone(self._directory)
            raise UnavailableError(
                "the local copy was damaged and is fetched again", code="store_unreachable"
            ) from None

    def _opened(self) -> pygit2.Repository:
        if self._repository is None:
            # another process may be fetching into the same clone
            self._repository = open_clone(self._directory, locks_older_than_seconds=FETCH_SECONDS)
        return self._repository


def _default_branch(tips: Mapping[str, str]) -> str:
    branches = [str(name) for name in tips if name.startswith("refs/heads/")]
    # a HEAD that names no branch is not sent at all
    for name in (*_DEFAULT_BRANCHES, *(branches if len(branches) == 1 else ())):
        if name in tips:
            return str(name)
    what = "has no default branch" if branches else "is empty"
    raise UnavailableError(f"the remote {what}", code="store_unreachable")


def _references(repository: pygit2.Repository, commit: str) -> list[tuple[str, bytes]]:
    found = []
    projects = _entry(repository[commit].peel(pygit2.Tree), "projects")
    for project in projects if isinstance(projects, pygit2.Tree) else ():
        reference = _entry(project, "ref.json")
        if isinstance(reference, pygit2.Blob):
            found.append((str(project.name), reference.data))
    return found


def _entry(tree: pygit2.Object, name: str) -> pygit2.Object | None:
    return tree[name] if isinstance(tree, pygit2.Tree) and name in tree else None
