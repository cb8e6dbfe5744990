"""Large objects, read from S3 in ranges that are on their way side by side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import botocore.exceptions as aws
import pyarrow as pa

from datom_flight.protocol.errors import DatomError

from .s3_errors import status_of

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

RANGE_BYTES = 16 * 1024 * 1024
"""Some storages hash the whole object for each request, so ranges are few; each is in memory while it is used."""

_AHEAD = 2  # of one download; a third is no faster
_READ_BYTES = 256 * 1024


class Begin(Protocol):
    """Starts a request within its deadline and attempts; its result is to be asked for.

    Failures are `DatomError`, about `key`, of either call.
    """

    def __call__(self, request: Callable[[S3Client], T], key: str) -> Callable[[], T]:
        """What gives what `request` returns."""
        ...


@dataclass(frozen=True, slots=True)
class _Range:
    """Some bytes of an object, and the whole object's tag and size as they were then."""

    data: memoryview
    tag: str
    size: int


class RangedDownloads:
    """The downloads of one bucket.

    Args:
        places: for ranges that are fetched while another one of the same download is being used. Many downloads share
            them, so that together they hold little more than a range each.
    """

    def __init__(self, bucket: str, begin: Begin, places: threading.BoundedSemaphore) -> None:
        self._bucket = bucket
        self._begin = begin
        self._places = places

    def ranges(self, name: str, key: str) -> Iterator[memoryview]:
        """The bytes of the object `name`, 16 MiB at a time.

        Raises:
            DatomError: as `Begin` does, about `key`; ``store_unreachable`` when the object changes under way.
        """
        first = found = self._fetch(name, 0, key)()
        starts = deque(range(RANGE_BYTES, first.size, RANGE_BYTES))
        ahead: deque[Callable[[], _Range]] = deque()
        try:
            while found.data:
                while starts and len(ahead) < _AHEAD and self._places.acquire(blocking=False):
                    try:
                        ahead.append(self._fetch(name, starts[0], key))
                    except BaseException:
                        self._places.release()
                        raise
                    starts.popleft()
                yield found.data
                if ahead:
                    begun = ahead.popleft()
                    self._places.release()
                elif starts:
                    begun = self._fetch(name, starts.popleft(), key)
                else:
                    break
                found = begun()
                if (found.tag, found.size) != (first.tag, first.size):
                    raise _changed(key)
        finally:
            for _ in ahead:
                self._places.release()
        # S3 answers from one object or the other; what serves files that are replaced in place may not
        if first.data and self._begin(lambda client: self._tag(client, name), key)() != first.tag:
            raise _changed(key)

    def _fetch(self, name: str, start: int, key: str) -> Callable[[], _Range]:
        return self._begin(lambda client: self._range(client, name, start), key)

    def _range(self, client: S3Client, name: str, start: int) -> _Range:
        wanted = f"bytes={start}-{start + RANGE_BYTES - 1}"
        try:
            answer = client.get_object(Bucket=self._bucket, Key=name, Range=wanted)
        except aws.ClientError as error:
            if status_of(error) != 416:
                raise
            # none of an object has these bytes: it is empty, or has become shorter
            return _Range(memoryview(b""), "", 0)
        body = answer["Body"]
        with closing(body):
            if start and "ContentRange" not in answer:
                raise DatomError.of("store_unreachable", "the storage does not keep to the range it is asked for")
            size = int(answer.get("ContentRange", f"/{answer['ContentLength']}").rpartition("/")[2])
            return _Range(_filled(min(RANGE_BYTES, size - start), body), answer["ETag"], size)

    def _tag(self, client: S3Client, name: str) -> str:
        return client.head_object(Bucket=self._bucket, Key=name)["ETag"]


def _changed(key: str) -> DatomError:
    return DatomError.of("store_unreachable", f'object "{key}" changed while it was read')


def _filled(size: int, body: StreamingBody) -> memoryview:
    # Arrow's memory, which is given back; of bytes, each thread would keep some for itself
    data = memoryview(pa.allocate_buffer(size)).cast("B")
    filled = 0
    while filled < size:
        read = body.readinto(data[filled : filled + _READ_BYTES])  # type: ignore[arg-type]  # boto3's stubs want a file
        if not read:
            raise aws.IncompleteReadError(actual_bytes=filled, expected_bytes=size)
        filled += read
    return data
