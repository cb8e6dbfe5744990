"""Objects in a bucket of S3, or of a server that speaks its API."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import botocore.exceptions as aws
import tenacity

from datom_flight.protocol.errors import DatomError

from ..model import DataLocation, S3Access
from .base import MAX_DOCUMENT_BYTES, Document, data_place, is_key, validate_key
from .deadlines import Background
from .s3_clients import POOLED_CONNECTIONS, S3Clients
from .s3_downloads import RangedDownloads
from .s3_errors import FAILURES, is_passing, meaning, name_of, status_of
from .s3_uploads import PART_BYTES, PartedUploads, digest_of

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

__all__ = ["S3Clients", "S3Store"]

T = TypeVar("T")


class S3Store:
    """The objects under ``s3://{bucket}/{prefix}/datom/``; a `WritableStore`.

    Buckets are addressed by path on custom endpoints and by host name on AWS, unless ``s3.addressing_style`` of the
    AWS configuration file says otherwise.
    """

    def __init__(self, bucket: str, prefix: str, access: S3Access, clients: S3Clients | None = None) -> None:
        self._bucket = bucket
        self._place = data_place(prefix)
        self._uri = DataLocation("s3", bucket, prefix.strip("/")).uri
        self._access = access
        self._clients = clients or S3Clients()
        self._deadlines = self._clients.deadlines
        self._background = Background(POOLED_CONNECTIONS)
        self._downloads = RangedDownloads(bucket, self._begin_range, self._clients.places_ahead)
        self._uploads = PartedUploads(bucket, self._write)

    @property
    def uri(self) -> str:
        """``s3://bucket/prefix``."""
        return self._uri

    def check(self) -> None:
        """Return when the bucket can be listed at the place, which may still be empty."""
        self._control(lambda client: client.list_objects_v2(Bucket=self._bucket, Prefix=self._place, MaxKeys=1))

    def read(self, key: str) -> Document:
        """The whole of a small object, in one request."""
        name = self._name(key)
        return self._control(lambda client: self._document(client.get_object(Bucket=self._bucket, Key=name), key), key)

    def read_if_changed(self, key: str, etag: str) -> Document | None:
        """The object if its tag is no longer `etag`, else None; also where the server ignores the condition."""
        name = self._name(key)

        def request(client: S3Client) -> Document | None:
            try:
                answer = client.get_object(Bucket=self._bucket, Key=name, IfNoneMatch=etag)
            except aws.ClientError as error:
                if status_of(error) == 304:
                    return None
                raise
            if answer["ETag"] == etag:
                answer["Body"].close()
                return None
            return self._document(answer, key)

        return self._control(request, key)

    def etag(self, key: str) -> str:
        """The object's ETag, by HEAD."""
        name = self._name(key)
        return self._control(lambda client: client.head_object(Bucket=self._bucket, Key=name)["ETag"], key)

    def chunks(self, key: str) -> Iterator[memoryview]:
        """The object's bytes in pieces of at most 16 MiB, the next ones on their way while one is being used."""
        yield from self._downloads.ranges(self._name(key), key)

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that begins with `prefix`, in byte order; a page of a thousand at a time."""
        if prefix:
            validate_key(prefix.removesuffix("/"))
        query: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._place + prefix}
        while True:
            page = self._control(lambda client: client.list_objects_v2(**query))
            names = (item["Key"].removeprefix(self._place) for item in page.get("Contents", ()))
            yield from filter(is_key, names)
            if not page.get("NextContinuationToken"):
                return
            query["ContinuationToken"] = page["NextContinuationToken"]

    def put(self, key: str, data: bytes) -> None:
        """Make `key` hold `data`, in one request whose digest the storage checks."""
        name = self._name(key)
        digest = digest_of(data)
        self._write(lambda client: client.put_object(Bucket=self._bucket, Key=name, Body=data, ContentMD5=digest), key)

    def put_file(self, key: str, path: Path) -> None:
        """Make `key` hold the bytes of the file at `path`: a large one in parts, which appear as one or not at all.

        Each part has the deadline and the attempts of a control request. The object's size is asked for afterwards.
        """
        name = self._name(key)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= PART_BYTES:
                self.put(key, file.read())
            else:
                self._uploads.put(name, file, size, key)
        stored = self._control(lambda client: client.head_object(Bucket=self._bucket, Key=name)["ContentLength"], key)
        if stored != size:
            raise self._error("store_unreachable", f"arrived with {stored} bytes instead of {size}", key)

    def sweep(self) -> None:
        """End uploads in parts that were begun over a day ago; nobody sees them, but they are paid for."""
        self._uploads.end_abandoned(self._place)

    def _name(self, key: str) -> str:
        return self._place + validate_key(key)

    # Control requests

    def _control(self, request: Callable[[S3Client], T], key: str | None = None) -> T:
        """What `request` returns, within the deadline and the attempts allowed."""
        return self._begin(request, self._clients.reading, self._deadlines.total_seconds, key)()

    def _write(self, request: Callable[[S3Client], T], key: str | None = None) -> T:
        """The same for a request that stores something."""
        return self._begin(request, self._clients.writing, self._deadlines.write_seconds, key)()

    def _begin_range(self, request: Callable[[S3Client], T], key: str) -> Callable[[], T]:
        """The same for a range of a large object, beside what the caller does until it asks for the result."""
        return self._begin(request, self._clients.reading, self._deadlines.range_seconds, key)

    def _begin(
        self,
        request: Callable[[S3Client], T],
        client: Callable[[S3Access], S3Client],
        seconds: float,
        key: str | None,
    ) -> Callable[[], T]:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_passing),
            stop=tenacity.stop_after_attempt(self._deadlines.attempts) | tenacity.stop_before_delay(seconds),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            before_sleep=self._clients.count_retry,
            reraise=True,
        )
        try:
            outcome = self._background.begin(lambda: retrying(lambda: request(client(self._access))), seconds)
        except TimeoutError as error:
            raise self._translated(error, key) from None

        def result() -> T:
            try:
                return outcome()
            except FAILURES as error:
                raise self._translated(error, key) from None

        return result

    def _document(self, answer: GetObjectOutputTypeDef, key: str) -> Document:
        body: StreamingBody = answer["Body"]
        try:
            if answer.get("ContentLength", MAX_DOCUMENT_BYTES + 1) > MAX_DOCUMENT_BYTES:
                raise self._error("document_unreadable", f"is of unknown size, or over {MAX_DOCUMENT_BYTES} bytes", key)
            return Document(body.read(), answer["ETag"])
        finally:
            body.close()

    # Errors

    def _translated(self, error: Exception, key: str | None) -> DatomError:
        code, words = meaning(error)
        if code == "not_found":
            return self._missing(error, key)
        return self._error(code, words, key)

    def _missing(self, error: Exception, key: str | None) -> DatomError:
        if key is None or name_of(error) == "NoSuchBucket":
            return self._error("store_unreachable", "does not exist")
        if name_of(error) != "NoSuchKey":
            # An answer to HEAD has no body to say whether the object is missing or the whole bucket.
            try:
                self._control(lambda client: client.head_bucket(Bucket=self._bucket))
            except DatomError as trouble:
                if trouble.code != "access_denied":
                    return trouble
        return self._error("not_found", "does not exist", key)

    def _error(self, code: str, what: str, key: str | None = None) -> DatomError:
        place = f'bucket "{self._bucket}"'
        return DatomError.of(code, f'object "{key}" in {place} {what}' if key else f"{place} {what}")
