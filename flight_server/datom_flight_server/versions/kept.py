"""What was used last, within so many bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key; those used longest ago leave when the bytes of all would be over `max_bytes`.

    Safe to use from many threads.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value kept under `key`, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep `value` of `size` bytes under `key`, instead of what was there; not if it alone is too large."""
        with self._lock:
            self._bytes -= self._entries.pop(key, (None, 0))[1]
            if size > self._max_bytes:
                return
            self._bytes += size
            self._entries[key] = value, size
            while self._bytes > self._max_bytes:
                self._bytes -= self._entries.popitem(last=False)[1][1]

    def items(self) -> list[tuple[K, V]]:
        """All that is kept now."""
        with self._lock:
            return [(key, value) for key, (value, _) in self._entries.items()]
