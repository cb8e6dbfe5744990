"""Two servers and an engineer with git write to one project at once: nothing is lost, and nothing stands twice."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest

from support import engineer
from support.git import git
from support.s3 import S3Server
from support.same import assert_same
from support.server import Server, await_condition, clean_environment, running, write_config
from support.writable import TOKEN, Place, empty_place, git_over_http

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PROJECT = "STUDY_SHARED"
TABLES = ("dm", "ex", "lb", "ae", "vs")
SERVERS = 2
THREADS = 3  # for each server
WRITES_PER_THREAD = 25
WRITES_BY_GIT = 50
TESTS = Path(__file__).parent.parent

Written = tuple[str, str, pa.Table]


@pytest.fixture(params=["folder, git by path", "S3, git over http"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param.startswith("folder"):
        yield empty_place(tmp_path / "place", PROJECT)
        return
    s3: S3Server = request.getfixturevalue("s3")
    with git_over_http(tmp_path / "place") as server:
        yield empty_place(tmp_path / "place", PROJECT, s3, server.url)


@pytest.mark.timeout(900)
def test_two_servers_and_an_engineer_write_at_once(place: Place, tmp_path: Path) -> None:
    config = [write_config(tmp_path / f"server{number}", {PROJECT: place.settings}) for number in range(SERVERS)]
    with running(config[0]) as first:
        with running(config[1]) as second, ThreadPoolExecutor(SERVERS * THREADS + 1) as threads:
            began = time.monotonic()
            by_git = threads.submit(write_by_git, place, tmp_path)
            by_servers = [
                threads.submit(write_by_server, server, f"server {number}, thread {thread}", thread)
                for number, server in enumerate((first, second))
                for thread in range(THREADS)
            ]
            written = [found for writer in by_servers for found in writer.result()]
            by_servers_seconds = time.monotonic() - began
            written += by_git.result()
            seconds = time.monotonic() - began
        assert len(written) == SERVERS * THREADS * WRITES_PER_THREAD + WRITES_BY_GIT == 200
        print(f"{len(written)} writes in {seconds:.1f} s, {by_servers_seconds:.1f} s until the servers' were done")
        # a server that starts brings the storage up to git
        with running(config[1]) as second, second.connect(PROJECT) as conn:
            await_condition(lambda: all(finding.ok for finding in conn.validate()), 60, "the storage is what git says")
            for table, version, rows in written:
                assert_same(conn.read(table, version), rows)
    check_history(place, written)


def write_by_server(server: Server, writer: str, first_table: int) -> list[Written]:
    written = []
    with server.connect(PROJECT, token=server.token("developer")) as conn:
        for number in range(WRITES_PER_THREAD):
            table, rows = TABLES[(first_table + number) % len(TABLES)], engineer.content(writer, number)
            receipt = conn.write(table, rows)
            # not "full" where an attempt whose answer was lost has written it
            assert receipt.action in ("full", "none")
            written.append((table, receipt.version, rows))
    return written


def write_by_git(place: Place, folder: Path) -> list[Written]:
    remote = place.settings["repo"].replace("://", f"://x:{quote(TOKEN)}@")
    root = str(place.objects.parent)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "support.engineer"),
            *(remote, str(folder / "work"), root, "", ",".join(TABLES), str(WRITES_BY_GIT)),
        ],
        cwd=TESTS,
        env=clean_environment(folder, PYTHONPATH=str(TESTS)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(table, version, engineer.content("engineer", number)) for number, (table, version) in enumerate(lines)]


def check_history(place: Place, written: list[Written]) -> None:
    """Fail unless git and the storage hold each version once, and git in one line."""
    assert git("rev-list", "--merges", "main", cwd=place.remote) == ""
    assert len(place.commits()) == 1 + len(written)
    expected = Counter((table, version) for table, version, _ in written)
    assert set(expected.values()) == {1}
    committed, stored = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for table in TABLES:
        history = place.committed(f"{table}/version_history.json")
        committed.update((table, entry["version"]) for entry in history)
        mirrored = place.document(table, "version_history")
        stored.update((table, entry["version"]) for entry in mirrored)
        assert [{**entry, "commit_sha": None} for entry in mirrored] == [
            {**entry, "commit_sha": None} for entry in history
        ]
        for entry in mirrored:
            brought = place.committed(f"{table}/version_history.json", entry["commit_sha"])
            assert brought[0]["version"] == entry["version"]
        assert place.document(table) == place.committed(f"{table}/metadata.json")
    assert committed == stored == expected
    assert place.manifest() == place.committed(".datom/manifest.json")
    assert place.unfinished() == []
