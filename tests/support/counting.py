"""A store that counts what it is asked, before another one answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from datom_flight_server.storage.base import Document, ObjectStore


class CountingStore:
    """`store`, with every request counted by method, and by method and key.

    Attributes:
        asked: how often each method was called.
        before: called with the method and key ahead of each request; it may wait, or raise.
    """

    def __init__(self, store: ObjectStore, before: Callable[[str, str], None] = lambda method, key: None) -> None:
        self._store = store
        self.before = before
        self.asked: Counter[str] = Counter()

    @property
    def uri(self) -> str:
        return self._store.uri

    @property
    def requests(self) -> int:
        """All requests so far."""
        return sum(self.asked.values())

    def _count(self, method: str, key: str) -> None:
        self.asked[method] += 1
        self.before(method, key)

    def check(self) -> None:
        self._count("check", "")
        self._store.check()

    def read(self, key: str) -> Document:
        self._count("read", key)
        return self._store.read(key)

    def read_if_changed(self, key: str, etag: str) -> Document | None:
        self._count("read_if_changed", key)
        return self._store.read_if_changed(key, etag)

    def etag(self, key: str) -> str:
        self._count("etag", key)
        return self._store.etag(key)

    def chunks(self, key: str) -> Iterator[bytes | memoryview]:
        self._count("chunks", key)
        return self._store.chunks(key)

    def keys(self, prefix: str) -> Iterator[str]:
        self._count("keys", prefix)
        return self._store.keys(prefix)
