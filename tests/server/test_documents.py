"""Control documents are kept, and asked for again when they may have changed."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.metadata import layout
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.documents import PARSED_SIZE_FACTOR, Documents
from support.counting import CountingStore
from support.stores import write_store


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "datom").mkdir()
    return tmp_path


@pytest.fixture
def store(place: Path) -> CountingStore:
    return CountingStore(LocalStore(place))


def text(data: bytes, key: str) -> str:
    return data.decode()


def write(place: Path, content: str) -> None:
    fresh = place / "fresh"
    fresh.write_text(content)
    fresh.rename(place / "datom" / "doc")


def test_a_document_is_answered_from_memory_until_its_age_is_reached(place: Path, store: CountingStore) -> None:
    clock = Clock()
    documents = Documents(max_age_seconds=1, clock=clock)
    write(place, "one")
    assert documents.get(store, "doc", text) == "one"
    write(place, "two")
    clock.now = 1
    assert documents.get(store, "doc", text) == "one"
    clock.now = 1.1
    assert documents.get(store, "doc", text) == "two"
    assert store.asked == {"read": 1, "read_if_changed": 1}


def test_an_unchanged_document_is_not_parsed_again(place: Path, store: CountingStore) -> None:
    clock = Clock()
    documents = Documents(max_age_seconds=1, clock=clock)
    parsed = []

    def parse(data: bytes, key: str) -> str:
        parsed.append(key)
        return data.decode()

    write(place, "one")
    for clock.now in (0, 2, 4):
        assert documents.get(store, "doc", parse) == "one"
    assert parsed == ["doc"]


def test_the_newest_form_can_be_had_whatever_is_kept(place: Path, store: CountingStore) -> None:
    documents = Documents(max_age_seconds=1000)
    write(place, "one")
    documents.get(store, "doc", text)
    write(place, "two")
    assert documents.newest(store, "doc", text) == "two"
    assert documents.get(store, "doc", text) == "two"


def test_many_callers_at_once_make_one_request(place: Path, store: CountingStore) -> None:
    documents = Documents(max_age_seconds=1000)
    write(place, "one")
    callers = 16
    answering = threading.Event()
    store.before = lambda method, key: None if answering.wait(10) else pytest.fail("never told to answer")
    with ThreadPoolExecutor(callers) as pool:
        answers = [pool.submit(documents.get, store, "doc", text) for _ in range(callers)]
        answering.set()
        assert {answer.result(10) for answer in answers} == {"one"}
    assert store.requests == 1


def test_a_failure_is_heard_by_all_who_wait_and_is_not_kept(place: Path, store: CountingStore) -> None:
    documents = Documents(max_age_seconds=1000)
    with pytest.raises(DatomError) as refused:
        documents.get(store, "doc", text)
    assert refused.value.code == "not_found"
    write(place, "one")
    assert documents.get(store, "doc", text) == "one"


def test_a_document_is_reckoned_at_no_less_than_it_takes(place: Path) -> None:
    tables = {f"t{number}": [pa.table({"x": [number, version]}) for version in range(3)] for number in range(20)}
    write_store(place, tables)
    store = LocalStore(place)
    parsers: list[tuple[str, Callable[[bytes, str], object]]] = [
        (layout.MANIFEST_KEY, layout.parse_manifest),
        (layout.history_key("t0"), layout.parse_history),
        (layout.metadata_key("t0"), layout.parse_metadata),
    ]
    for key, parse in parsers:
        document = store.read(key)
        parse(document.data, key)
        tracemalloc.start()
        try:
            parsed = parse(document.data, key)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert parsed
        assert taken <= PARSED_SIZE_FACTOR * len(document.data)


def test_one_too_large_for_all_that_may_be_kept_drives_nothing_out(place: Path, store: CountingStore) -> None:
    documents = Documents(max_age_seconds=1000, max_bytes=6 * 25)
    (place / "datom" / "small").write_text("0123456789")
    (place / "datom" / "large").write_text("0123456789" * 3)
    for name in ("small", "large", "small", "large"):
        documents.get(store, name, text)
    assert store.asked["read"] == 3


def test_the_least_recently_used_documents_leave_when_there_is_no_room(place: Path, store: CountingStore) -> None:
    documents = Documents(max_age_seconds=1000, max_bytes=6 * 25)
    for name in ("a", "b", "c"):
        (place / "datom" / name).write_text("0123456789")
    documents.get(store, "a", text)
    documents.get(store, "b", text)
    documents.get(store, "a", text)
    documents.get(store, "c", text)
    assert store.asked["read"] == 3
    documents.get(store, "a", text)
    assert store.asked["read"] == 3
    documents.get(store, "b", text)
    assert store.asked["read"] == 4
