"""What is kept in memory because it is asked for again: bounded by bytes, and not flushed by what is read once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")

_WINDOW_SHARE = 0.2
_MAX_COUNTED = 32_768
_MAX_COUNT = 15
_TRIP_BYTES = 1024 * 1024
"""What could be decoded in the time it takes to begin."""


class _Entry(NamedTuple, Generic[V]):
    value: V
    size: int


class Memory(Generic[V]):
    """Values by key, each with its bytes.

    What is new passes through a window, least recently used out first. What leaves the window stays where there is
    room; where there is none, having it must have saved more work than having what would have to go for it. So one
    scan of something huge passes by what is hot (W-TinyLFU: Einziger, Friedman, Manes, 2017).

    Args:
        max_bytes: of all values together.

    Attributes:
        evictions: how many values went for others.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.evictions = 0
        self._max_window_bytes = int(max_bytes * _WINDOW_SHARE)
        self._max_main_bytes = max_bytes - self._max_window_bytes
        self._lock = threading.RLock()
        self._window: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self._main: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self._window_bytes = 0
        self._main_bytes = 0
        self._asked = _Counts()

    @property
    def size_bytes(self) -> int:
        """Of all that is kept now."""
        return self._window_bytes + self._main_bytes

    def __contains__(self, key: Hashable) -> bool:
        """Whether `key` is kept; looking does not count as asking."""
        with self._lock:
            return key in self._main or key in self._window

    def get(self, key: Hashable) -> V | None:
        """The value under `key`; asking counts, also where there is none."""
        with self._lock:
            self._asked.add(key)
            for part in (self._main, self._window):
                if key in part:
                    part.move_to_end(key)
                    return part[key].value
            return None

    def keep(self, key: Hashable, value: V, size: int) -> bool:
        """Keep `value`, of `size` bytes, in place of any other under `key`; whether it is kept."""
        with self._lock:
            self.drop(key)
            self._window[key] = _Entry(value, size)
            self._window_bytes += size
            self._settle()
            return key in self

    def drop(self, key: Hashable, value: V | None = None) -> None:
        """Forget what is under `key`, if it is there, and if it is `value` where one is given."""
        with self._lock:
            for part in (self._main, self._window):
                if key in part and (value is None or part[key].value is value):
                    self._forget(part, key)

    def resize(self, key: Hashable, value: V, size: int) -> None:
        """Take note that `value`, if it is still what is under `key`, takes up `size` bytes; others may go for it."""
        with self._lock:
            for part in (self._main, self._window):
                if key in part and part[key].value is value:
                    change = size - part[key].size
                    part[key] = _Entry(value, size)
                    if part is self._main:
                        self._main_bytes += change
                    else:
                        self._window_bytes += change
            self._settle()
            while self._main_bytes > self._max_main_bytes:
                self._forget(self._main, next(iter(self._main)))
                self.evictions += 1

    def _settle(self) -> None:
        while self._window_bytes > self._max_window_bytes:
            key = next(iter(self._window))
            entry = self._forget(self._window, key)
            victims = self._victims(entry.size)
            if victims is None or (
                victims and self._work(key, entry) <= sum(map(self._work, victims, victims.values()))
            ):
                self.evictions += 1
                continue
            self.evictions += len(victims)
            for victim in victims:
                self._forget(self._main, victim)
            self._main[key] = entry
            self._main_bytes += entry.size

    def _victims(self, size: int) -> dict[Hashable, _Entry[V]] | None:
        """What has to go for `size` bytes more, the least recently used first; None when nothing would help."""
        if size > self._max_main_bytes:
            return None
        missing = self._main_bytes + size - self._max_main_bytes
        victims = {}
        for key, entry in self._main.items():
            if missing <= 0:
                break
            victims[key] = entry
            missing -= entry.size
        return victims

    def _work(self, key: Hashable, entry: _Entry[V]) -> int:
        """What making the value anew has come to lately, or would have: by its bytes, and by the trip."""
        return self._asked[key] * (entry.size + _TRIP_BYTES)

    def _forget(self, part: OrderedDict[Hashable, _Entry[V]], key: Hashable) -> _Entry[V]:
        entry = part.pop(key)
        if part is self._main:
            self._main_bytes -= entry.size
        else:
            self._window_bytes -= entry.size
        return entry


class _Counts:
    """How often each key was asked for lately; all are halved when too many are known."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def __getitem__(self, key: Hashable) -> int:
        return self._counts.get(hash(key), 0)

    def add(self, key: Hashable) -> None:
        known = hash(key)
        self._counts[known] = min(_MAX_COUNT, self._counts.get(known, 0) + 1)
        if len(self._counts) > _MAX_COUNTED:
            self._counts = {known: count // 2 for known, count in self._counts.items() if count > 1}
