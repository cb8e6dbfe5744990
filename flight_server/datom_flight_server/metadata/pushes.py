"""Moving a remote branch to a new commit, if it is still where it was: over a protocol, or in a folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pygit2
import tenacity
from pygit2.enums import SortMode

from datom_flight.protocol.errors import ConflictError, DatomError, InvalidRequestError

from .remotes import Callbacks, explanation

PUSH_SECONDS = 60
LOCK_SECONDS = 5

_STALE_SECONDS = 60
_HOOKS = ("pre-receive", "update", "reference-transaction", "post-receive", "post-update")
_MAX_WORDS = 500

# What git says of a branch that moved, or is just being moved, between its offer and the push.
_RACED = (
    "failed to update ref",
    "failed to lock",
    "cannot lock",
    "fetch first",
    "non-fast-forward",
    "stale info",
    "already exists",
    "incorrect old value",
)
_UNWRITABLE = ("permission denied", "read-only file system", "no space left", "disk quota exceeded")


def push_by_protocol(
    repository: pygit2.Repository, url: str, token: str | None, branch: str, tip: str | None, commit: str
) -> None:
    """Have the git server at `url` move `branch` (a reference's full name) from `tip` (None: create it) to `commit`.

    Raises:
        ConflictError: the branch is not at `tip`.
        UnavailableError: ``access_denied``, in the remote's words; ``timeout``; ``store_unreachable``.
        DatomError: see `explanation`. The branch may have been moved.
    """
    callbacks = _PushCallbacks(url, token, branch, tip, commit)
    try:
        repository.remotes.create_anonymous(url).push([f"{commit}:{branch}"], callbacks=callbacks, proxy=True)
    except pygit2.GitError as error:
        # that it could not unpack is all libgit2 says; why is what the remote said before
        raise explanation(OSError(callbacks.said or error), url) from error
    callbacks.raise_refusal()


def push_by_path(repository: pygit2.Repository, folder: Path, branch: str, tip: str | None, commit: str) -> None:
    """Move `branch` of the bare repository in `folder` from `tip` (None: create it) to `commit`.

    libgit2's own push into a folder overwrites whatever the branch was moved to since it looked, runs no hooks, and
    leaves a pack each time. So the objects are written there one by one, as git does with small pushes; then the
    branch is moved under git's lock, if it is still at `tip`.

    Raises:
        ConflictError: the branch is not at `tip`.
        InvalidRequestError: ``unsupported``: the repository is not bare, or has hooks.
        pygit2.GitError, OSError: as libgit2 fails. The branch was not moved.
    """
    remote = pygit2.Repository(str(folder))
    try:
        _check_is_for_pushing(remote)
        commits = repository.walk(commit, SortMode.TOPOLOGICAL | SortMode.REVERSE)
        if tip is not None:
            commits.hide(tip)
        for made in commits:
            _copy(repository, remote, made.tree)
            _write(repository, remote, made.id)
        with _alone(Path(remote.path), branch, commit):
            _move(remote, branch, tip, commit)
    finally:
        remote.free()


def _copy(repository: pygit2.Repository, remote: pygit2.Repository, tree: pygit2.Tree) -> None:
    """Write `tree` into `remote` unless it is there: after all that is in it, so that what is there is whole."""
    if tree.id in remote:
        return
    for entry in tree:
        if isinstance(entry, pygit2.Tree):
            _copy(repository, remote, entry)
        elif isinstance(entry, pygit2.Blob):
            _write(repository, remote, entry.id)
    _write(repository, remote, tree.id)


def _write(repository: pygit2.Repository, remote: pygit2.Repository, name: pygit2.Oid) -> None:
    if name not in remote:
        kind, data = repository.odb.read(name)
        remote.odb.write(kind, data)


@contextmanager
def _alone(remote: Path, branch: str, commit: str) -> Iterator[None]:
    """One server at a time may move branches in the folder `remote`.

    libgit2's lock of a branch outlives a process that is killed; ours does not. The file we lock says what is being
    moved to where, so the next server can tell a killed one's lock from that of a git that is at work.
    """
    with (remote / "datom-flight.lock").open("a+b") as file:
        _lock(file, branch)
        file.seek(0)
        if unfinished := file.read():
            left = remote / f"{branch}.lock"
            with suppress(FileNotFoundError):
                if left.read_bytes().strip() in {b"", unfinished}:
                    left.unlink()
            file.truncate(0)
        file.write(commit.encode())
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _lock(file: BinaryIO, branch: str) -> None:
    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(BlockingIOError),
        stop=tenacity.stop_after_delay(LOCK_SECONDS),
        wait=tenacity.wait_random(0.005, 0.05),
        reraise=True,
    )
    try:
        waiting(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise moved(branch) from None


def _move(remote: pygit2.Repository, branch: str, tip: str | None, commit: str) -> None:
    reference = remote.references.get(branch)
    if (None if reference is None else str(reference.target)) != tip:
        raise moved(branch)
    try:
        if reference is None:
            remote.references.create(branch, commit, force=False)
        else:
            reference.set_target(commit)  # only from the target it has just been read with
    except (pygit2.GitError, OSError, ValueError) as error:
        text = str(error).lower()
        if any(words in text for words in _UNWRITABLE):
            raise
        if "lock" in text and _is_stale(Path(remote.path) / f"{branch}.lock"):
            raise DatomError.of(
                "store_unreachable",
                f'"{branch}.lock" is left in the repository by a process that was killed',
                hint="remove it",
            ) from error
        raise moved(branch) from error


def _is_stale(lock: Path) -> bool:
    try:
        return time.time() - lock.stat().st_mtime > _STALE_SECONDS
    except FileNotFoundError:
        return False


def _check_is_for_pushing(remote: pygit2.Repository) -> None:
    if not remote.is_bare:
        raise InvalidRequestError(
            "the data repository is a working copy, not a bare repository: a push would leave its files behind",
            code="unsupported",
            hint="make a bare one with `git clone --bare`, and name that in the settings",
        )
    configured = [str(entry.value) for entry in remote.config if entry.name == "core.hookspath"]
    hooks = Path(remote.path) / (configured[-1] if configured else "hooks")
    for hook in _HOOKS:
        if os.access(hooks / hook, os.X_OK):
            raise InvalidRequestError(
                f'the data repository has a "{hook}" hook, which a push by path does not run',
                code="unsupported",
                hint="name the repository by its ssh or https URL in the settings",
            )


def moved(branch: str) -> ConflictError:
    """The error for a branch that is no longer where it was."""
    return ConflictError(
        f'the branch "{_short(branch)}" moved on meanwhile', hint="read the current version, then write again"
    )


def _short(branch: str) -> str:
    return branch.removeprefix("refs/heads/")


class _PushCallbacks(Callbacks):
    """Pushes one branch from where it must be, and keeps what the remote says of it.

    Attributes:
        said: what the remote said to people, hooks' words included; the beginning.
    """

    def __init__(self, url: str, token: str | None, branch: str, tip: str | None, commit: str) -> None:
        super().__init__(url, token, PUSH_SECONDS)
        self._branch = branch
        self._expected = {tip or "0" * len(commit), commit}
        self.said = ""
        self._answers: dict[str, str | None] = {}

    def push_negotiation(self, updates: list[Any]) -> None:
        """Called once the remote has said where its branch is, before anything is sent."""
        if any(str(update.src) not in self._expected for update in updates):
            raise moved(self._branch)

    def sideband_progress(self, string: str) -> None:
        """Called with what the remote, or a hook of it, says to people."""
        self.said = (self.said + string)[:_MAX_WORDS]
        super().sideband_progress(string)

    def push_update_reference(self, refname: str, message: str | None) -> None:
        """Called with the remote's answer for a reference; None is success."""
        self._answers[refname] = message

    def raise_refusal(self) -> None:
        """Raise what the remote answered unless it moved the branch."""
        if self._branch not in self._answers:
            raise DatomError.of("store_unreachable", "the remote did not say whether it took the push")
        refusal = self._answers[self._branch]
        if refusal is None:
            return
        if any(words in self.said.lower() for words in _UNWRITABLE):
            raise explanation(OSError(self.said), self._url)
        if any(words in refusal.lower() for words in _RACED):
            raise moved(self._branch)
        said = " ".join(self.said.split())
        raise DatomError.of(
            "access_denied",
            f'the remote refuses the push to branch "{_short(self._branch)}": {refusal}'
            + (f" ({said})" if said else ""),
            hint="the branch may be protected: whoever keeps the repository must let the server's account push to it",
        )
