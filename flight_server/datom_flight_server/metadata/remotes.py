"""What every clone of a remote repository needs: a folder, credentials, deadlines, and words for what fails."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pygit2
from pygit2.enums import CredentialType, RepositoryOpenFlag
from pygit2.ffi import C

from datom_flight.protocol.errors import DatomError

CONNECT_SECONDS = 5
ANSWER_SECONDS = 10

FAILURES = (pygit2.GitError, OSError, KeyError, ValueError)
"""What pygit2 raises; see `explanation`."""

_STATUS = re.compile(r"status code: (\d{3})")
_WORDS: tuple[tuple[str, str, str], ...] = (
    ("timed out", "timeout", "the remote timed out"),
    ("no space left", "unavailable", "the disk is full"),
    ("disk quota exceeded", "unavailable", "the disk is full"),
    ("not owned by current user", "access_denied", "the repository's folder belongs to another user"),
    ("permission denied", "access_denied", "the server may not use the repository's folder"),
    ("read-only file system", "access_denied", "the repository is on a read-only file system"),
    ("authentication", "access_denied", "the remote refuses the credentials"),
    ("failed to authenticate", "access_denied", "the remote refuses the credentials"),
    ("certificate", "store_unreachable", "the remote's certificate is not trusted"),
    ("not appear to be a git repository", "store_unreachable", "the remote has no such repository"),
    ("failed to resolve address", "store_unreachable", "the remote's host is not known"),
    ("failed to connect", "store_unreachable", "the remote cannot be connected to"),
)
"""Part of what libgit2 says (in lower case), the code it means, and our words: its own name paths and hosts."""


_DAMAGE = frozenset(
    {
        C.GIT_ERROR_REFERENCE,
        C.GIT_ERROR_ODB,
        C.GIT_ERROR_OBJECT,
        C.GIT_ERROR_TREE,
        C.GIT_ERROR_ZLIB,
        C.GIT_ERROR_INDEXER,
    }
)


def open_clone(folder: Path, locks_older_than_seconds: float) -> pygit2.Repository:
    """The bare repository in `folder`, made there anew when there is none or it is damaged.

    Args:
        locks_older_than_seconds: locks of that age are removed: a killed process leaves some that nobody else would.
    """
    # Without these a silent remote would hold the thread for ever, and a power cut could undo what was pushed by path.
    # They are the process's, not a repository's.
    pygit2.settings.server_connect_timeout = CONNECT_SECONDS * 1000
    pygit2.settings.server_timeout = ANSWER_SECONDS * 1000
    pygit2.settings.enable_fsync_gitdir(True)
    for lock in folder.rglob("*.lock"):
        if time.time() - lock.stat().st_mtime >= locks_older_than_seconds:
            lock.unlink(missing_ok=True)
    try:
        return pygit2.Repository(str(folder), RepositoryOpenFlag.NO_SEARCH)
    except pygit2.GitError:
        remove_clone(folder)
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return pygit2.init_repository(str(folder), bare=True)


def remove_clone(folder: Path) -> None:
    """Remove the clone in `folder`, as far as it can be: the next `open_clone` begins anew."""
    if folder.is_file():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def connect(
    repository: pygit2.Repository, url: str, callbacks: Callbacks
) -> tuple[pygit2.remotes.Remote, Mapping[str, str]]:
    """The remote at `url`, connected for fetching, and the commits it offers by reference."""
    remote = repository.remotes.create_anonymous(_address(url))
    remote.connect(callbacks=callbacks, proxy=True)
    return remote, {str(head.name): str(head.oid) for head in remote.list_heads(connect=False)}


def folder_of(url: str) -> Path | None:
    """The folder that `url` names, as a path or a ``file://`` URL; None when it is on another machine."""
    if url.startswith("file://"):
        return Path(unquote(urlsplit(url).path))
    return Path(url) if "://" not in url and (url.startswith("/") or Path(url).is_dir()) else None


def _address(url: str) -> str:
    """`url` as libgit2 takes it: a bare path with a colon in it would name a host."""
    folder = folder_of(url)
    return url if folder is None else folder.absolute().as_uri()


def explanation(error: BaseException, url: str) -> DatomError:
    """What `error` means, in words that name neither secrets nor places."""
    text = str(error).lower()
    folder = folder_of(url)
    if folder is not None and not folder.exists():
        return DatomError.of("store_unreachable", "there is no such folder")
    if found := _STATUS.search(text):
        return _of_status(int(found[1]))
    for part, code, words in _WORDS:
        if part in text:
            return DatomError.of(code, words)
    return DatomError.of("store_unreachable", "the remote cannot be used")


def is_damage(error: BaseException) -> bool:
    """Whether `error`, of a fetch, is the clone's own: objects or references are missing or cannot be read."""
    said = str(error)
    return (
        isinstance(error, KeyError)
        or "object not found" in said
        or "corrupted" in said
        or getattr(error, "error_class", None) in _DAMAGE
    )


def _of_status(status: int) -> DatomError:
    if status in {401, 403}:
        return DatomError.of("access_denied", f"the remote refuses the credentials (HTTP status {status})")
    if status == 404:
        return DatomError.of("store_unreachable", "the remote has no such repository, or hides it from the token")
    return DatomError.of("store_unreachable", f"the remote answered with HTTP status {status}")


class Callbacks(pygit2.RemoteCallbacks):
    """Answers to what the transport asks: credentials, each once, and whether to go on.

    Args:
        token: the password for http and https; None is no authentication, or the ssh agent's.
        seconds: how long bytes may move, from now.
        cancelled: asked while bytes move; True ends it.
    """

    def __init__(
        self, url: str, token: str | None, seconds: float, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__()
        self._url = url
        self._token = token
        self._cancelled = cancelled
        self._offered = False
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def credentials(
        self, url: str, username_from_url: str | None, allowed_types: CredentialType
    ) -> pygit2.UserPass | pygit2.Keypair | pygit2.Username:
        """What libgit2 offers to the remote at `url`, which redirects may have changed."""
        if allowed_types == CredentialType.USERNAME:
            return pygit2.Username(username_from_url or "git")
        by_key = bool(allowed_types & CredentialType.SSH_KEY)
        if self._offered:
            what = "every key of the server's ssh agent" if by_key else "the credentials"
            raise DatomError.of("access_denied", f"the remote refuses {what}")
        self._offered = True
        if by_key:
            return pygit2.KeypairFromAgent(username_from_url or "git")
        if self._token is None:
            raise DatomError.of("access_denied", "the remote asks for a token, and none is set")
        if not _same_place(self._url, url):
            raise DatomError.of("access_denied", "the remote sends to another host")
        return pygit2.UserPass("x-access-token", self._token)

    def certificate_check(self, certificate: None, valid: bool, host: bytes) -> bool:
        """Whether to trust the remote: for ssh, its key is in known_hosts. Left to itself, pygit2 trusts any key."""
        if not valid:
            raise DatomError.of(
                "store_unreachable",
                "the remote is not to be trusted: its certificate is not valid, or its ssh key is not in known_hosts",
                hint="tell whoever runs the server",
            )
        return True

    def transfer_progress(self, stats: pygit2.remotes.TransferProgress) -> None:
        """Called as objects arrive."""
        self.check()

    def push_transfer_progress(self, objects_pushed: int, total_objects: int, bytes_pushed: int) -> None:
        """Called as objects leave."""
        self.check()

    def sideband_progress(self, string: str) -> None:
        """Called with what the remote says to people meanwhile."""
        self.check()

    def check(self) -> None:
        """Raise when it is time to stop: ``cancelled`` or ``timeout``."""
        if self._cancelled():
            raise DatomError.of("cancelled", "the server is stopping")
        if time.monotonic() > self._deadline:
            raise DatomError.of("timeout", f"the remote took over {self._seconds:g} s")


def _same_place(url: str, other: str) -> bool:
    """Whether a token for `url` may go to `other`: the same server over http, or the same host and now with TLS."""
    mine, theirs = urlsplit(url), urlsplit(other)
    same = mine.scheme in {"http", "https"} and mine[:2] == theirs[:2]
    return same or (theirs.scheme == "https" and mine.hostname == theirs.hostname)
