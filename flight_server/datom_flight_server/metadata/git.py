"""What the server needs of a project's data repository: the git branch that is the truth about its versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from datom_flight.protocol.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Author:
    """Who a commit is by, as git records it: ``name <email>``.

    Raises:
        InvalidRequestError: ``invalid_argument`` when git could not record it: a part is empty, or holds angle
            brackets or what cannot be printed.
    """

    name: str
    email: str

    def __post_init__(self) -> None:
        for part in (self.name, self.email):
            if not part.strip() or not part.isprintable() or not {"<", ">"}.isdisjoint(part):
                raise InvalidRequestError(
                    f'author "{ascii(self.name)[1:-1]}", "{ascii(self.email)[1:-1]}" cannot be written in git',
                    hint="give a name and an address without angle brackets and line breaks",
                )


class DataRepository(Protocol):
    """One branch of one project's data repository. For one thread at a time.

    Every method may raise, as `DatomError`: ``store_unreachable`` (the remote cannot be reached, or the copy at hand
    was damaged and the next `fetch` mends it), ``timeout`` (no answer within the deadline), ``access_denied`` (the
    remote refused the server), ``unavailable`` (the server's disk is full). None of them names a secret or a path.
    """

    def fetch(self) -> str | None:
        """The commit at the remote branch's tip, now at hand; None when the branch has no commit yet.

        A branch that was rewritten is followed. Commits that were not pushed may be forgotten.
        """
        ...

    def read(self, commit: str, path: str) -> bytes | None:
        """The bytes of a file in `commit`; None when it has no such file."""
        ...

    def commit(
        self, parent: str | None, files: Mapping[str, bytes], message: str, author: Author, when: datetime
    ) -> str:
        """A new commit: the files of `parent` (None: no files) with `files` put in. Nobody sees it before `push`.

        Args:
            files: contents by path; other files stay as they are.
            message: recorded as it is, without a line break added.
            when: bears a zone; recorded as UTC, in whole seconds.

        Raises:
            InvalidRequestError: ``invalid_argument`` when git cannot record `message`.
        """
        ...

    def push(self, commit: str) -> None:
        """Move the remote branch from where it was when last fetched to `commit`, which must descend from there.

        Other errors than ``conflict`` and ``access_denied`` may leave the branch moved: the answer can be lost.
        `fetch`, then `contains`, tells.

        Raises:
            ConflictError: ``conflict``: the branch is elsewhere by now; nothing was changed.
            UnavailableError: ``access_denied``: the token may not write, or the branch is protected.
            InvalidRequestError: ``unsupported``: the remote cannot be pushed to in this way.
        """
        ...

    def contains(self, commit: str) -> bool:
        """Whether `commit` is the tip that was last fetched or pushed, or one of its ancestors."""
        ...

    def changes(self, commit: str, path: str) -> Iterator[str]:
        """The commits that changed the file `path`, `commit` included, newest first."""
        ...
