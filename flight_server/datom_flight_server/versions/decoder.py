"""Row groups decoded to Arrow: once for all who want one at the same time, and kept while they are wanted."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from .chunks import Chunks, TooLargeError
from .memory import Memory

Batches = Generator[pa.RecordBatch, None, None]

_SPARE_BYTES = 64 * 1024 * 1024
"""What row groups on their way may take up beyond what is kept."""
_PASSING_BYTES = 48 * 1024 * 1024
"""The largest row group that is worth decoding as one though it is not kept."""
_AT_ONCE_BYTES = 4 * 1024 * 1024
"""What is decoded by who asks for it, lest a small table wait behind large ones."""
_SURPRISE = 4
"""How many times as large as estimated a row group may turn out to be."""


class RowGroup(NamedTuple):
    """Some columns of a row group of the object that `content` names; columns in file order, None is all."""

    content: Hashable
    number: int
    columns: tuple[str, ...] | None


class _Given:
    """How much memory row groups have been given that are in use or kept."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._lock = threading.RLock()

    def add(self, size_bytes: int) -> None:
        """So many more, or less."""
        with self._lock:
            self.size_bytes += size_bytes


@dataclass(slots=True)
class _Room:
    """What a row group has been given of the memory there is, and the most it may be given."""

    size_bytes: int
    max_bytes: int


class Decoder:
    """Decodes row groups, in a few threads of its own.

    Args:
        memory_bytes: what may be kept. Row groups on their way may take up 64 MiB more, those included that are no
            longer kept and still being read.

    Attributes:
        memory: what is kept; there is room in it for other things, too.
        hits, misses: how often a row group that was asked for was in memory or under way, and had to be decoded.
        workers: how many row groups are decoded at a time.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.memory: Memory[Any] = Memory(memory_bytes)
        self.hits = 0
        self.misses = 0
        self.workers = os.cpu_count() or 1
        self._given = _Given()
        self._alive: weakref.WeakValueDictionary[Hashable, Chunks] = weakref.WeakValueDictionary()
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(self.workers, "decode")

    def chunks(self, group: RowGroup, size_bytes: int, decode: Callable[[], Batches]) -> Chunks | None:
        """The rows of `group` with its columns or more, from memory or as they are decoded from now on.

        None when there is no room for them: decode them batch by batch then. Reading them raises what decoding them
        does, and `TooLargeError` when they turn out to be more than there is room for.

        Args:
            size_bytes: of the rows once decoded, as estimated.
            decode: gives them.
        """
        with self._lock:
            found = self.find(group)
            if found is not None:
                return found
            self.misses += 1
            chunks = Chunks()
            room = self._room_for(group, chunks, size_bytes)
            if room is None:
                return None
            self._alive[group] = chunks
        if size_bytes <= _AT_ONCE_BYTES:
            self._fill(weakref.ref(chunks), group, decode, room)
        else:
            self._pool.submit(self._fill, weakref.ref(chunks), group, decode, room)
        return chunks

    def find(self, group: RowGroup) -> Chunks | None:
        """The rows of `group` with its columns or more, where they are in memory or under way; as `chunks`."""
        for key in _covering(group):
            chunks: Chunks | None = self.memory.get(key) or self._alive.get(key)
            if chunks is not None:
                self.hits += 1
                return chunks
        return None

    def has(self, group: RowGroup) -> bool:
        """Whether `find` would give something; looking does not count as asking."""
        return any(key in self.memory or key in self._alive for key in _covering(group))

    def ahead(self, batches: Batches) -> Batches:
        """`batches`, each made while the one before is being used. They are closed with this."""
        coming = self._pool.submit(next, batches, None)
        try:
            while (batch := coming.result()) is not None:
                coming = self._pool.submit(next, batches, None)
                yield batch
        finally:
            if not coming.cancel():
                coming.exception()
            batches.close()

    @property
    def _passing_bytes(self) -> int:
        """Of row groups that are not kept, or no longer."""
        return self._given.size_bytes - self.memory.size_bytes

    def _room_for(self, group: RowGroup, chunks: Chunks, size_bytes: int) -> _Room | None:
        if self._passing_bytes > _SPARE_BYTES:
            return None
        if not self.memory.keep(group, chunks, size_bytes) and (
            size_bytes > _PASSING_BYTES or self._passing_bytes + size_bytes > _SPARE_BYTES
        ):
            return None
        room = _Room(size_bytes, _SURPRISE * size_bytes + _PASSING_BYTES)
        self._given.add(room.size_bytes)
        weakref.finalize(chunks, _give_back, self._given, room).atexit = False
        return room

    def _fill(self, wanted: weakref.ref[Chunks], group: RowGroup, decode: Callable[[], Batches], room: _Room) -> None:
        """Decode `group` for as long as somebody wants it."""
        try:
            with closing(decode()) as batches:
                for batch in batches:
                    if not self._add(wanted, batch, group, room):
                        return
            failure = None
        except BaseException as error:
            failure = error
        if (chunks := wanted()) is None:
            return
        with self._lock:
            if failure is None:
                self._settle(chunks, group, room)
            else:
                self.memory.drop(group, chunks)
                self._alive.pop(group, None)
        chunks.end(failure)

    def _add(self, wanted: weakref.ref[Chunks], batch: pa.RecordBatch, group: RowGroup, room: _Room) -> bool:
        if (chunks := wanted()) is None:
            return False
        chunks.add(batch)
        if chunks.size_bytes > room.size_bytes:
            with self._lock:
                self._settle(chunks, group, room)
                if self._passing_bytes > _SPARE_BYTES or chunks.size_bytes > room.max_bytes:
                    raise TooLargeError
        return True

    def _settle(self, chunks: Chunks, group: RowGroup, room: _Room) -> None:
        """Account for what they take up, rather than for what was thought."""
        self._given.add(chunks.size_bytes - room.size_bytes)
        room.size_bytes = chunks.size_bytes
        self.memory.resize(group, chunks, chunks.size_bytes)


def _give_back(given: _Given, room: _Room) -> None:
    # no method of the decoder's: its chunks would keep it alive, and it them
    given.add(-room.size_bytes)


def _covering(group: RowGroup) -> Iterable[RowGroup]:
    """What has the rows of `group`, with its columns or all."""
    return (group,) if group.columns is None else (group, group._replace(columns=None))
