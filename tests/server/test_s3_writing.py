"""What writers of S3 may rely on: objects that appear at once, and uploads that do not stay for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from datom_flight_server.model import S3Access
from datom_flight_server.storage.s3 import S3Store
from datom_flight_server.storage.s3_clients import S3Clients
from support.faulty import faulty_proxy
from support.s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Server

MIB = 1024 * 1024
BUCKET = "writing"


@pytest.fixture(scope="module")
def access() -> Iterator[S3Access]:
    """A server whose objects are replaced at once, as those of S3 are and rclone's are not."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = S3Access(REGION, f"http://{host}:{port}", ACCESS_KEY, SECRET_KEY)
    S3Clients().reading(access).create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    yield access
    server.stop()


@pytest.fixture
def store(access: S3Access) -> S3Store:
    return S3Store(BUCKET, "study", access)


def test_many_writers_of_one_key_leave_one_of_their_objects_and_readers_see_no_other(store: S3Store) -> None:
    texts = [bytes([65 + number]) * (5_000 * number + 10) for number in range(16)]
    store.put("m.json", texts[0])

    def write(number: int) -> bool:
        store.put("m.json", texts[number])
        return store.read("m.json").data in texts

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(write, list(range(16)) * 3))
    assert list(store.keys("")) == ["m.json"]


def test_a_large_object_replaces_one_sent_in_other_parts(store: S3Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for size in (17 * MIB, 9 * MIB + 1, 3):
        source.write_bytes(os.urandom(size))
        store.put_file("dm/a1b2c3.parquet", source)
        assert b"".join(store.chunks("dm/a1b2c3.parquet")) == source.read_bytes()


def test_every_request_that_stores_bytes_carries_their_digest(access: S3Access, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(9 * MIB))
    assert access.endpoint is not None
    with faulty_proxy(access.endpoint) as proxy:
        store = S3Store(BUCKET, "study", S3Access(REGION, proxy.url, ACCESS_KEY, SECRET_KEY))
        store.put("m.json", b"{}")
        store.put_file("dm/a1b2c3.parquet", source)
        stored = [
            headers
            for request, headers in zip(proxy.requests, proxy.headers, strict=True)
            if request.startswith("PUT ")
        ]
    assert len(stored) == 3
    assert all(headers["Content-MD5"] for headers in stored)


def test_uploads_that_nobody_finished_are_ended_a_day_later(access: S3Access, store: S3Store) -> None:
    client = S3Clients().reading(access)
    # this server dates every upload back to 2010
    for name in ("study/datom/dm/a1.parquet", "study/datom/ex/a1.parquet", "other/datom/dm/a1.parquet"):
        client.create_multipart_upload(Bucket=BUCKET, Key=name)
    store.sweep()
    left = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert [upload["Key"] for upload in left] == ["other/datom/dm/a1.parquet"]


def test_uploads_of_today_go_on(s3: S3Server) -> None:
    bucket = s3.bucket("writing-today").name
    client = S3Clients().reading(s3.access)
    upload = client.create_multipart_upload(Bucket=bucket, Key="study/datom/dm/a1.parquet")["UploadId"]
    S3Store(bucket, "study", s3.access).sweep()
    left = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [each["UploadId"] for each in left] == [upload]
