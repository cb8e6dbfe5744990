"""The demo's git: a bare repository with one branch, written without a work tree."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pygit2
from pygit2.enums import FileMode

AUTHOR = ("Dana Engineer", "dana@acme.example")

_BRANCH = "main"
_REFERENCE = f"refs/heads/{_BRANCH}"


class DemoRepository:
    """A bare repository at `path`, made when it is not there yet."""

    def __init__(self, path: Path) -> None:
        self._repository = pygit2.init_repository(str(path), bare=True, initial_head=_BRANCH)

    @property
    def head(self) -> str | None:
        """The branch's newest commit; None before the first."""
        tip = self._tip()
        return None if tip is None else str(tip.id)

    def read(self, path: str) -> bytes | None:
        """The bytes of a file at the branch's head; None when it is not there."""
        tip = self._tip()
        try:
            found = None if tip is None else tip.tree[path]
        except KeyError:
            return None
        return found.data if isinstance(found, pygit2.Blob) else None

    def commit(self, files: Mapping[str, bytes], message: str, when: datetime) -> None:
        """Put exactly `files` on the branch in one commit; nothing happens when they are all there already."""
        tip = self._tip()
        index = pygit2.Index()
        if tip is not None:
            index.read_tree(tip.tree)
        for path, data in files.items():
            index.add(pygit2.IndexEntry(path, self._repository.create_blob(data), FileMode.BLOB))
        tree = index.write_tree(self._repository)
        if tip is not None and tip.tree.id == tree:
            return
        signature = pygit2.Signature(*AUTHOR, int(when.timestamp()), 0)
        parents = [] if tip is None else [tip.id]
        self._repository.create_commit(_REFERENCE, signature, signature, message, tree, parents)

    def _tip(self) -> pygit2.Commit | None:
        if _REFERENCE not in self._repository.references:
            return None
        return self._repository.references[_REFERENCE].peel(pygit2.Commit)
