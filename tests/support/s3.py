"""A real S3 server over a folder: ``rclone serve s3``, which checks signatures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from datom_flight_server.model import S3Access

ACCESS_KEY = "AKIAMADEUPFORTESTS01"
SECRET_KEY = "made-up-for-tests-and-of-ordinary-length"
REGION = "eu-central-1"

_STOP_SECONDS = 10
_LISTENING = re.compile(r"Starting s3 server on \[(https?://[^/\]]+)")


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server.

    Attributes:
        url: its endpoint.
        folder: what it serves; each folder in it is a bucket, each file an object, seen at once when it changes.
        keys: a folder with the files ``access_key`` and ``secret_key``, for settings that refer to files.
    """

    url: str
    folder: Path
    keys: Path

    @property
    def access(self) -> S3Access:
        """How to reach it."""
        return S3Access(region=REGION, endpoint=self.url, access_key=ACCESS_KEY, secret_key=SECRET_KEY)

    def bucket(self, name: str) -> Path:
        """The folder of the bucket `name`, made if there is none."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> None:
        """Put the files of `folder` under `prefix` of `bucket`, under their paths in `folder`."""
        shutil.copytree(folder, self.bucket(bucket) / prefix, dirs_exist_ok=True)

    def settings(self, bucket: str, prefix: str = "") -> dict[str, str]:
        """The keys of a project's settings whose data is under `prefix` of `bucket`."""
        return {
            "data": "s3://" + "/".join(part for part in (bucket, prefix) if part),
            "region": REGION,
            "endpoint": self.url,
            "access_key": f"file:{self.keys / 'access_key'}",
            "secret_key": f"file:{self.keys / 'secret_key'}",
        }


@contextmanager
def serving_s3(folder: Path, *arguments: str) -> Iterator[S3Server]:
    """An S3 server on a free port, with its buckets and keys in `folder`; it is stopped at the end.

    `arguments` go to rclone as they are.
    """
    buckets, keys = folder / "buckets", folder / "keys"
    buckets.mkdir(parents=True)
    keys.mkdir()
    (keys / "access_key").write_text(ACCESS_KEY)
    (keys / "secret_key").write_text(SECRET_KEY)
    with _rclone(folder, buckets, *arguments) as process:
        assert process.stderr is not None
        url = _endpoint(process.stderr)
        # What it says later must not fill the pipe.
        rest = threading.Thread(target=process.stderr.read)
        rest.start()
        try:
            yield S3Server(url, buckets, keys)
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)
            rest.join()


def _rclone(folder: Path, buckets: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            str(Path(sys.executable).parent / "rclone"),
            *("serve", "s3", str(buckets), "--addr", "127.0.0.1:0"),
            *("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"),
            # Folders are cached for next to no time, so files that the tests change in them are seen at once; for none
            # at all, rclone gets slower with every write.
            *("--dir-cache-time", "1ms", "--config", os.devnull, "--cache-dir", str(folder / "cache")),
            *arguments,
        ],
        env={"HOME": str(folder), "PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        text=True,
    )


def _endpoint(log: IO[str]) -> str:
    said = []
    for line in log:
        said.append(line)
        if found := _LISTENING.search(line):
            return found[1]
    raise AssertionError("rclone ended before it listened: " + "".join(said))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests; each takes buckets of its own."""
    with serving_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server
