"""What clients of earlier releases say, and what those releases left behind, goes on working."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.conversations import Exchange, agrees, hold, projects, read
from support.s3 import S3Server, serving_s3
from support.server import Server, running, write_config

RECORDED = Path(__file__).parents[1] / "data" / "conversations"
RELEASES = sorted(folder.name for folder in RECORDED.iterdir())
EXCHANGES = [(release, exchange) for release in RELEASES for exchange in read(RECORDED / release)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving_s3(tmp_path_factory.mktemp("earlier") / "s3") as s3:
        yield s3


@pytest.fixture(scope="module")
def server(stores: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(write_config(tmp_path_factory.mktemp("server"), projects(stores))) as server:
        yield server


@pytest.mark.parametrize(
    ("release", "exchange"),
    EXCHANGES,
    ids=[
        f"{release}-{number}-{exchange.method.rpartition('/')[2]}"
        for number, (release, exchange) in enumerate(EXCHANGES)
    ],
)
def test_what_an_earlier_release_said_is_answered_as_it_was(release: str, exchange: Exchange, server: Server) -> None:
    status, answer = hold(server.url.partition("://")[2], exchange)
    assert status == exchange.status
    assert agrees(exchange.answer, answer), (exchange.answer, answer)


@pytest.mark.parametrize("release", RELEASES)
def test_the_cache_of_an_earlier_release_is_used(release: str, tmp_path: Path) -> None:
    with serving_s3(tmp_path / "s3") as s3:
        config = write_config(tmp_path / "server", projects(s3))
        shutil.copytree(RECORDED / release / "cache", config.parent / "cache")
        for payload in (s3.bucket("store-basic") / "study-001" / "datom" / "dm").glob("*.parquet"):
            payload.unlink()
        with running(config) as server, server.connect("STUDY_001") as connection:
            findings = connection.verify("dm")
            assert [finding.ok for finding in findings] == [True] * len(findings)
            assert findings
