"""Files of verified content on the local disk, shared by the processes of a machine, least recently used out first."""

from __future__ import annotations

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
from typing import BinaryIO

from .single_flight import SingleFlight

_PART = ".part"
_TOUCH_EVERY_SECONDS = 60
_SCAN_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What a file looked like when its hash was checked; another look means another file."""

    size_bytes: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, file: Path | int) -> _Stamp:
        found = os.stat(file)
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


class KeptFiles:
    """The files of a folder, each named by its content's hash, a folder below it for each place they came from.

    Nothing is used before its hash has been checked in this process, and again when it no longer looks as it did then.
    So one that a crash spoiled is found out, and writes need no fsync.

    Args:
        directory: made if missing; may be shared with other processes.
        max_bytes: of all files. The newest is kept whatever its size, so that it can be read.
        clock: seconds, monotonic.

    Attributes:
        evictions: how many files this process dropped for others.
        spoiled: how many it dropped because they did not hold what is recorded.
    """

    def __init__(self, directory: Path, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.evictions = 0
        self.spoiled = 0
        self._directory = directory
        self._max_bytes = max_bytes
        self._clock = clock
        self._checking: SingleFlight[bool] = SingleFlight()
        self._making_room = threading.Lock()
        self._checked: dict[Path, _Stamp] = {}
        self._touched: dict[Path, float] = {}
        self._bytes = 0
        self._scan_due = float("-inf")
        directory.mkdir(parents=True, exist_ok=True)
        self._sweep()

    @property
    def max_bytes(self) -> int:
        """Of all files."""
        return self._max_bytes

    @property
    def size_bytes(self) -> int:
        """Of all files now, as far as this process knows of what others keep."""
        with self._making_room:
            if self._scan_due == float("-inf"):
                self._bytes = sum(size for size, _ in self._by_use())
                self._scan_due = self._clock()
            return self._bytes

    def path(self, place: str, content: str) -> Path:
        """Where the file of that `content` from that `place` is, if there is one."""
        return self._directory / place / content

    def is_sound(self, path: Path, sha256: str | None, file: Path | int) -> bool:
        """Whether what is open as, or linked to, `file` is the file at `path` and holds what is recorded.

        A file that does not hold it is dropped.

        Args:
            sha256: None where nothing is recorded; then only what this process fetched is trusted.

        Raises:
            FileNotFoundError: `path` is not there any more.
        """
        stamp = _Stamp.of(file)
        if self._checked.get(path) != stamp and not self._checking.run(
            (path, stamp), lambda: self._recheck(path, sha256, stamp)
        ):
            return False
        self._touch(path)
        return True

    def is_checked(self, path: Path) -> bool:
        """Whether `path` is there, as it was when its hash was checked."""
        try:
            return self._checked.get(path) == _Stamp.of(path)
        except FileNotFoundError:
            return False

    def begin(self, path: Path) -> tuple[BinaryIO, Path]:
        """A new file that may become the one at `path`, and its name until then; raises OSError as the disk does."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{uuid.uuid4().hex}{_PART}")
        file = part.open("w+b", buffering=0)
        # tells the sweep of another process that somebody is writing here
        fcntl.flock(file, fcntl.LOCK_EX)
        return file, part

    def keep(self, file: BinaryIO, part: Path, path: Path) -> None:
        """Let a file that `begin` gave, whose hash is right, be the one at `path`; raises OSError as the disk does."""
        part.replace(path)
        self._checked[path] = stamp = _Stamp.of(file.fileno())
        file.close()
        with self._making_room:
            self._bytes += stamp.size_bytes
            # what other processes add is seen by looking; looking at many files takes its time
            if self._bytes > self._max_bytes or self._clock() >= self._scan_due:
                self._bring_down(path)

    def give_up(self, file: BinaryIO, part: Path) -> None:
        """Remove a file that `begin` gave."""
        file.close()
        with suppress(OSError):
            part.unlink(missing_ok=True)

    def make_room(self, bytes_: int) -> bool:
        """Drop files until so many bytes of the disk are free; whether that helps. None is dropped to no avail."""
        with self._making_room:
            files = self._by_use()
            free = self._free_bytes()
            if free >= bytes_ or free + sum(size for size, _ in files) < bytes_:
                return False
            for size, path in files:
                if self._free_bytes() >= bytes_:
                    break
                self._drop(path, size)
            return self._free_bytes() >= bytes_

    def _free_bytes(self) -> int:
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize

    def _recheck(self, path: Path, sha256: str | None, stamp: _Stamp) -> bool:
        with path.open("rb") as file:
            if _Stamp.of(file.fileno()) != stamp:
                return False
            if sha256 is not None and hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                self._checked[path] = stamp
                return True
        path.unlink(missing_ok=True)
        self.spoiled += 1
        return False

    def _touch(self, path: Path) -> None:
        # the access time is the clock of "least recently used" for all processes; the modification time must stay
        now = self._clock()
        if now - self._touched.get(path, float("-inf")) < _TOUCH_EVERY_SECONDS:
            return
        self._touched[path] = now
        with suppress(OSError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def _bring_down(self, newest: Path) -> None:
        started = self._clock()
        files = self._by_use()
        self._bytes = sum(size for size, _ in files)
        for size, path in files:
            if self._bytes <= self._max_bytes:
                break
            if path != newest:
                self._drop(path, size)
        ended = self._clock()
        self._scan_due = ended + (ended - started) / _SCAN_SHARE

    def _by_use(self) -> list[tuple[int, Path]]:
        """Every file with its bytes, the least recently used first; unfinished ones last."""
        files = []
        for path in self._directory.glob("*/*"):
            with suppress(FileNotFoundError):
                found = path.stat()
                files.append((path.suffix == _PART, found.st_atime_ns, found.st_size, path))
        return [(size, path) for _, _, size, path in sorted(files)]

    def _drop(self, path: Path, size: int) -> None:
        if path.suffix == _PART:
            return
        path.unlink(missing_ok=True)
        self.evictions += 1
        self._checked.pop(path, None)
        self._touched.pop(path, None)
        self._bytes -= size

    def _sweep(self) -> None:
        """Remove what a killed process left half written."""
        for part in self._directory.glob(f"*/*{_PART}"):
            with suppress(OSError), part.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink(missing_ok=True)
