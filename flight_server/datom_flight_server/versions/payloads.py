"""Stored parquet objects, verified and kept on the local disk.

Nothing is opened before its hash has been checked in this process. Files are shared by the processes of a machine and
survive restarts; one that a crash or a full disk spoiled fails its check and is fetched again, so writes need no fsync.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from datom_flight.protocol.errors import DatomError, IntegrityError, UnavailableError

from ..storage.base import ObjectStore
from .single_flight import SingleFlight

T = TypeVar("T")

_PART = ".part"
_UNRECORDED = "tag-"
_OPEN_ATTEMPTS = 3
_FETCHES_AT_ONCE = 16
"""More would not be faster, and each holds some MiB on its way."""
_GRACE_SECONDS = 60
_SLOWEST_BYTES_PER_SECOND = 1_000_000
_TOUCH_EVERY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What a file looked like when its hash was checked; another look means another file."""

    size_bytes: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> _Stamp:
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


class Payloads:
    """A cache of whole objects on disk, least recently used out first.

    Each project location has a folder of its own, so that metadata of one project that names the hash of another
    project's object opens nothing.

    Args:
        directory: made if missing; may be shared with other processes.
        max_bytes: of kept files. The newest file is kept whatever its size, so that it can be read.
        clock: seconds, monotonic.
    """

    def __init__(self, directory: Path, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory / "payloads"
        self._max_bytes = max_bytes
        self._clock = clock
        self._fetching: SingleFlight[None] = SingleFlight()
        self._fetches = threading.BoundedSemaphore(_FETCHES_AT_ONCE)
        self._making_room = threading.Lock()
        self._checked: dict[Path, _Stamp] = {}
        self._touched: dict[Path, float] = {}
        self._directory.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def open(self, store: ObjectStore, key: str, sha256: str | None) -> pa.NativeFile:
        """The object at `key`, open for reading, its hash checked. The caller closes it.

        It stays readable when the cache drops the file.

        Args:
            sha256: what is recorded for it; None where nothing is, then the storage's tag stands for its content.

        Raises:
            DatomError: ``integrity_mismatch``, ``not_found``, ``timeout``, ``overloaded`` (no room on the disk), or
                the storage's other errors. Nothing is kept then.
        """
        return self._kept_or_fetched(store, key, sha256, lambda path: self._open_kept(path, sha256))

    def link(self, store: ObjectStore, key: str, sha256: str | None, target: Path) -> None:
        """Make `target` a name of the object at `key`, its hash checked; on the cache's file system.

        It stays when the cache drops the file. The caller removes it, and does not write to it.

        Raises:
            DatomError: as `open` does.
        """
        self._kept_or_fetched(store, key, sha256, lambda path: self._link_kept(path, sha256, target))

    def _kept_or_fetched(self, store: ObjectStore, key: str, sha256: str | None, take: Callable[[Path], T | None]) -> T:
        content = sha256 or _UNRECORDED + hashlib.sha256(f"{key}\n{store.etag(key)}".encode()).hexdigest()
        path = self._directory / hashlib.sha256(store.uri.encode()).hexdigest()[:16] / content
        for _ in range(_OPEN_ATTEMPTS):
            taken = take(path)
            if taken is not None:
                return taken
            self._fetching.run(path, lambda: self._fetch(store, key, sha256, path))
        raise UnavailableError(f'"{key}" is dropped from the cache faster than it can be read', code="overloaded")

    def _link_kept(self, path: Path, sha256: str | None, target: Path) -> Path | None:
        try:
            target.hardlink_to(path)
        except FileNotFoundError:
            return None
        stamp = _Stamp.of(target)
        if self._checked.get(path) != stamp and not self._recheck(path, stamp, sha256):
            target.unlink()
            return None
        self._touch(path)
        return target

    def _open_kept(self, path: Path, sha256: str | None) -> pa.NativeFile | None:
        try:
            file = pa.OSFile(str(path))
            stamp = _Stamp.of(path)
        except FileNotFoundError:
            return None
        if self._checked.get(path) != stamp and not self._recheck(path, stamp, sha256):
            file.close()
            return None
        self._touch(path)
        return file

    def _is_kept(self, path: Path) -> bool:
        try:
            return self._checked.get(path) == _Stamp.of(path)
        except FileNotFoundError:
            return False

    def _recheck(self, path: Path, stamp: _Stamp, sha256: str | None) -> bool:
        """Whether a file of an earlier or another process holds what its name says; one that does not is dropped."""
        if sha256 is not None:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                    self._checked[path] = stamp
                    return True
        path.unlink(missing_ok=True)
        return False

    def _touch(self, path: Path) -> None:
        # the access time is the clock of "least recently used" for all processes; the modification time must stay
        now = self._clock()
        if now - self._touched.get(path, float("-inf")) < _TOUCH_EVERY_SECONDS:
            return
        self._touched[path] = now
        with suppress(FileNotFoundError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def _fetch(self, store: ObjectStore, key: str, sha256: str | None, path: Path) -> None:
        if self._is_kept(path):
            return  # another flight landed between our look and our start
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f"{uuid.uuid4().hex}{_PART}")
        try:
            with self._fetches:
                actual = self._download(store, key, part)
            if sha256 is not None and actual != sha256:
                raise IntegrityError(f'stored bytes of "{key}" have sha256 {actual}, recorded is {sha256}')
            part.replace(path)
        except OSError as error:
            raise _no_room(key, error) from None
        finally:
            part.unlink(missing_ok=True)
        self._checked[path] = _Stamp.of(path)
        self._make_room(path)

    def _download(self, store: ObjectStore, key: str, part: Path) -> str:
        """Write the object to `part` and give its sha256."""
        digest = hashlib.sha256()
        written = 0
        started = self._clock()
        with part.open("wb") as file:
            # tells the sweep of another process that somebody is writing here
            fcntl.flock(file, fcntl.LOCK_EX)
            for chunk in store.chunks(key):
                digest.update(chunk)
                file.write(chunk)
                written += len(chunk)
                if self._clock() - started > _GRACE_SECONDS + written / _SLOWEST_BYTES_PER_SECOND:
                    raise DatomError.of("timeout", f'the storage is too slow: {written} bytes of "{key}" so far')
        return digest.hexdigest()

    def _make_room(self, newest: Path) -> None:
        with self._making_room:
            files = []
            for path in self._directory.glob("*/*"):
                with suppress(FileNotFoundError):
                    found = path.stat()
                    files.append((found.st_atime_ns, found.st_size, path))
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total <= self._max_bytes:
                    return
                if path != newest and path.suffix != _PART:
                    path.unlink(missing_ok=True)
                    self._checked.pop(path, None)
                    self._touched.pop(path, None)
                    total -= size

    def _sweep(self) -> None:
        """Remove what a killed process left half written."""
        for part in self._directory.glob(f"*/*{_PART}"):
            with suppress(OSError), part.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink(missing_ok=True)


def _no_room(key: str, error: OSError) -> DatomError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnavailableError(f'the cache disk is full, "{key}" cannot be fetched', code="overloaded")
    return UnavailableError(f'the cache cannot be written, "{key}" cannot be fetched: {os.strerror(error.errno or 0)}')
