"""Large objects, sent to S3 in parts that appear as one object or not at all."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

import botocore.exceptions as aws

from datom_flight.protocol.errors import DatomError

from .s3_errors import name_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

T = TypeVar("T")

PART_BYTES = 8 * 1024 * 1024

_MAX_PARTS = 10_000  # of one object; S3's limit
_ABANDONED = timedelta(days=1)  # an upload begun longer ago is nobody's


class Control(Protocol):
    """Makes one request within its deadline and attempts; failures are `DatomError`, about `key` when it is given."""

    def __call__(self, request: Callable[[S3Client], T], key: str | None = None) -> T:
        """What `request` returns."""
        ...


class PartedUploads:
    """The uploads in parts of one bucket."""

    def __init__(self, bucket: str, control: Control) -> None:
        self._bucket = bucket
        self._control = control

    def put(self, name: str, file: BinaryIO, size: int, key: str) -> None:
        """Make the object `name` hold the `size` bytes of `file`; a part at a time is in memory.

        Raises:
            DatomError: as `Control` does, about `key`. The parts sent are dropped.
        """
        started = self._control(lambda client: client.create_multipart_upload(Bucket=self._bucket, Key=name), key)
        upload = started["UploadId"]
        try:
            parts: list[CompletedPartTypeDef] = []
            while data := file.read(max(PART_BYTES, -(-size // _MAX_PARTS))):
                parts.append(self._put_part(name, upload, len(parts) + 1, data, key))
            self._control(
                lambda client: client.complete_multipart_upload(
                    Bucket=self._bucket, Key=name, UploadId=upload, MultipartUpload={"Parts": parts}
                ),
                key,
            )
        except BaseException:
            with suppress(DatomError):
                self._end(name, upload)
            raise

    def end_abandoned(self, place: str) -> None:
        """Drop the parts of uploads to names that begin with `place`, if they were begun over a day ago."""
        query: dict[str, Any] = {"Bucket": self._bucket, "Prefix": place}
        while True:
            found = self._control(_unless_gone(lambda client: client.list_multipart_uploads(**query)))
            page: Mapping[str, Any] = found or {}
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] < datetime.now(UTC) - _ABANDONED:
                    self._end(upload["Key"], upload["UploadId"])
            if not page.get("IsTruncated"):
                return
            query.update(KeyMarker=page["NextKeyMarker"], UploadIdMarker=page["NextUploadIdMarker"])

    def _put_part(self, name: str, upload: str, number: int, data: bytes, key: str) -> CompletedPartTypeDef:
        digest = digest_of(data)
        answer = self._control(
            lambda client: client.upload_part(
                Bucket=self._bucket, Key=name, UploadId=upload, PartNumber=number, Body=data, ContentMD5=digest
            ),
            key,
        )
        return {"ETag": answer["ETag"], "PartNumber": number}

    def _end(self, name: str, upload: str) -> None:
        self._control(
            _unless_gone(lambda client: client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload))
        )


def _unless_gone(request: Callable[[S3Client], T]) -> Callable[[S3Client], T | None]:
    """`request`, giving None where the storage knows no such upload, or says so of an empty list."""

    def asked(client: S3Client) -> T | None:
        try:
            return request(client)
        except aws.ClientError as error:
            if name_of(error) == "NoSuchUpload":
                return None
            raise

    return asked


def digest_of(data: bytes) -> str:
    """What the header Content-MD5 wants: any S3 server checks it, not all know newer checksums."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
