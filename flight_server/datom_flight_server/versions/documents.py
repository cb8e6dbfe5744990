"""Control documents of all projects, parsed, kept, and asked for again when they may have changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from ..model import TableVersion
from ..storage.base import ObjectStore
from .kept import Kept
from .single_flight import SingleFlight

T = TypeVar("T")

PARSED_SIZE_FACTOR = 6
"""A parsed document's memory as a multiple of its text, rounded up."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T
    etag: str
    checked: float


class Documents:
    """A cache of parsed documents, bounded by bytes; what is older than `max_age_seconds` is asked for again.

    Asking again is one conditional request by ETag, made once however many callers wait for it.

    Args:
        max_age_seconds: how long a document is answered without asking the storage.
        max_bytes: of parsed documents, estimated from the length of their text.
        max_version_bytes: of `versions`.
        clock: seconds, monotonic.

    Attributes:
        versions: once resolved, by their place and full id: they never change, and need not be asked for again.
    """

    def __init__(
        self,
        max_age_seconds: float,
        max_bytes: int = 256 * 1024 * 1024,
        max_version_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.versions: Kept[tuple[str, ...], TableVersion] = Kept(max_version_bytes)
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._kept: Kept[tuple[str, str], _Entry[Any]] = Kept(max_bytes)
        self._asking: SingleFlight[_Entry[Any]] = SingleFlight()

    def get(self, store: ObjectStore, key: str, parse: Callable[[bytes, str], T]) -> T:
        """The document at `key`, parsed by ``parse(data, key)``.

        Raises:
            DatomError: what the storage or `parse` raises; nothing is kept then.
        """
        place = (store.uri, key)
        entry = self._fresh(place)
        if entry is None:
            entry = self._asking.run(place, lambda: self._fresh(place) or self._ask(store, key, parse))
        return cast("T", entry.value)

    def newest(self, store: ObjectStore, key: str, parse: Callable[[bytes, str], T]) -> T:
        """As `get`, but always as it is in the storage after this call began."""
        return self._ask(store, key, parse).value

    def forget(self, store: ObjectStore, key: str) -> None:
        """Ask the storage before the document at `key` is answered again."""
        entry = self._kept.get((store.uri, key))
        if entry is not None:
            entry.checked = float("-inf")

    def ages(self) -> dict[str, float]:
        """For each store, by its uri, the seconds since it last said how a document of it is."""
        now = self._clock()
        ages: dict[str, float] = {}
        for (uri, _), entry in self._kept.items():
            ages[uri] = min(ages.get(uri, float("inf")), now - entry.checked)
        return ages

    def _ask(self, store: ObjectStore, key: str, parse: Callable[[bytes, str], T]) -> _Entry[T]:
        place = (store.uri, key)
        entry: _Entry[T] | None = self._kept.get(place)
        checked = self._clock()
        document = store.read(key) if entry is None else store.read_if_changed(key, entry.etag)
        if document is None:
            assert entry is not None
            entry.checked = checked
            return entry
        entry = _Entry(parse(document.data, key), document.etag, checked)
        self._kept.put(place, entry, len(document.data) * PARSED_SIZE_FACTOR)
        return entry

    def _fresh(self, place: tuple[str, str]) -> _Entry[Any] | None:
        entry = self._kept.get(place)
        return entry if entry is not None and self._clock() - entry.checked <= self._max_age_seconds else None
