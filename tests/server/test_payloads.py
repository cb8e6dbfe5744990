"""Stored objects are verified before they are opened, and kept."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.payloads import Payloads
from support.counting import CountingStore

CONTENT = b"PAR1" + bytes(range(256)) * 40
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "store" / "datom").mkdir(parents=True)
    (tmp_path / "store" / "datom" / "x").write_bytes(CONTENT)
    return tmp_path / "store"


@pytest.fixture
def store(place: Path) -> CountingStore:
    return CountingStore(LocalStore(place))


@pytest.fixture
def payloads(tmp_path: Path) -> Payloads:
    return Payloads(tmp_path / "cache", 10**9)


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def content_of(payloads: Payloads, store: CountingStore, sha: str | None = SHA, key: str = "x") -> bytes:
    with payloads.find(store, key, sha).open() as file:
        return bytes(file.read())


def test_an_object_is_fetched_once_and_served_from_the_disk(payloads: Payloads, store: CountingStore) -> None:
    assert [content_of(payloads, store) for _ in range(3)] == [CONTENT] * 3
    assert store.asked == {"chunks": 1}


def test_an_object_whose_hash_differs_is_refused_and_not_kept(
    payloads: Payloads, store: CountingStore, place: Path, tmp_path: Path
) -> None:
    (place / "datom" / "x").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DatomError) as refused:
        payloads.find(store, "x", SHA).open()
    assert refused.value.code == "integrity_mismatch"
    assert kept(tmp_path) == []


def test_what_is_kept_survives_a_restart_and_the_loss_of_the_storage(
    payloads: Payloads, store: CountingStore, place: Path, tmp_path: Path
) -> None:
    content_of(payloads, store)
    (place / "datom" / "x").unlink()
    assert content_of(Payloads(tmp_path / "cache", 10**9), store) == CONTENT


def test_a_kept_file_that_was_altered_is_fetched_again(
    payloads: Payloads, store: CountingStore, tmp_path: Path
) -> None:
    content_of(payloads, store)
    (file,) = kept(tmp_path)
    file.write_bytes(b"PAR1 something else")
    assert content_of(payloads, store) == CONTENT
    assert store.asked["chunks"] == 2


def test_a_file_that_a_crash_spoiled_is_fetched_again_after_a_restart(
    payloads: Payloads, store: CountingStore, tmp_path: Path
) -> None:
    content_of(payloads, store)
    (file,) = kept(tmp_path)
    file.write_bytes(CONTENT[:100] + b"\0" * (len(CONTENT) - 100))
    assert content_of(Payloads(tmp_path / "cache", 10**9), store) == CONTENT


def test_what_a_killed_process_left_half_written_is_removed_at_the_next_start(
    payloads: Payloads, store: CountingStore, tmp_path: Path
) -> None:
    content_of(payloads, store)
    (file,) = kept(tmp_path)
    file.with_name("left.part").write_bytes(b"half")
    Payloads(tmp_path / "cache", 10**9)
    assert kept(tmp_path) == [file]


def test_callers_at_once_cause_one_download(payloads: Payloads, store: CountingStore) -> None:
    callers = 64
    answering = threading.Event()
    store.before = lambda method, key: None if answering.wait(10) else pytest.fail("never told to answer")
    with ThreadPoolExecutor(callers) as pool:
        answers = [pool.submit(content_of, payloads, store) for _ in range(callers)]
        answering.set()
        assert {answer.result(10) for answer in answers} == {CONTENT}
    assert store.asked["chunks"] == 1


def test_the_least_recently_used_file_leaves_and_a_reader_keeps_it(
    store: CountingStore, place: Path, tmp_path: Path
) -> None:
    payloads = Payloads(tmp_path / "cache", 2 * len(CONTENT) + 100)
    others = {name: CONTENT + name.encode() for name in ("y", "z")}
    reading = payloads.find(store, "x", SHA).open()
    for name, content in others.items():
        (place / "datom" / name).write_bytes(content)
        content_of(payloads, store, hashlib.sha256(content).hexdigest(), name)
    assert len(kept(tmp_path)) == 2
    assert bytes(reading.read()) == CONTENT
    assert content_of(payloads, store) == CONTENT
    assert store.asked["chunks"] == 4


def test_an_object_larger_than_the_cache_can_still_be_read(store: CountingStore, tmp_path: Path) -> None:
    assert content_of(Payloads(tmp_path / "cache", 1), store) == CONTENT


def test_without_a_recorded_hash_a_changed_object_is_fetched_again(
    payloads: Payloads, store: CountingStore, place: Path
) -> None:
    assert content_of(payloads, store, None) == CONTENT
    assert content_of(payloads, store, None) == CONTENT
    assert store.asked["chunks"] == 1
    (place / "datom" / "fresh").write_bytes(b"other")
    (place / "datom" / "fresh").rename(place / "datom" / "x")
    assert content_of(payloads, store, None) == b"other"


def test_the_hash_of_another_projects_object_opens_nothing(
    payloads: Payloads, store: CountingStore, tmp_path: Path
) -> None:
    content_of(payloads, store)
    (tmp_path / "other" / "datom").mkdir(parents=True)
    other = LocalStore(tmp_path / "other")
    with pytest.raises(DatomError) as refused:
        payloads.find(other, "x", SHA).open()
    assert refused.value.code == "not_found"


@contextmanager
def full_disk(bytes_: int) -> Iterator[None]:
    """No file grows beyond so many bytes, as if the disk were full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, len(CONTENT) - 1])
def test_a_disk_that_takes_no_more_stops_no_read(
    payloads: Payloads, store: CountingStore, tmp_path: Path, room: int
) -> None:
    with full_disk(room):
        assert [content_of(payloads, store) for _ in range(3)] == [CONTENT] * 3
    assert store.asked == {"chunks": 1}, "it is kept in memory"
    assert kept(tmp_path) == []


def test_a_cache_directory_that_is_gone_stops_no_read(payloads: Payloads, store: CountingStore, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache")
    assert content_of(payloads, store) == CONTENT


def test_a_full_disk_hides_no_wrong_hash(payloads: Payloads, store: CountingStore, place: Path) -> None:
    (place / "datom" / "x").write_bytes(CONTENT[:-1] + b"?")
    with full_disk(100), pytest.raises(DatomError) as refused:
        payloads.find(store, "x", SHA).open()
    assert refused.value.code == "integrity_mismatch"


def test_what_neither_disk_nor_memory_can_hold_is_refused_and_says_so(store: CountingStore, tmp_path: Path) -> None:
    payloads = Payloads(tmp_path / "cache", 10**9, memory_bytes=4 * len(CONTENT) - 4)
    with full_disk(100), pytest.raises(DatomError) as refused:
        payloads.find(store, "x", SHA).open()
    assert refused.value.code == "overloaded"
    assert str(tmp_path) not in str(refused.value)
    assert content_of(payloads, store) == CONTENT, "with room on the disk again it can be read"


def test_a_file_to_link_to_needs_the_disk(payloads: Payloads, store: CountingStore, tmp_path: Path) -> None:
    with full_disk(100), pytest.raises(DatomError) as refused:
        payloads.find(store, "x", SHA).link(tmp_path / "link")
    assert refused.value.code == "overloaded"
    payloads.find(store, "x", SHA).link(tmp_path / "link")
    assert (tmp_path / "link").read_bytes() == CONTENT


def test_processes_that_share_a_cache_fetch_once_and_drop_what_none_of_them_used_lately(
    store: CountingStore, place: Path, tmp_path: Path
) -> None:
    max_bytes = 2 * len(CONTENT) + 100
    one, other = (Payloads(tmp_path / "cache", max_bytes) for _ in range(2))
    contents = {name: CONTENT + name.encode() for name in ("y", "z")}
    for name, content in contents.items():
        (place / "datom" / name).write_bytes(content)
    sha_y, sha_z = (hashlib.sha256(content).hexdigest() for content in contents.values())
    content_of(one, store)
    content_of(one, store, sha_y, "y")
    assert content_of(other, store) == CONTENT
    assert store.asked["chunks"] == 2
    content_of(other, store, sha_z, "z")
    assert sorted(path.name for path in kept(tmp_path)) == sorted([SHA, sha_z]), "y was used least recently"
    assert content_of(one, store, sha_z, "z") == contents["z"]
    assert store.asked["chunks"] == 3


def test_a_process_killed_half_way_through_a_download_leaves_nothing_that_is_served(
    store: CountingStore, place: Path, tmp_path: Path
) -> None:
    script = f"""
        import os, pathlib
        from datom_flight_server.storage.local import LocalStore
        from datom_flight_server.versions.payloads import Payloads

        class Dying(LocalStore):
            def chunks(self, key):
                for chunk in super().chunks(key):
                    yield chunk[:100]
                    os.kill(os.getpid(), 9)

        folder = pathlib.Path({str(tmp_path)!r})
        Payloads(folder / "cache", 10**9).find(Dying(folder / "store"), "x", {SHA!r}).open()
    """
    died = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=60, env=dict(os.environ)
    )
    assert died.returncode == -9
    assert [path.stat().st_size for path in kept(tmp_path)] == [100]
    payloads = Payloads(tmp_path / "cache", 10**9)
    assert kept(tmp_path) == []
    assert content_of(payloads, store) == CONTENT


def test_a_kept_file_is_hashed_again_only_when_it_looks_different(
    payloads: Payloads, store: CountingStore, tmp_path: Path
) -> None:
    content_of(payloads, store)
    (file,) = kept(tmp_path)
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert content_of(payloads, store) == CONTENT
    assert store.asked["chunks"] == 1, "what it holds is right all the same"
    file.write_bytes(CONTENT[:-1] + b"?")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content_of(payloads, store) == CONTENT
    assert store.asked["chunks"] == 2
