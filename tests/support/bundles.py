"""The fixtures' data repositories: what R datom committed, commit by commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pygit2

from datom_flight_server.metadata.git import Author

from .expected import FIXTURES
from .git import git


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit.

    Attributes:
        before: the files of its parent, by path.
        changed: the files it added or changed, by path.
    """

    sha: str
    message: str
    author: Author
    when: datetime
    before: Mapping[str, bytes]
    changed: Mapping[str, bytes]

    @property
    def after(self) -> dict[str, bytes]:
        """All its files, by path."""
        return {**self.before, **self.changed}

    def artifact(self, document: str = "metadata.json") -> str | None:
        """The name of the artifact whose `document` it changed."""
        names = [path.rpartition("/")[0] for path in self.changed if path.endswith(f"/{document}")]
        return names[0] if names else None


def commits(store: str, folder: Path) -> Iterator[Commit]:
    """The commits of ``fixtures/{store}/repo.bundle``, oldest first; `folder` takes the clone."""
    clone = folder / f"{store.replace('/', '-')}.git"
    git("clone", "--quiet", "--bare", str(FIXTURES / store / "repo.bundle"), str(clone), cwd=folder)
    repository = pygit2.Repository(str(clone))
    before: dict[str, bytes] = {}
    newest_first = repository.walk(repository.head.target, pygit2.enums.SortMode.TOPOLOGICAL)
    for commit in reversed(list(newest_first)):
        files = dict(_files(repository, commit.tree, ""))
        changed = {path: data for path, data in files.items() if before.get(path) != data}
        author = Author(commit.author.name, commit.author.email)
        yield Commit(
            str(commit.id), commit.message, author, datetime.fromtimestamp(commit.commit_time, UTC), before, changed
        )
        before = files


def _files(repository: pygit2.Repository, tree: pygit2.Tree, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in tree:
        if isinstance(entry, pygit2.Tree):
            yield from _files(repository, entry, f"{prefix}{entry.name}/")
        elif isinstance(entry, pygit2.Blob):
            yield f"{prefix}{entry.name}", bytes(entry.data)
