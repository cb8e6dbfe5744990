"""What every store of objects does, whatever is behind it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.storage.base import MAX_DOCUMENT_BYTES, WritableStore
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.storage.s3 import S3Store
from datom_flight_server.storage.s3_clients import S3Clients
from support.s3 import S3Server

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """A store and what is behind it.

    Attributes:
        nowhere: a store of the same kind whose root does not exist.
        folder: where the keys are.
        uri_end: how the store's address ends.
    """

    store: WritableStore
    nowhere: WritableStore
    folder: Path
    uri_end: str

    def put(self, key: str, data: bytes) -> None:
        """Write one object, as a whole."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".fresh")
        fresh.write_bytes(data)
        fresh.rename(path)


@pytest.fixture(scope="module")
def clients() -> S3Clients:
    return S3Clients()


@pytest.fixture(params=["local", "local with prefix", "s3", "s3 with prefix"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server, clients: S3Clients) -> Place:
    prefix = "/Étude 1+%20/raw=a&b/" if "prefix" in request.param else ""
    if request.param.startswith("local"):
        root = tmp_path
        store: WritableStore = LocalStore(root, prefix)
        nowhere: WritableStore = LocalStore(tmp_path / "nowhere", prefix)
    else:
        root = s3.bucket(f"bucket-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}")
        store = S3Store(root.name, prefix, s3.access, clients)
        nowhere = S3Store("no-such-bucket", prefix, s3.access, clients)
    folder = root / prefix.strip("/") / "datom"
    folder.mkdir(parents=True)
    return Place(store, nowhere, folder, f"{root.name}/{prefix.strip('/')}".rstrip("/"))


def code_of(call: Callable[[], object]) -> str:
    """The code that `call` is refused with; checked to say nothing of the machine's paths and keys."""
    with pytest.raises(DatomError) as caught:
        call()
    text = caught.value.to_json().decode()
    for private in ("/tmp", "made-up", "AKIA", "127.0.0.1", "pytest"):
        assert private not in text
    return caught.value.code


def test_a_document_is_read_whole_with_its_tag(place: Place) -> None:
    place.put("dm/.metadata/metadata.json", b'{"kind": "table"}')
    document = place.store.read("dm/.metadata/metadata.json")
    assert document.data == b'{"kind": "table"}'
    assert document.etag == place.store.etag("dm/.metadata/metadata.json")


def test_names_with_spaces_and_parentheses_are_keys(place: Place) -> None:
    place.put("My table (v2) - final_1/a1b2c3.parquet", b"PAR1")
    assert b"".join(place.store.chunks("My table (v2) - final_1/a1b2c3.parquet")) == b"PAR1"
    assert place.store.read("My table (v2) - final_1/a1b2c3.parquet").data == b"PAR1"


def test_an_unchanged_document_is_not_sent_again(place: Place) -> None:
    place.put("m.json", b"1")
    assert place.store.read_if_changed("m.json", place.store.read("m.json").etag) is None


def test_a_changed_document_comes_with_its_new_tag(place: Place) -> None:
    place.put("m.json", b"1")
    first = place.store.read("m.json")
    place.put("m.json", b"22")
    second = place.store.read_if_changed("m.json", first.etag)
    assert second is not None
    assert second.data == b"22"
    assert second.etag != first.etag
    assert place.store.read_if_changed("m.json", second.etag) is None


def test_a_document_that_went_missing_is_not_found(place: Place) -> None:
    place.put("m.json", b"1")
    tag = place.store.etag("m.json")
    (place.folder / "m.json").unlink()
    assert code_of(lambda: place.store.read_if_changed("m.json", tag)) == "not_found"


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB + 1, 16 * MIB - 1, 16 * MIB, 16 * MIB + 1, 85 * MIB])
def test_chunks_are_the_object_in_order(place: Place, size: int) -> None:
    data = os.urandom(size)
    place.put("dm/a1b2c3.parquet", data)
    pieces = list(place.store.chunks("dm/a1b2c3.parquet"))
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= 16 * MIB for piece in pieces)


def test_an_empty_document_is_read(place: Place) -> None:
    place.put("m.json", b"")
    assert place.store.read("m.json").data == b""


def test_what_does_not_exist_is_not_found(place: Place) -> None:
    place.put("dm/a1b2c3.parquet", b"PAR1")
    for key in ("nope.json", "dm/nope.parquet", "nope/a1b2c3.parquet", "dm/a1b2c3.parquet/below", "dm"):
        assert code_of(partial(place.store.read, key)) == "not_found"
        assert code_of(partial(place.store.etag, key)) == "not_found"
        assert code_of(partial(next, place.store.chunks(key))) == "not_found"


def test_a_root_that_does_not_exist_is_unreachable(place: Place) -> None:
    store = place.nowhere
    assert code_of(store.check) == "store_unreachable"
    assert code_of(lambda: store.read("m.json")) == "store_unreachable"
    assert code_of(lambda: store.read_if_changed("m.json", "x")) == "store_unreachable"
    assert code_of(lambda: store.etag("m.json")) == "store_unreachable"
    assert code_of(lambda: list(store.chunks("m.json"))) == "store_unreachable"
    assert code_of(lambda: list(store.keys(""))) == "store_unreachable"
    assert code_of(lambda: store.put("m.json", b"1")) == "store_unreachable"
    assert code_of(lambda: store.put_file("m.json", Path(__file__))) == "store_unreachable"


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "dm/../../x", "dm/./x", "dm//x", "dm/", ".", "a\\b", "a\0b", "a\nb", "\ud800", "dm/.."],
)
def test_a_key_that_could_leave_the_place_is_refused(place: Place, key: str) -> None:
    (place.folder.parent / "x").write_bytes(b"outside")
    assert code_of(lambda: place.store.read(key)) == "invalid_address"
    assert code_of(lambda: place.store.read_if_changed(key, "x")) == "invalid_address"
    assert code_of(lambda: place.store.etag(key)) == "invalid_address"
    assert code_of(lambda: list(place.store.chunks(key))) == "invalid_address"
    assert code_of(lambda: place.store.put(key, b"1")) == "invalid_address"
    assert code_of(lambda: place.store.put_file(key, Path(__file__))) == "invalid_address"
    assert (place.folder.parent / "x").read_bytes() == b"outside"


@pytest.mark.parametrize("prefix", ["..", "../x/", "/", "dm//x", "a\0", "dm/../x"])
def test_a_prefix_of_keys_that_could_leave_the_place_is_refused(place: Place, prefix: str) -> None:
    assert code_of(lambda: list(place.store.keys(prefix))) == "invalid_address"


@pytest.mark.parametrize("prefix", ["..", "a/../..", "a//b", "a\\b"])
def test_a_place_outside_the_root_is_refused(tmp_path: Path, s3: S3Server, prefix: str) -> None:
    assert code_of(lambda: LocalStore(tmp_path, prefix)) == "invalid_address"
    assert code_of(lambda: S3Store("bucket", prefix, s3.access)) == "invalid_address"


def test_keys_are_those_under_the_prefix_in_byte_order(place: Place) -> None:
    keys = ["a b/x", "a/b", "a/b.json", "a/b/c", "ab", "a-b/x", "B", ".metadata/manifest.json", "a(1)/z", "a_/y"]
    for key in keys:
        if key != "a/b":
            place.put(key, b"1")
    listed = sorted(set(keys) - {"a/b"}, key=str.encode)
    assert list(place.store.keys("")) == listed
    for prefix in ("a", "a/", "a/b", "a/b/", "a b/", ".metadata/", "zz", "a/b/c", "nope/x"):
        assert list(place.store.keys(prefix)) == [key for key in listed if key.startswith(prefix)], prefix


def test_more_keys_than_one_page_holds_are_all_listed(place: Place) -> None:
    (place.folder / "dm").mkdir()
    for number in range(1100):
        (place.folder / "dm" / f"{number:04}").touch()
    assert list(place.store.keys("dm/")) == [f"dm/{number:04}" for number in range(1100)]


def test_an_empty_place_is_well(place: Place) -> None:
    place.store.check()
    place.folder.rmdir()
    place.store.check()
    assert list(place.store.keys("")) == []
    assert code_of(lambda: place.store.read(".metadata/manifest.json")) == "not_found"


def test_the_uri_names_the_place(place: Place) -> None:
    assert place.store.uri.startswith(("s3://", "file:///"))
    assert place.store.uri.endswith(place.uri_end)


def test_a_document_over_the_limit_is_refused_unread(place: Place) -> None:
    with (place.folder / "huge.json").open("wb") as file:
        file.truncate(MAX_DOCUMENT_BYTES + 1)
    assert code_of(lambda: place.store.read("huge.json")) == "document_unreadable"
    assert code_of(lambda: place.store.read_if_changed("huge.json", "x")) == "document_unreadable"


def test_an_object_replaced_under_way_raises(place: Place) -> None:
    place.put("dm/a1b2c3.parquet", bytes(20 * MIB))
    pieces = place.store.chunks("dm/a1b2c3.parquet")
    next(pieces)
    with (place.folder / "dm/a1b2c3.parquet").open("r+b") as file:
        file.write(b"other")
    assert code_of(lambda: list(pieces)) == "store_unreachable"


def test_an_object_replaced_under_way_is_never_given_half_old_half_new(place: Place) -> None:
    place.put("dm/a1b2c3.parquet", bytes(20 * MIB))
    pieces = place.store.chunks("dm/a1b2c3.parquet")
    first = bytes(next(pieces))
    place.put("dm/a1b2c3.parquet", b"x" * (20 * MIB))
    try:
        outcome: object = b"".join([first, *pieces])
    except DatomError as error:
        outcome = error.code
    assert outcome in ("store_unreachable", bytes(20 * MIB))


def test_an_object_that_shrinks_under_way_raises(place: Place) -> None:
    place.put("dm/a1b2c3.parquet", bytes(40 * MIB))
    pieces = place.store.chunks("dm/a1b2c3.parquet")
    next(pieces)
    os.truncate(place.folder / "dm/a1b2c3.parquet", 9 * MIB)
    assert code_of(lambda: list(pieces)) == "store_unreachable"


def test_reading_may_stop_after_any_piece(place: Place) -> None:
    place.put("dm/a1b2c3.parquet", bytes(30 * MIB))
    pieces = place.store.chunks("dm/a1b2c3.parquet")
    assert 0 < len(next(pieces)) <= 16 * MIB
    del pieces
    assert place.store.etag("dm/a1b2c3.parquet")


def test_sixty_four_threads_read_at_once(place: Place) -> None:
    objects = {f"t{number}/data.parquet": os.urandom(50_000 + number) for number in range(16)}
    for key, data in objects.items():
        place.put(key, data)
    together = threading.Barrier(64)

    def read(number: int) -> bool:
        key = f"t{number % 16}/data.parquet"
        together.wait(30)
        whole = place.store.read(key)
        return (
            whole.data == b"".join(place.store.chunks(key)) == objects[key]
            and place.store.read_if_changed(key, whole.etag) is None
        )

    with ThreadPoolExecutor(64) as threads:
        assert all(threads.map(read, range(64)))


@pytest.mark.parametrize("data", [b"", b"1", b'{"kind": "table"}' * 1000, os.urandom(3 * MIB)], ids=len)
def test_what_is_put_is_read_back(place: Place, data: bytes) -> None:
    place.store.put("My table (v2)/.metadata/metadata.json", data)
    assert place.store.read("My table (v2)/.metadata/metadata.json").data == data
    assert list(place.store.keys("")) == ["My table (v2)/.metadata/metadata.json"]


def test_a_document_put_again_is_the_new_one_with_a_new_tag(place: Place) -> None:
    place.store.put("m.json", b"a long first text")
    first = place.store.read("m.json")
    place.store.put("m.json", b"second")
    second = place.store.read_if_changed("m.json", first.etag)
    assert second is not None
    assert second.data == b"second"
    assert place.store.read_if_changed("m.json", second.etag) is None


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB + 1, 21 * MIB])
def test_a_file_that_is_put_arrives_whole(place: Place, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    for _ in range(2):
        place.store.put_file("dm/a1b2c3.parquet", source)
        assert b"".join(place.store.chunks("dm/a1b2c3.parquet")) == source.read_bytes()
    assert list(place.store.keys("")) == ["dm/a1b2c3.parquet"]


def test_nothing_but_the_objects_is_left(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(9 * MIB))
    place.store.put("dm/.metadata/metadata.json", b"{}")
    place.store.put_file("dm/a1b2c3.parquet", source)
    place.store.sweep()
    files = sorted(str(path.relative_to(place.folder)) for path in place.folder.rglob("*") if path.is_file())
    assert files == ["dm/.metadata/metadata.json", "dm/a1b2c3.parquet"] == list(place.store.keys(""))


def test_an_empty_place_is_swept(place: Place) -> None:
    place.store.sweep()
    place.folder.rmdir()
    place.store.sweep()
