"""A project's objects, with a count of what was asked of the storage and how that ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from ..outcomes import Outcomes, code_of
from .base import Document, WritableStore

T = TypeVar("T")


class ObservedStore:
    """A `WritableStore`: the one it is given, every call of which is counted."""

    def __init__(self, store: WritableStore, outcomes: Outcomes) -> None:
        self._store = store
        self._outcomes = outcomes

    @property
    def uri(self) -> str:
        """See `ObjectStore.uri`."""
        return self._store.uri

    def check(self) -> None:
        """See `ObjectStore.check`."""
        with self._outcomes.of("check"):
            self._store.check()

    def read(self, key: str) -> Document:
        """See `ObjectStore.read`."""
        with self._outcomes.of("read"):
            return self._store.read(key)

    def read_if_changed(self, key: str, etag: str) -> Document | None:
        """See `ObjectStore.read_if_changed`."""
        with self._outcomes.of("read_if_changed"):
            return self._store.read_if_changed(key, etag)

    def etag(self, key: str) -> str:
        """See `ObjectStore.etag`."""
        with self._outcomes.of("etag"):
            return self._store.etag(key)

    def chunks(self, key: str) -> Iterator[bytes | memoryview]:
        """See `ObjectStore.chunks`. What the caller does between two pieces does not count as the storage's time."""
        return self._timed("chunks", self._store.chunks(key))

    def keys(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.keys`."""
        return self._timed("keys", self._store.keys(prefix))

    def put(self, key: str, data: bytes) -> None:
        """See `WritableStore.put`."""
        with self._outcomes.of("put"):
            self._store.put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        """See `WritableStore.put_file`."""
        with self._outcomes.of("put_file"):
            self._store.put_file(key, path)

    def sweep(self) -> None:
        """See `WritableStore.sweep`."""
        with self._outcomes.of("sweep"):
            self._store.sweep()

    def _timed(self, operation: str, items: Iterator[T]) -> Iterator[T]:
        seconds, code = 0.0, "ok"
        try:
            while True:
                started = time.monotonic()
                try:
                    item = next(items, None)
                finally:
                    seconds += time.monotonic() - started
                if item is None:
                    return
                yield item
        except GeneratorExit:
            raise  # the caller has enough
        except BaseException as error:
            code = code_of(error)
            raise
        finally:
            self._outcomes.add(operation, code, seconds)
