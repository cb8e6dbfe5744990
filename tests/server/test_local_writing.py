"""What only a folder can do to a writer: end it half-way, fill up, lead elsewhere, or refuse."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.storage.local import LocalStore

NOBODY = 65534
KEY = "dm/a1b2c3.parquet"

# Puts a pipe's bytes, which never end: the writer hangs with half of the object written.
HANGING_WRITER = """
import sys
from pathlib import Path
from datom_flight_server.storage.local import LocalStore
LocalStore(sys.argv[1]).put_file(sys.argv[2], Path("/dev/stdin"))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "datom"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def store(place: Path) -> LocalStore:
    return LocalStore(place.parent)


@contextmanager
def refused(code: str, says: str = "") -> Iterator[None]:
    with pytest.raises(DatomError) as caught:
        yield
    assert caught.value.code == code, caught.value
    assert says in caught.value.message
    assert "/tmp" not in caught.value.to_json().decode()


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write everything; for the time of the block it is nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def half_written(place: Path, key: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that has begun to write `key`; it is killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", HANGING_WRITER, str(place.parent), key], stdin=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdin is not None
            # more than a pipe holds: when it is taken, the writer is at work
            writer.stdin.write(bytes(9 * 1024 * 1024))
            writer.stdin.flush()
            yield writer
        finally:
            writer.send_signal(signal.SIGKILL)


def files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def test_an_object_being_written_is_not_there_yet(place: Path, store: LocalStore) -> None:
    with half_written(place, KEY):
        assert len(files(place)) == 1
        assert list(store.keys("")) == list(store.keys("dm/")) == list(store.keys("dm/.w")) == []
        with refused("not_found"):
            store.read(KEY)


def test_what_a_living_writer_writes_is_not_swept(place: Path, store: LocalStore) -> None:
    with half_written(place, KEY) as writer:
        store.sweep()
        assert len(files(place)) == 1
        writer.communicate(timeout=30)
    assert files(place) == [KEY]
    assert len(store.read(KEY).data) == 9 * 1024 * 1024


def test_what_a_killed_writer_left_is_swept_at_once(place: Path, store: LocalStore) -> None:
    store.put(KEY, b"old")
    with half_written(place, KEY):
        pass
    assert len(files(place)) == 2
    assert list(store.keys("")) == [KEY]
    store.sweep()
    assert files(place) == [KEY]
    assert store.read(KEY).data == b"old"


def test_sweeping_while_writing_takes_nothing_away(place: Path, store: LocalStore) -> None:
    done = threading.Event()

    def sweep() -> None:
        while not done.is_set():
            store.sweep()

    sweeping = threading.Thread(target=sweep)
    sweeping.start()
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda number: store.put(f"t{number % 7}/m.json", b"%d" % number), range(200)))
    finally:
        done.set()
        sweeping.join()
    assert files(place) == [f"t{number}/m.json" for number in range(7)]


def test_many_writers_of_one_key_leave_one_of_their_objects_and_readers_see_no_other(
    place: Path, store: LocalStore
) -> None:
    texts = [bytes([65 + number]) * (50_000 * number + 10) for number in range(16)]
    store.put("m.json", texts[0])

    def write(number: int) -> bool:
        store.put("m.json", texts[number])
        return store.read("m.json").data in texts

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(write, list(range(16)) * 3))
    assert files(place) == ["m.json"]


@pytest.mark.parametrize("large", [True, False])
def test_a_full_disk_is_told_and_leaves_the_old_object_and_nothing_else(
    place: Path, store: LocalStore, tmp_path: Path, large: bool
) -> None:
    store.put(KEY, b"old")
    source = tmp_path / "source"
    source.write_bytes(bytes(100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with refused("unavailable", "the disk is full"):
            store.put_file(KEY, source) if large else store.put(KEY, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(place) == [KEY]
    assert store.read(KEY).data == b"old"


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "not-mounted", "study")
    with refused("store_unreachable", "does not exist"):
        store.put(KEY, b"1")
    assert not (tmp_path / "not-mounted").exists()


def test_folders_that_may_not_be_written_are_denied(place: Path, store: LocalStore) -> None:
    (place / "dm").mkdir()
    with without_privileges():
        with refused("access_denied", "may not be written"):
            store.put(KEY, b"1")
        with refused("access_denied", "may not be written"):
            store.put("ex/a1b2c3.parquet", b"1")
    assert files(place) == []


def test_nothing_is_written_through_a_link_out_of_the_place(place: Path, store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (place / "dm").symlink_to(tmp_path / "elsewhere")
    for key in (KEY, "dm/deeper/a1b2c3.parquet"):
        with refused("access_denied", "link out of the store"):
            store.put(key, b"1")
    assert files(tmp_path / "elsewhere") == []
    assert not (tmp_path / "elsewhere" / "deeper").exists()


def test_an_object_takes_the_place_of_a_link_not_of_what_it_leads_to(
    place: Path, store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"outside")
    (place / "m.json").symlink_to(tmp_path / "secret")
    store.put("m.json", b"1")
    assert (tmp_path / "secret").read_bytes() == b"outside"
    assert store.read("m.json").data == b"1"


@pytest.mark.parametrize("key", ["dm", "dm/a1b2c3.parquet/below"])
def test_a_key_where_something_else_is_in_the_way_is_refused(place: Path, store: LocalStore, key: str) -> None:
    store.put(KEY, b"1")
    with refused("store_unreachable", "cannot be written"):
        store.put(key, b"2")
    assert files(place) == [KEY]


def test_a_key_named_like_an_unfinished_file_is_refused(place: Path, store: LocalStore) -> None:
    with refused("invalid_address"):
        store.put("dm/.writing-0", b"1")
    assert files(place) == []


def test_what_others_may_read_is_what_the_umask_allows(place: Path, store: LocalStore) -> None:
    before = os.umask(0o027)
    try:
        store.put(KEY, b"1")
    finally:
        os.umask(before)
    assert (place / KEY).stat().st_mode & 0o777 == 0o640
    assert (place / "dm").stat().st_mode & 0o777 == 0o750


def test_links_and_pipes_named_like_unfinished_files_hold_no_sweep_up(
    place: Path, store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"outside")
    (place / ".writing-link").symlink_to(tmp_path / "secret")
    os.mkfifo(place / ".writing-pipe")
    store.sweep()
    assert (tmp_path / "secret").exists()


def test_a_root_that_vanishes_is_swept_no_further(place: Path, store: LocalStore) -> None:
    shutil.rmtree(place.parent)
    store.sweep()
