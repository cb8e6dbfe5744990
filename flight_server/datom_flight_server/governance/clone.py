"""A bare clone of a governance repository, kept on disk, without a work tree."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pygit2
from pygit2.enums import CredentialType

from datom_flight.protocol.errors import UnavailableError

CONNECT_SECONDS = 5
ANSWER_SECONDS = 10
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
        except (pygit2.GitError, OSError, ValueError):
            return None

    def fetch(self) -> str:
        """The commit at the tip of the remote's default branch, now on disk.

        Raises:
            UnavailableError: ``store_unreachable`` when the remote cannot be reached or refuses, ``timeout``; what was
                on disk is still there.
        """
        callbacks = _Callbacks(self._url, self._token, self._cancelled)
        try:
            remote = self._opened().remotes.create_anonymous(self._url)
            remote.connect(callbacks=callbacks, proxy=True)
            tips = {str(head.name): str(head.oid) for head in remote.list_heads(connect=False)}
            branch = _default_branch(tips)
            if self.commit() != tips[branch]:
                remote.fetch([f"+{branch}:{_HEAD}"], callbacks=callbacks, proxy=True)
            return tips[branch]
        except (pygit2.GitError, OSError, ValueError) as error:
            raise UnavailableError(self._explanation(error), code="store_unreachable") from None

    def references(self, commit: str) -> Mapping[str, bytes]:
        """The text of every project's ref.json in `commit`, by the project's name.

        Raises:
            UnavailableError: ``store_unreachable`` when the clone is damaged; it is made anew by the next `fetch`.
        """
        try:
            return dict(_references(self._opened(), commit))
        except (pygit2.GitError, OSError, KeyError, ValueError):
            self._repository = None
            shutil.rmtree(self._directory, ignore_errors=True)
            raise UnavailableError(
                "the local copy was damaged and is fetched again", code="store_unreachable"
            ) from None

    def _opened(self) -> pygit2.Repository:
        if self._repository is None:
            # without these a silent remote would hold the thread for ever; they are the process's, not a repository's
            pygit2.settings.server_connect_timeout = CONNECT_SECONDS * 1000
            pygit2.settings.server_timeout = ANSWER_SECONDS * 1000
            try:
                self._repository = pygit2.Repository(str(self._directory), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)
            except pygit2.GitError:
                shutil.rmtree(self._directory, ignore_errors=True)
                self._directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._repository = pygit2.init_repository(str(self._directory), bare=True)
            self._unlock()
        return self._repository

    def _unlock(self) -> None:
        # a process that was killed while it moved the reference leaves a lock that nobody would ever remove
        for lock in (self._directory / _HEAD).parent.glob("*.lock"):
            if time.time() - lock.stat().st_mtime > FETCH_SECONDS:
                lock.unlink(missing_ok=True)

    def _explanation(self, error: Exception) -> str:
        if "://" not in self._url and self._url.startswith("/") and not Path(self._url).exists():
            return "there is no such folder"
        return str(error) or type(error).__name__


class _Callbacks(pygit2.RemoteCallbacks):
    """Answers to what the transport asks: credentials, each once, and whether to go on."""

    def __init__(self, url: str, token: str | None, cancelled: Callable[[], bool]) -> None:
        super().__init__()
        self._url = url
        self._token = token
        self._cancelled = cancelled
        self._offered = False
        self._deadline = time.monotonic() + FETCH_SECONDS

    def credentials(
        self, url: str, username_from_url: str | None, allowed_types: CredentialType
    ) -> pygit2.UserPass | pygit2.Keypair | pygit2.Username:
        if allowed_types == CredentialType.USERNAME:
            return pygit2.Username(username_from_url or "git")
        if self._offered:
            raise UnavailableError("the remote refuses the credentials", code="store_unreachable")
        self._offered = True
        if allowed_types & CredentialType.SSH_KEY:
            return pygit2.KeypairFromAgent(username_from_url or "git")
        if allowed_types & CredentialType.USERPASS_PLAINTEXT and self._token is not None:
            if not _same_place(self._url, url):
                raise UnavailableError("the remote sends to another host", code="store_unreachable")
            return pygit2.UserPass("x-access-token", self._token)
        raise UnavailableError("the remote asks for a token, and none is set", code="store_unreachable")

    def transfer_progress(self, stats: pygit2.remotes.TransferProgress) -> None:
        if self._cancelled():
            raise UnavailableError("the server is stopping", code="cancelled")
        if time.monotonic() > self._deadline:
            raise UnavailableError(f"the fetch took over {FETCH_SECONDS} s", code="timeout")


def _same_place(url: str, other: str) -> bool:
    """Whether a token for `url` may go to `other`: the same server, or the same host and now with TLS."""
    mine, theirs = urlsplit(url), urlsplit(other)
    return mine[:2] == theirs[:2] or (theirs.scheme == "https" and mine.hostname == theirs.hostname)


def _default_branch(tips: Mapping[str, str]) -> str:
    branches = [str(name) for name in tips if name.startswith("refs/heads/")]
    # a HEAD that names no branch is not sent at all
    for name in (*_DEFAULT_BRANCHES, *(branches if len(branches) == 1 else ())):
        if name in tips:
            return str(name)
    raise ValueError("the remote has no default branch" if branches else "the remote is empty")


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
