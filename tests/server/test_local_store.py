"""What only a folder can be: full of links and pipes, closed to the server, or gone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.storage.local import LocalStore

NOBODY = 65534


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "datom"
    (folder / "dm").mkdir(parents=True)
    (folder / "dm" / "a1b2c3.parquet").write_bytes(b"PAR1")
    return folder


@pytest.fixture
def store(place: Path) -> LocalStore:
    return LocalStore(place.parent)


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(DatomError) as caught:
        yield
    assert caught.value.code == code, caught.value
    assert "/tmp" not in caught.value.to_json().decode()


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything; for the time of the block it is nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def assert_not_there(store: LocalStore, key: str) -> None:
    with refused("not_found"):
        store.read(key)
    with refused("not_found"):
        store.read_if_changed(key, "x")
    with refused("not_found"):
        store.etag(key)
    with refused("not_found"):
        list(store.chunks(key))
    assert key not in store.keys("")


def test_a_link_out_of_the_place_does_not_exist(place: Path, store: LocalStore) -> None:
    (place.parent / "secret").write_bytes(b"outside")
    (place / "link").symlink_to("../secret")
    (place / "absolute").symlink_to("/etc/hostname")
    (place / "folder").symlink_to("/etc")
    (place / "sibling").symlink_to(f"{place}-too")
    Path(f"{place}-too").write_bytes(b"a name that begins like the place's")
    for key in ("link", "absolute", "folder/hostname", "sibling"):
        assert_not_there(store, key)
    assert list(store.keys("folder/")) == []


def test_a_link_within_the_place_is_followed(place: Path, store: LocalStore) -> None:
    (place / "dm" / "again.parquet").symlink_to("a1b2c3.parquet")
    assert store.read("dm/again.parquet").data == b"PAR1"
    assert list(store.keys("")) == ["dm/a1b2c3.parquet", "dm/again.parquet"]


def test_links_that_lead_nowhere_do_not_exist(place: Path, store: LocalStore) -> None:
    (place / "dangling").symlink_to("nothing")
    (place / "loop").symlink_to("loop")
    for key in ("dangling", "loop"):
        assert_not_there(store, key)


def test_a_root_that_is_a_link_is_the_folder_it_leads_to(place: Path, tmp_path: Path) -> None:
    (tmp_path / "root-link").symlink_to(place.parent)
    store = LocalStore(tmp_path / "root-link")
    store.check()
    assert store.read("dm/a1b2c3.parquet").data == b"PAR1"


def test_a_pipe_is_no_object_and_holds_nobody_up(place: Path, store: LocalStore) -> None:
    os.mkfifo(place / "pipe")
    assert_not_there(store, "pipe")


def test_a_name_too_long_for_the_file_system_does_not_exist(store: LocalStore) -> None:
    assert_not_there(store, "x" * 300)


def test_names_that_are_no_keys_are_not_listed(place: Path, store: LocalStore) -> None:
    for name in (b"a\\b", b"line\nbreak", b"not \xff utf-8"):
        Path(os.fsdecode(os.fsencode(place) + b"/" + name)).write_bytes(b"")
    assert list(store.keys("")) == ["dm/a1b2c3.parquet"]


def test_a_root_that_vanishes_is_unreachable(place: Path, store: LocalStore) -> None:
    store.check()
    tag = store.etag("dm/a1b2c3.parquet")
    shutil.rmtree(place.parent)
    with refused("store_unreachable"):
        store.read_if_changed("dm/a1b2c3.parquet", tag)
    with refused("store_unreachable"):
        store.check()


def test_a_root_that_is_a_file_is_unreachable(place: Path) -> None:
    store = LocalStore(place / "dm" / "a1b2c3.parquet")
    with refused("store_unreachable"):
        store.check()
    with refused("store_unreachable"):
        store.read("m.json")


def test_what_the_server_may_not_read_is_denied(place: Path, store: LocalStore) -> None:
    (place / "dm" / "a1b2c3.parquet").chmod(0)
    with without_privileges():
        with refused("access_denied"):
            store.read("dm/a1b2c3.parquet")
        with refused("access_denied"):
            list(store.chunks("dm/a1b2c3.parquet"))


@pytest.mark.parametrize("closed", ["root", "place"])
def test_a_folder_the_server_may_not_list_is_denied(place: Path, store: LocalStore, closed: str) -> None:
    folder = place.parent if closed == "root" else place
    folder.chmod(0)
    try:
        with without_privileges():
            with refused("access_denied"):
                store.check()
            with refused("access_denied"):
                list(store.keys(""))
            with refused("access_denied"):
                store.read("dm/a1b2c3.parquet")
    finally:
        folder.chmod(0o755)


def test_a_document_rewritten_in_place_has_a_new_tag(place: Path, store: LocalStore) -> None:
    first = store.read("dm/a1b2c3.parquet")
    with (place / "dm" / "a1b2c3.parquet").open("ab") as file:
        file.write(b"more")
    second = store.read_if_changed("dm/a1b2c3.parquet", first.etag)
    assert second is not None
    assert second.data == b"PAR1more"


def test_a_folder_is_no_object_and_leaves_nothing_open(store: LocalStore) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(5):
        assert_not_there(store, "dm")
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after == before
