"""Where an object's bytes arrive: in a file of the cache, or in memory once the disk takes no more."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO, NoReturn

import pyarrow as pa

from datom_flight.protocol.errors import UnavailableError

from .kept_files import KeptFiles

_ROOM_BYTES = 64 * 1024 * 1024
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Landing:
    """The bytes of one object as they arrive; what was not kept is gone at the end. A context manager.

    Args:
        key: the object's, for messages.
        path: of the file they are for.
        max_held_bytes: what memory takes in place of the disk.

    Attributes:
        digest: sha256 of what has arrived.
        size: bytes that have arrived.
    """

    def __init__(self, key: str, files: KeptFiles, path: Path, max_held_bytes: int) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._key = key
        self._files = files
        self._path = path
        self._max_held_bytes = max_held_bytes
        self._failure = 0
        self._held: pa.BufferOutputStream | None = None
        self._file: BinaryIO | None = None
        try:
            self._file, self._part = files.begin(path)
        except OSError as error:
            self._hold(error)

    def __enter__(self) -> Landing:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._files.give_up(self._file, self._part)

    def take(self, chunk: bytes | memoryview) -> None:
        """The next bytes.

        Raises:
            UnavailableError: ``overloaded`` or ``unavailable``: neither the disk nor memory has room for them.
        """
        self.digest.update(chunk)
        left = memoryview(chunk)
        while left and self._file is not None:
            try:
                written = self._file.write(left)
            except OSError as error:
                if error.errno not in _FULL_DISK or not self._files.make_room(len(left) + _ROOM_BYTES):
                    self._hold(error)
            else:
                left = left[written:]
                self.size += written
        if self._held is not None:
            self._check(len(left))
            self._held.write(left)
            self.size += len(left)

    def keep(self) -> pa.Buffer | None:
        """Make the file what it is for, now that the hash is known to be right; what is held instead is given."""
        if self._file is not None:
            try:
                self._files.keep(self._file, self._part, self._path)
            except OSError as error:
                self._hold(error)
            else:
                self._file = None
        return None if self._held is None else self._held.getvalue()

    def _hold(self, failure: OSError) -> None:
        """Go on in memory."""
        self._failure = failure.errno or errno.EIO
        self._check()
        self._held = pa.BufferOutputStream()
        if self._file is None:
            return
        try:
            self._file.seek(0)
            while missing := self.size - self._held.tell():
                self._held.write(self._file.read(min(missing, _ROOM_BYTES)) or self._refuse())
        except OSError:
            self._refuse()
        self._files.give_up(self._file, self._part)
        self._file = None

    def _check(self, more: int = 0) -> None:
        if self.size + more > self._max_held_bytes:
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self._failure in _FULL_DISK:
            raise UnavailableError(f'the cache disk is full, "{self._key}" cannot be fetched', code="overloaded")
        reason = os.strerror(self._failure).lower()
        raise UnavailableError(f'the cache cannot be written, "{self._key}" cannot be fetched: {reason}')
