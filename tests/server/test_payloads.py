"""Stored objects are verified before they are opened, and kept."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
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
    with payloads.open(store, key, sha) as file:
        return bytes(file.read())


def test_an_object_is_fetched_once_and_served_from_the_disk(payloads: Payloads, store: CountingStore) -> None:
    assert [content_of(payloads, store) for _ in range(3)] == [CONTENT] * 3
    assert store.asked == {"chunks": 1}


def test_an_object_whose_hash_differs_is_refused_and_not_kept(
    payloads: Payloads, store: CountingStore, place: Path, tmp_path: Path
) -> None:
    (place / "datom" / "x").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DatomError) as refused:
        payloads.open(store, "x", SHA)
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
    callers = 16
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
    reading = payloads.open(store, "x", SHA)
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
        payloads.open(other, "x", SHA)
    assert refused.value.code == "not_found"
