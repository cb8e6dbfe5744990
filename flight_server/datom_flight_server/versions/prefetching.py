"""Tables brought to the cache before they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from datom_flight.protocol.errors import DatomError

from ..metadata import layout
from ..model import Kind
from .catalog import Catalog
from .payloads import Payloads

_AT_ONCE = 4
"""For all callers together: most of what may be fetched at a time stays for those who wait for rows."""


@dataclass(frozen=True, slots=True)
class Prefetched:
    """What came of one table.

    Attributes:
        version: the full id; None where the history gives none, or there is an `error`.
        data_sha, size_bytes: of the stored object; None with an `error`.
        fetched: whether it had to be; False is that it was here already.
        error: why it is not here now.
    """

    table: str
    version: str | None = None
    data_sha: str | None = None
    size_bytes: int | None = None
    fetched: bool = False
    error: DatomError | None = None


class Prefetching:
    """Brings tables to the cache of `payloads`, verified, a few at a time."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="prefetch")

    def tables(
        self, catalog: Catalog, names: Iterable[str], version: str | None = None, as_of: str | None = None
    ) -> Iterator[Prefetched]:
        """What came of each of `names`, in their order, each as soon as it is known.

        Letting go of the iterator ends what has not begun.
        """
        bring = partial(self._bring, catalog, version, as_of)
        ahead: deque[Future[Prefetched]] = deque()
        try:
            for name in names:
                ahead.append(self._threads.submit(bring, name))
                if len(ahead) == _AT_ONCE:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()

    def _bring(self, catalog: Catalog, version: str | None, as_of: str | None, name: str) -> Prefetched:
        try:
            found = catalog.resolve(name, Kind.TABLE, version, as_of)
            key = layout.payload_key(name, Kind.TABLE, found.data_sha)
            size_bytes, fetched = self._payloads.find(catalog.store, key, found.object_sha).bring()
        except DatomError as error:
            return Prefetched(name, error=error)
        return Prefetched(name, found.version, found.data_sha, size_bytes, fetched)
