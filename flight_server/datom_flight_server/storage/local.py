"""Objects in a folder of this machine, or of a file system mounted on it."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from datom_flight.protocol.errors import DatomError

from ..model import DataLocation
from .base import MAX_DOCUMENT_BYTES, Document, data_place, is_key, validate_key

PIECE_BYTES = 8 * 1024 * 1024
_READS = 3  # of a document that is rewritten under the reader

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_UNFINISHED = ".writing-"
"""How the names of files begin that are being written; no object's name does."""


class LocalStore:
    """The objects under ``{root}/{prefix}/datom/`` of a file system; a `WritableStore`.

    Symbolic links are followed as long as they stay in that place; what they point to elsewhere does not exist. The
    root is never made: a volume that is not mounted must not be written beside.
    """

    def __init__(self, root: str | Path, prefix: str = "") -> None:
        self._root = Path(os.path.abspath(root))
        self._place = self._root / data_place(prefix)
        self._uri = DataLocation("local", str(self._root), prefix.strip("/")).uri

    @property
    def uri(self) -> str:
        """``file:///root/prefix``."""
        return self._uri

    def check(self) -> None:
        """Return when the root is a folder, and it and the place in it (if there is one yet) can be listed."""
        with self._translated("the store's folder"):
            os.scandir(self._root).close()
            if self._place.exists():
                os.scandir(self._place).close()

    def read(self, key: str) -> Document:
        """The object's bytes and the tag they had, of one moment even if it is rewritten meanwhile."""
        for _ in range(_READS):
            with self._open(key) as file:
                size, tag = _state(file)
                if size > MAX_DOCUMENT_BYTES:
                    raise DatomError.of(
                        "document_unreadable", f'document "{key}" is larger than {MAX_DOCUMENT_BYTES} bytes'
                    )
                data = file.read(size)
                if len(data) == size and _state(file) == (size, tag):
                    return Document(data, tag)
        raise _changed(key)

    def read_if_changed(self, key: str, etag: str) -> Document | None:
        """The object if its tag is no longer `etag`, else None."""
        return None if self.etag(key) == etag else self.read(key)

    def etag(self, key: str) -> str:
        """A tag made of the file's inode, size and time of change."""
        with self._open(key) as file:
            return _state(file)[1]

    def chunks(self, key: str) -> Iterator[bytes]:
        """The file's bytes in pieces of at most 8 MiB; raises if it is no longer the same file at the end."""
        with self._open(key) as file:
            size, tag = _state(file)
            done = 0
            while done < size and (piece := file.read(min(PIECE_BYTES, size - done))):
                done += len(piece)
                yield piece
            if done != size or _state(file) != (size, tag):
                raise _changed(key)

    def keys(self, prefix: str) -> Iterator[str]:
        """Every file's key that begins with `prefix`, in byte order. Linked folders are not entered."""
        if prefix:
            validate_key(prefix.removesuffix("/"))
        folder = prefix.rpartition("/")[0]
        with self._translated(f'objects under "{prefix}"'):
            os.scandir(self._root).close()
            if os.path.realpath(self._place / folder) != os.path.join(os.path.realpath(self._place), folder).rstrip(
                "/"
            ):
                return iter(())  # it is, or is in, a linked folder
            return iter(sorted(filter(is_key, self._below(folder, prefix)), key=str.encode))

    def put(self, key: str, data: bytes) -> None:
        """Make `key` hold `data`: written beside it, brought to the disk, then renamed."""
        self._put(key, io.BytesIO(data))

    def put_file(self, key: str, path: Path) -> None:
        """Make `key` hold a copy of the file at `path`."""
        with path.open("rb") as source:
            self._put(key, source)

    def sweep(self) -> None:
        """Remove unfinished files that no living process holds the lock of."""
        with self._translated("what killed writers left", "removed"):
            for folder, _, names in os.walk(self._place):
                for name in names:
                    if name.startswith(_UNFINISHED):
                        _remove_unheld(os.path.join(folder, name))

    def _put(self, key: str, source: BinaryIO) -> None:
        validate_key(key)
        with self._translated(f'object "{key}"', "written"):
            target = self._place / key
            if target.name.startswith(_UNFINISHED):
                raise DatomError.of("invalid_address", f'key "{key}" is one of an unfinished file')
            if not Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(self._place)):
                raise DatomError.of("access_denied", f'object "{key}" is behind a link out of the store')
            self._make_folder(target.parent)
            with _unfinished(target.parent) as (file, path):
                shutil.copyfileobj(source, file, PIECE_BYTES)
                file.flush()
                os.fsync(file.fileno())
                os.rename(path, target)
            _sync_folder(target.parent)

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` and those above it, durably, up to the root, which must be there."""
        if folder == self._root:
            os.scandir(folder).close()
        elif not folder.is_dir():
            self._make_folder(folder.parent)
            with suppress(FileExistsError):
                folder.mkdir()
            _sync_folder(folder.parent)

    def _below(self, folder: str, prefix: str) -> Iterator[str]:
        with _entries(self._place / folder) as entries:
            for entry in entries:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if not key.startswith(prefix) or entry.name.startswith(_UNFINISHED):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self._below(key, prefix)
                elif entry.is_file(follow_symlinks=False) or self._is_linked(entry, key):
                    yield key

    def _is_linked(self, entry: os.DirEntry[str], key: str) -> bool:
        return entry.is_symlink() and os.path.isfile(entry) and self._resolve(key) is not None

    def _resolve(self, key: str) -> str | None:
        """The path of the object, links followed; None when they lead out of the place."""
        path = os.path.realpath(self._place / key, strict=True)
        return path if Path(path).is_relative_to(os.path.realpath(self._place)) else None

    @contextmanager
    def _open(self, key: str) -> Iterator[FileIO]:
        validate_key(key)
        with self._translated(f'object "{key}"'):
            path = self._resolve(key)
            if path is None:
                raise DatomError.of("not_found", f'object "{key}" is a link out of the store')
            with FileIO(path, opener=_open_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise DatomError.of("not_found", f'object "{key}" does not exist')
                yield file

    @contextmanager
    def _translated(self, what: str, done: str = "read") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(error, what, done) from None

    def _error(self, error: OSError, what: str, done: str) -> DatomError:
        if error.errno in _DENIED:
            return DatomError.of("access_denied", f"{what} may not be {done} by the server")
        if error.errno in _FULL:
            return DatomError.of(
                "unavailable", f"{what} cannot be {done}: the disk is full", hint="tell whoever runs the server"
            )
        if error.errno in _ABSENT and done == "read" and self._root.is_dir():
            return DatomError.of("not_found", f"{what} does not exist")
        if error.errno in _ABSENT and not self._root.is_dir():
            return DatomError.of("store_unreachable", "the store's folder does not exist")
        return DatomError.of(
            "store_unreachable", f"{what} cannot be {done}: {(error.strerror or 'input failed').lower()}"
        )


def _open_at_once(path: str, flags: int) -> int:
    # A pipe laid in the store must not hold a reader up.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


@contextmanager
def _unfinished(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in `folder`, locked for as long as it is open; removed unless it was renamed."""
    while True:
        path = folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
        with path.open("xb") as file:
            try:
                # where there are no locks, what killed writers leave stays, unseen
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                # a sweep may have come between the file's making and its lock
                if os.fstat(file.fileno()).st_nlink:
                    yield file, path
                    return
            finally:
                path.unlink(missing_ok=True)


def _remove_unheld(path: str) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return
        with FileIO(path, opener=_open_at_once) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            os.unlink(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some mounted file systems know no such thing for folders
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def _state(file: FileIO) -> tuple[int, str]:
    """The size in bytes, and the tag."""
    state = os.fstat(file.fileno())
    return state.st_size, f"{state.st_ino:x}-{state.st_size:x}-{state.st_mtime_ns:x}"


@contextmanager
def _entries(folder: Path) -> Iterator[Iterable[os.DirEntry[str]]]:
    """What is in `folder`; nothing when it is gone."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        yield ()
    else:
        with entries:
            yield entries


def _changed(key: str) -> DatomError:
    return DatomError.of("store_unreachable", f'object "{key}" changed while it was read')
