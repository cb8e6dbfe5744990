"""Tables are brought to the cache a few at a time, and what cannot be had stops no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from datom_flight_server.model import DataLocation, Project
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.catalog import Catalog
from datom_flight_server.versions.documents import Documents
from datom_flight_server.versions.payloads import Payloads
from datom_flight_server.versions.prefetching import Prefetched, Prefetching
from support.counting import CountingStore
from support.stores import write_store

NAMES = [f"t{number}" for number in range(12)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_store(tmp_path / "store", {name: [pa.table({"n": [number]})] for number, name in enumerate(NAMES)})
    return tmp_path / "store"


@pytest.fixture
def store(place: Path) -> CountingStore:
    return CountingStore(LocalStore(place))


@pytest.fixture
def catalog(place: Path, store: CountingStore) -> Catalog:
    project = Project("STUDY_001", DataLocation("local", str(place)))
    return Catalog(project, store, Documents(max_age_seconds=1000))


@pytest.fixture
def prefetching(tmp_path: Path) -> Prefetching:
    return Prefetching(Payloads(tmp_path / "cache", 10**9))


def test_what_is_there_is_not_fetched_again(prefetching: Prefetching, catalog: Catalog, store: CountingStore) -> None:
    first = list(prefetching.tables(catalog, NAMES))
    assert [found.table for found in first] == NAMES
    assert all(found.fetched and found.version and found.size_bytes and found.error is None for found in first)
    asked = store.requests
    again = list(prefetching.tables(catalog, NAMES))
    assert again == [
        Prefetched(found.table, found.version, found.data_sha, found.size_bytes, fetched=False) for found in first
    ]
    assert store.requests == asked


def test_one_that_cannot_be_had_says_why_and_stops_no_other(
    prefetching: Prefetching, catalog: Catalog, place: Path
) -> None:
    [spoiled] = (place / "datom" / "t1").glob("*.parquet")
    spoiled.write_bytes(b"PAR1 something else")
    [lost] = (place / "datom" / "t2").glob("*.parquet")
    lost.unlink()
    found = list(prefetching.tables(catalog, ["t0", "t1", "t2", "nope", "t3"]))
    assert [one.error and one.error.code for one in found] == [
        None,
        "integrity_mismatch",
        "not_found",
        "not_found",
        None,
    ]
    assert [one.size_bytes is None for one in found] == [False, True, True, True, False]


def test_few_are_fetched_at_a_time_whoever_asks(
    prefetching: Prefetching, catalog: Catalog, store: CountingStore
) -> None:
    lock, running, most = threading.Lock(), 0, 0
    full = threading.Event()

    def before(method: str, key: str) -> None:
        nonlocal running, most
        if method == "chunks":
            with lock:
                running += 1
                most = max(most, running)
                if running == 4:
                    full.set()
            # until as many as may run do
            full.wait(10)
            with lock:
                running -= 1

    store.before = before
    callers = [
        threading.Thread(target=lambda part=part: list(prefetching.tables(catalog, NAMES[part::2]))) for part in (0, 1)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert full.is_set()
    assert most == 4
    assert store.asked["chunks"] == len(NAMES)


def test_no_more_is_begun_than_the_caller_waits_for(prefetching: Prefetching, catalog: Catalog) -> None:
    begun: list[str] = []

    def names() -> Iterator[str]:
        for name in NAMES:
            begun.append(name)
            yield name

    found = prefetching.tables(catalog, names())
    assert next(found).table == "t0"
    assert begun == NAMES[:4]
    assert [one.table for one in found] == NAMES[1:]
