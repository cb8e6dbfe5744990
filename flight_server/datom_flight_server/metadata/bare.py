"""A project's data repository as a bare clone: commits are made and pushed without a work tree."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pygit2
import tenacity
from pygit2.enums import FileMode, SortMode

from datom_flight.protocol.errors import InvalidRequestError, UnavailableError

from .git import Author
from .pushes import moved, push_by_path, push_by_protocol
from .remotes import FAILURES, Callbacks, connect, explanation, folder_of, is_damage, open_clone, remove_clone

COMMITTER = Author("datom-flight", "datom-flight@localhost")
FETCH_SECONDS = 120

_ATTEMPTS = 3  # at a fetch: servers are busy now and then, and connections break
_ATTEMPTS_SECONDS = 10
_TIP = "refs/datom/tip"
_MAX_PACKS = 100  # each fetch adds one, nothing here joins them, and each is an open file


class BareRepository:
    """A `DataRepository` whose remote is a folder, or reached by http, https or ssh.

    Args:
        url: of the remote: a path, ``file://``, ``https://``, ``http://``, ``ssh://`` or ``user@host:path``.
        token: the password for http and https; None is no authentication, or the ssh agent's.
        directory: clones are kept below it. One is locked while it is in use, by this process or another, so that a
            second `BareRepository` takes the next; those that earlier processes left are used again.
        committer: the server, as commits name it.
    """

    def __init__(
        self, url: str, token: str | None, branch: str, directory: Path, committer: Author = COMMITTER
    ) -> None:
        self._url = url
        self._token = token
        self._branch = branch
        self._reference = f"refs/heads/{branch}"
        self._directory = directory
        self._committer = committer
        self._lock: int | None = None
        self._folder = directory
        self._repository: pygit2.Repository | None = None

    def close(self) -> None:
        """Give the clone up to whoever wants it; the next call takes one again."""
        self._free()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def fetch(self) -> str | None:
        """See `DataRepository.fetch`. A damaged clone is made anew; a remote that cannot be reached is asked again."""
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_pass),
            stop=tenacity.stop_after_attempt(_ATTEMPTS) | tenacity.stop_after_delay(_ATTEMPTS_SECONDS),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=1),
            reraise=True,
        )
        with self._translated():
            if self._is_worn():
                self._discard()
            return trying(self._fetch_or_mend)

    def read(self, commit: str, path: str) -> bytes | None:
        """See `DataRepository.read`."""
        with self._from_clone():
            found = _entry(self._opened()[commit].peel(pygit2.Commit), path)
            return bytes(found.data) if isinstance(found, pygit2.Blob) else None

    def commit(
        self, parent: str | None, files: Mapping[str, bytes], message: str, author: Author, when: datetime
    ) -> str:
        """See `DataRepository.commit`. The objects are on disk when it returns."""
        _check_message(message)
        with self._from_clone():
            repository = self._opened()
            index = pygit2.Index()
            if parent is not None:
                index.read_tree(repository[parent].peel(pygit2.Tree))
            for path, data in files.items():
                index.add(pygit2.IndexEntry(path, repository.create_blob(data), FileMode.BLOB))
            seconds = int(when.timestamp())
            made = repository.create_commit(
                None,
                pygit2.Signature(author.name, author.email, seconds, 0),
                pygit2.Signature(self._committer.name, self._committer.email, seconds, 0),
                message,
                index.write_tree(repository),
                [] if parent is None else [parent],
            )
            return str(made)

    def push(self, commit: str) -> None:
        """See `DataRepository.push`. By path, hooks of the remote would not run: a remote with hooks is refused."""
        with self._translated():
            repository = self._opened()
            tip = self._tip()
            if tip not in {None, commit} and not repository.descendant_of(commit, tip):
                raise moved(self._reference)
            folder = folder_of(self._url)
            if folder is not None:
                push_by_path(repository, folder, self._reference, tip, commit)
            else:
                push_by_protocol(repository, self._url, self._token, self._reference, tip, commit)
            repository.references.create(_TIP, commit, force=True)

    def contains(self, commit: str) -> bool:
        """See `DataRepository.contains`."""
        with self._from_clone():
            tip = self._tip()
            repository = self._opened()
            return tip is not None and (
                tip == commit or (commit in repository and repository.descendant_of(tip, commit))
            )

    def changes(self, commit: str, path: str) -> Iterator[str]:
        """See `DataRepository.changes`. A merge counts when the file differs from all that were merged."""
        with self._from_clone():
            for found in self._opened().walk(commit, SortMode.TOPOLOGICAL):
                before = [_entry(parent, path) for parent in found.parents] or [None]
                if _entry(found, path) not in before:
                    yield str(found.id)

    def _fetch_or_mend(self) -> str | None:
        try:
            return self._fetch()
        except FAILURES as error:
            if not is_damage(error):
                raise
            self._discard()
            return self._fetch()

    def _may_pass(self, error: BaseException) -> bool:
        return isinstance(error, FAILURES) and explanation(error, self._url).code == "store_unreachable"

    def _fetch(self) -> str | None:
        repository = self._opened()
        known = self._tip()
        callbacks = Callbacks(self._url, self._token, FETCH_SECONDS)
        remote, tips = connect(repository, self._url, callbacks)
        tip = tips.get(self._reference)
        if tip is None:
            if known is not None:
                repository.references.delete(_TIP)
            return None
        if tip != known:
            remote.fetch([f"+{self._reference}:{_TIP}"], callbacks=callbacks, proxy=True)
        repository[tip].peel(pygit2.Tree)  # raises when the clone, though it knows the tip, has lost it
        return tip

    def _tip(self) -> str | None:
        references = self._opened().references
        return str(references[_TIP].target) if _TIP in references else None

    def _opened(self) -> pygit2.Repository:
        if self._lock is None:
            self._folder, self._lock = _claim(self._directory)
        if self._repository is None:
            # whoever held the locks in it is gone: the folder is ours alone
            self._repository = open_clone(self._folder, locks_older_than_seconds=0)
        return self._repository

    def _is_worn(self) -> bool:
        return self._repository is not None and sum(1 for _ in self._folder.glob("objects/pack/*.pack")) > _MAX_PACKS

    def _discard(self) -> None:
        self._free()
        remove_clone(self._folder)

    def _free(self) -> None:
        if self._repository is not None:
            # it is part of a cycle: its files would stay open for as long as garbage does
            self._repository.free()
            self._repository = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Failures at the remote, explained."""
        try:
            yield
        except FAILURES as error:
            raise explanation(error, self._url) from error

    @contextmanager
    def _from_clone(self) -> Iterator[None]:
        """Failures in the clone: one that is not the disk's is damage, which the next fetch mends."""
        try:
            yield
        except FAILURES as error:
            trouble = explanation(error, str(self._folder))
            if trouble.code == "store_unreachable":
                self._discard()
                trouble = UnavailableError(
                    "the local copy of the repository was damaged, and is fetched again", code="store_unreachable"
                )
            raise trouble from error


def _claim(directory: Path) -> tuple[Path, int]:
    """The first clone below `directory` that nobody uses, and the open file whose lock keeps it so."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = 0
    while True:
        lock = os.open(directory / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return directory / f"{number}.git", lock
        except BlockingIOError:
            os.close(lock)
            number += 1
        except OSError:
            os.close(lock)
            raise


def _entry(commit: pygit2.Commit, path: str) -> pygit2.Object | None:
    tree = commit.tree
    if path not in tree:
        return None
    return tree[path]


def _check_message(message: str) -> None:
    try:
        if b"\0" not in message.encode():
            return
    except UnicodeEncodeError:
        pass
    raise InvalidRequestError("the message holds what git cannot record: a NUL, or half of a surrogate pair")
