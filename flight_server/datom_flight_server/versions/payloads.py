"""Stored parquet objects, verified before they are opened, fetched once, and kept: on the disk, decoded in memory."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from datom_flight.protocol.errors import DatomError, IntegrityError, UnavailableError

from ..storage.base import ObjectStore
from .decoder import Decoder
from .kept_files import KeptFiles
from .landing import Landing
from .single_flight import SingleFlight

T = TypeVar("T")

_UNRECORDED = "tag-"
_OPEN_ATTEMPTS = 3
_FETCHES_AT_ONCE = 16
"""More would not be faster, and each holds some MiB on its way."""
_GRACE_SECONDS = 60
_SLOWEST_BYTES_PER_SECOND = 1_000_000


class Payloads:
    """A cache of whole objects on disk, least recently used out first, and of what was decoded of them.

    Each project location has a folder of its own, so that metadata of one project that names the hash of another
    project's object opens nothing. Where the disk takes no more, objects are kept in memory, if they are not large.

    Args:
        directory: made if missing; may be shared with other processes.
        max_bytes: of kept files. The newest file is kept whatever its size, so that it can be read.
        memory_bytes: of what is kept in memory.
        clock: seconds, monotonic.

    Attributes:
        decoder: decodes them, and keeps what it decoded.
        files: of those on the disk.
        hits, misses: how often an object was there when it was asked for, and had to be fetched.
        mismatches: how often one that was fetched had another hash than is recorded.
    """

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        memory_bytes: int = 256 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.decoder = Decoder(memory_bytes)
        self._max_held_bytes = memory_bytes // 4
        self._clock = clock
        self.files = KeptFiles(directory / "payloads", max_bytes, clock)
        self.hits = 0
        self.misses = 0
        self.mismatches = 0
        self._fetching: SingleFlight[pa.Buffer | None] = SingleFlight()
        self._fetches = threading.BoundedSemaphore(_FETCHES_AT_ONCE)

    def find(self, store: ObjectStore, key: str, sha256: str | None) -> Payload:
        """The object at `key`; nothing is fetched yet.

        Args:
            sha256: what is recorded for it; None where nothing is, then the storage's tag stands for its content.

        Raises:
            DatomError: as the storage does when it is asked for the tag.
        """
        tag = None if sha256 is not None else store.etag(key)
        content = sha256 or _UNRECORDED + hashlib.sha256(f"{key}\n{tag}".encode()).hexdigest()
        place = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
        return Payload(self, store, key, sha256, tag, self.files.path(place, content))

    def open(self, payload: Payload) -> pa.NativeFile:
        """See `Payload.open`."""
        held = self.decoder.memory.get(payload.path)
        return pa.BufferReader(held) if held is not None else self._taken(payload, self._open_kept, pa.BufferReader)

    def bring(self, payload: Payload) -> tuple[int, bool]:
        """See `Payload.bring`."""
        held = self.decoder.memory.get(payload.path)
        here = pa.BufferReader(held) if held is not None else self._open_kept(payload)
        with self.open(payload) if here is None else here as file:
            return file.size(), here is None

    def link(self, payload: Payload, target: Path) -> None:
        """See `Payload.link`."""

        def no_file(held: pa.Buffer) -> bool:
            raise UnavailableError(f'the cache disk is full, "{payload.key}" cannot be kept', code="overloaded")

        self._taken(payload, lambda payload: self._link_kept(payload, target), no_file)

    def _taken(self, payload: Payload, take: Callable[[Payload], T | None], take_held: Callable[[pa.Buffer], T]) -> T:
        taken = take(payload)
        if taken is not None:
            self.hits += 1
            return taken
        self.misses += 1
        for _ in range(_OPEN_ATTEMPTS):
            held = self._fetching.run(payload.path, lambda: self._fetch(payload))
            if held is not None:
                return take_held(held)
            taken = take(payload)
            if taken is not None:
                return taken
        raise UnavailableError(
            f'"{payload.key}" is dropped from the cache faster than it can be read', code="overloaded"
        )

    def _open_kept(self, payload: Payload) -> pa.NativeFile | None:
        with ExitStack() as opened:
            try:
                file = opened.enter_context(pa.OSFile(str(payload.path)))
                if not self.files.is_sound(payload.path, payload.sha256, file.fileno()):
                    return None
            except OSError:
                # not there; or not to be read, and then it is fetched again
                return None
            opened.pop_all()
            return file

    def _link_kept(self, payload: Payload, target: Path) -> bool | None:
        try:
            target.hardlink_to(payload.path)
        except FileNotFoundError:
            return None
        try:
            if self.files.is_sound(payload.path, payload.sha256, target):
                return True
        except FileNotFoundError:
            pass
        target.unlink()
        return None

    def _fetch(self, payload: Payload) -> pa.Buffer | None:
        """Bring the object to the disk, its hash checked; give it where it could only be brought to memory."""
        if self.files.is_checked(payload.path):
            return None  # another flight landed between our look and our start
        with self._fetches, Landing(payload.key, self.files, payload.path, self._max_held_bytes) as landing:
            self._download(payload, landing)
            held = landing.keep()
        if held is not None:
            self.decoder.memory.keep(payload.path, held, held.size)
        return held

    def _download(self, payload: Payload, landing: Landing) -> None:
        started = self._clock()
        for chunk in payload.store.chunks(payload.key):
            landing.take(chunk)
            if self._clock() - started > _GRACE_SECONDS + landing.size / _SLOWEST_BYTES_PER_SECOND:
                raise DatomError.of(
                    "timeout", f'the storage is too slow: {landing.size} bytes of "{payload.key}" so far'
                )
        actual = landing.digest.hexdigest()
        if payload.sha256 is not None and actual != payload.sha256:
            self.mismatches += 1
            raise IntegrityError(f'stored bytes of "{payload.key}" have sha256 {actual}, recorded is {payload.sha256}')
        if payload.tag is not None and payload.store.etag(payload.key) != payload.tag:
            raise UnavailableError(f'"{payload.key}" changed while it was read', code="store_unreachable")


@dataclass(frozen=True, slots=True)
class Payload:
    """One stored object, and its place in the cache.

    Attributes:
        sha256: what is recorded for it, if anything is.
        tag: the storage's, where nothing is recorded.
        path: of the file it is kept in; it names the content, too.
    """

    payloads: Payloads
    store: ObjectStore
    key: str
    sha256: str | None
    tag: str | None
    path: Path

    def open(self) -> pa.NativeFile:
        """Its bytes, their hash checked. The caller closes the file, which stays readable when the cache drops it.

        Raises:
            DatomError: ``integrity_mismatch``, ``not_found``, ``timeout``, ``overloaded`` (no room on the disk, and
                too large for memory), or the storage's other errors. Nothing is kept then.
        """
        return self.payloads.open(self)

    def bring(self) -> tuple[int, bool]:
        """Have it here, its hash checked: its size in bytes, and whether it had to be fetched. Raises as `open`."""
        return self.payloads.bring(self)

    def link(self, target: Path) -> None:
        """Make `target` a name of the file of these bytes, their hash checked; on the cache's file system.

        It stays when the cache drops the file. The caller removes it, and does not write to it.

        Raises:
            DatomError: as `open` does; ``overloaded`` wherever the disk has no room.
        """
        self.payloads.link(self, target)
