"""What nobody has read yet is fetched from S3 once, whoever asks for it at the same time."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from support.faulty import faulty_proxy
from support.s3 import S3Server
from support.server import running, write_config
from support.stores import write_store

CLIENTS = 64
ROWS = 200_000


@pytest.fixture(scope="module")
def large() -> pa.Table:
    return pa.table(
        {"n": range(ROWS), "text": [f"{n * 7919 % 1_000_003} of no value that compresses" for n in range(ROWS)]}
    )


def test_64_clients_of_a_cold_table_cause_one_download(large: pa.Table, s3: S3Server, tmp_path: Path) -> None:
    versions = write_store(tmp_path / "store", {"lb": [large]}, row_group_size=20_000)
    s3.upload(tmp_path / "store", "cold")
    with faulty_proxy(s3.url) as proxy:
        project = {**s3.settings("cold"), "endpoint": proxy.url}
        with running(write_config(tmp_path / "server", {"STUDY_001": project})) as server:
            token = server.token()

            def read(_: int) -> bool:
                with server.connect("STUDY_001", token=token) as connection:
                    return bool(connection.read("lb", versions["lb"][0]).replace_schema_metadata(None).equals(large))

            with ThreadPoolExecutor(CLIENTS) as clients:
                assert all(clients.map(read, range(CLIENTS)))
            assert server.alive
        fetched = Counter(
            headers["Range"]
            for request, headers in zip(proxy.requests, proxy.headers, strict=True)
            if request.startswith("GET") and ".parquet" in request
        )
    assert sum(fetched.values()) == len(fetched) > 0, "no byte of it was asked for twice"
