"""S3 that is slow, busy, cut off or gone: the right bytes, or an error with its code, in time."""

from __future__ import annotations

import http.server
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.model import S3Access
from datom_flight_server.storage.deadlines import Deadlines
from datom_flight_server.storage.s3 import S3Store
from datom_flight_server.storage.s3_clients import S3Clients
from datom_flight_server.storage.s3_downloads import RangedDownloads
from support.faulty import Fault, FaultyProxy, faulty_proxy
from support.s3 import S3Server

MIB = 1024 * 1024
BUCKET = "faults"
DOCUMENT = "dm/.metadata/metadata.json"
OBJECT = "dm/a1b2c3.parquet"
TEXT = b'{"kind": "table"}' * 100
BYTES = os.urandom(19 * MIB)
LARGE = "ex/d4e5f6.parquet"
LARGE_SIZE = 80 * MIB

QUICK = Deadlines(
    connect_seconds=1,
    read_seconds=1,
    total_seconds=6,
    range_seconds=6,
    write_silence_seconds=1,
    write_seconds=6,
    attempts=3,
)
HASTY = replace(QUICK, total_seconds=1.5, range_seconds=1.5, write_seconds=1.5)
GRACE_SECONDS = 4  # what a busy machine may add to a deadline


@pytest.fixture(scope="module")
def server(s3: S3Server) -> S3Server:
    for key, data in ((DOCUMENT, TEXT), (OBJECT, BYTES)):
        path = s3.bucket(BUCKET) / "study" / "datom" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    large = s3.bucket(BUCKET) / "study" / "datom" / LARGE
    large.parent.mkdir()
    with large.open("wb") as file:
        file.truncate(LARGE_SIZE)
    return s3


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(server.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def clients() -> S3Clients:
    return S3Clients(QUICK)


@pytest.fixture(scope="module")
def hasty_clients() -> S3Clients:
    return S3Clients(HASTY)


@pytest.fixture
def store(server: S3Server, proxy: FaultyProxy, clients: S3Clients) -> S3Store:
    return open_store(replace(server.access, endpoint=proxy.url), clients)


@pytest.fixture
def hasty_store(server: S3Server, proxy: FaultyProxy, hasty_clients: S3Clients) -> S3Store:
    """A store that does not wait for long."""
    return open_store(replace(server.access, endpoint=proxy.url), hasty_clients)


def open_store(access: S3Access, clients: S3Clients, bucket: str = BUCKET) -> S3Store:
    return S3Store(bucket, "study", access, clients)


def fetch(store: S3Store) -> bytes:
    return b"".join(store.chunks(OBJECT))


CALLS: dict[str, Callable[[S3Store], object]] = {
    "check": S3Store.check,
    "read": lambda store: store.read(DOCUMENT).data,
    "read_if_changed": lambda store: store.read_if_changed(DOCUMENT, '"old"'),
    "etag": lambda store: store.etag(DOCUMENT),
    "keys": lambda store: list(store.keys("")),
    "chunks": fetch,
    "put": lambda store: store.put("new.json", TEXT),
    "put_file": lambda store: store.put_file("new.py", Path(__file__)),
    "sweep": S3Store.sweep,
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@contextmanager
def refused(code: str, seconds: float = QUICK.total_seconds) -> Iterator[None]:
    """The block is refused with `code` within `seconds` and a grace, in words that give nothing away."""
    started = time.monotonic()
    with pytest.raises(DatomError) as caught:
        yield
    assert caught.value.code == code, caught.value
    assert time.monotonic() - started < seconds + GRACE_SECONDS
    text = caught.value.to_json().decode()
    for private in ("AKIA", "made-up", "127.0.0.1", "localhost", "http", "/tmp"):
        assert private not in text


@every_call
def test_a_storage_that_is_busy_at_first_is_asked_again(
    store: S3Store, proxy: FaultyProxy, call: Callable[[S3Store], object]
) -> None:
    well = call(store)
    proxy.inject(Fault(status=503, times=2))
    assert call(store) == well


def test_requests_that_are_sent_again_are_counted(store: S3Store, proxy: FaultyProxy, clients: S3Clients) -> None:
    before = clients.retries
    store.read(DOCUMENT)
    proxy.inject(Fault(status=503, times=2))
    store.read(DOCUMENT)
    assert clients.retries == before + 2


@every_call
@pytest.mark.parametrize("status", [500, 503])
def test_a_storage_that_keeps_failing_is_unreachable(
    store: S3Store, proxy: FaultyProxy, call: Callable[[S3Store], object], status: int
) -> None:
    proxy.inject(Fault(status=status))
    with refused("store_unreachable"):
        call(store)
    assert 1 < len(proxy.requests) <= QUICK.attempts + 1


@every_call
def test_a_storage_that_refuses_is_asked_once(
    store: S3Store, proxy: FaultyProxy, call: Callable[[S3Store], object]
) -> None:
    proxy.inject(Fault(status=403))
    with refused("access_denied"):
        call(store)
    assert len(proxy.requests) == 1


def test_a_storage_that_refuses_the_server_s_clock_is_told_so(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.inject(Fault(status=403, says=b"<Error><Code>RequestTimeTooSkewed</Code><Message>no</Message></Error>"))
    with pytest.raises(DatomError, match="clock, which is minutes off") as refusal:
        store.read(DOCUMENT)
    assert refusal.value.code == "access_denied"


@every_call
def test_a_storage_that_never_answers_times_out(
    hasty_store: S3Store, proxy: FaultyProxy, call: Callable[[S3Store], object]
) -> None:
    proxy.inject(Fault(silent_seconds=60))
    with refused("timeout", HASTY.total_seconds):
        call(hasty_store)


@every_call
def test_an_answer_that_comes_late_but_in_time_is_used(
    store: S3Store, proxy: FaultyProxy, call: Callable[[S3Store], object]
) -> None:
    well = call(store)
    proxy.inject(Fault(silent_seconds=0.4, times=3))
    assert call(store) == well


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "truncated"])
def test_a_document_cut_off_once_is_read_whole(store: S3Store, proxy: FaultyProxy, reset: bool) -> None:
    proxy.inject(Fault(on="GET", cut_after=700, reset=reset, times=1))
    assert store.read(DOCUMENT).data == TEXT
    assert len(proxy.requests) == 2


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "truncated"])
def test_a_document_always_cut_off_is_never_taken_for_whole(store: S3Store, proxy: FaultyProxy, reset: bool) -> None:
    proxy.inject(Fault(on="GET", cut_after=700, reset=reset))
    with refused("store_unreachable"):
        store.read(DOCUMENT)
    with refused("store_unreachable"):
        store.read_if_changed(DOCUMENT, '"old"')


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "truncated"])
def test_an_object_cut_off_once_arrives_whole(store: S3Store, proxy: FaultyProxy, reset: bool) -> None:
    proxy.inject(Fault(on="GET", cut_after=5 * MIB, reset=reset, times=1))
    assert fetch(store) == BYTES


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "truncated"])
def test_an_object_always_cut_off_never_ends_as_if_whole(store: S3Store, proxy: FaultyProxy, reset: bool) -> None:
    proxy.inject(Fault(on="GET", cut_after=5 * MIB, reset=reset))
    with refused("store_unreachable"):
        fetch(store)


def test_an_object_cut_off_in_a_later_piece_raises_after_the_right_bytes(store: S3Store, proxy: FaultyProxy) -> None:
    pieces = store.chunks(LARGE)
    received = len(next(pieces))
    proxy.inject(Fault(on="GET", cut_after=100))
    with refused("store_unreachable"):
        for piece in pieces:
            received += len(piece)
            assert piece == bytes(len(piece))
    assert received < LARGE_SIZE


def test_a_large_object_is_asked_for_in_few_requests(store: S3Store, proxy: FaultyProxy) -> None:
    assert sum(len(piece) for piece in store.chunks(LARGE)) == LARGE_SIZE
    assert [request.split()[0] for request in proxy.requests] == [*5 * ["GET"], "HEAD"]


def test_ranges_fetched_ahead_are_given_back(store: S3Store, clients: S3Clients) -> None:
    for _ in range(12):
        assert next(store.chunks(LARGE))
    whole = list(store.chunks(LARGE))
    assert len(whole) == 5
    free = 0
    while clients.places_ahead.acquire(blocking=False):
        free += 1
    for _ in range(free):
        clients.places_ahead.release()
    assert free == 8


def test_a_range_that_cannot_be_begun_leaves_its_place_to_others() -> None:
    def begin(request: Callable[[Any], Any], key: str) -> Callable[[], Any]:
        begun.append(key)
        if len(begun) > 1:
            raise DatomError.of("timeout", "all threads wait for the storage")
        return lambda: request(client)

    begun: list[str] = []
    said = {"ContentRange": f"bytes 0-{16 * MIB - 1}/{LARGE_SIZE}", "ContentLength": 16 * MIB, "ETag": '"same"'}
    first = {**said, "Body": io.BytesIO(bytes(16 * MIB))}
    client = SimpleNamespace(get_object=lambda **_: first)
    places = threading.BoundedSemaphore(2)
    with pytest.raises(DatomError, match="all threads wait"):
        list(RangedDownloads(BUCKET, begin, places).ranges("study/datom/" + LARGE, LARGE))
    assert places.acquire(blocking=False)
    assert places.acquire(blocking=False)


def test_a_storage_that_ignores_ranges_serves_small_objects_alone(server: S3Server, clients: S3Clients) -> None:
    with answering_everything({"ETag": '"same"'}, TEXT) as url:
        assert b"".join(open_store(replace(server.access, endpoint=url), clients).chunks(OBJECT)) == TEXT
    with answering_everything({"ETag": '"same"'}, bytes(17 * MIB)) as url:
        store = open_store(replace(server.access, endpoint=url), clients)
        with refused("store_unreachable"):
            list(store.chunks(OBJECT))


def test_altered_bytes_are_delivered_in_full_for_the_hash_to_find(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.inject(Fault(on="GET", altered_at=1000))
    received = fetch(store)
    assert len(received) == len(BYTES)
    assert received != BYTES


def test_a_document_that_trickles_times_out(hasty_store: S3Store, proxy: FaultyProxy) -> None:
    proxy.inject(Fault(on="GET", drip_seconds=0.2))
    with refused("timeout", HASTY.total_seconds):
        hasty_store.read(DOCUMENT)


def test_a_listing_that_trickles_times_out(hasty_store: S3Store, proxy: FaultyProxy) -> None:
    proxy.inject(Fault(on="GET", drip_seconds=0.2))
    with refused("timeout", HASTY.total_seconds):
        list(hasty_store.keys(""))


def test_an_object_that_trickles_times_out(hasty_store: S3Store, proxy: FaultyProxy) -> None:
    proxy.inject(Fault(on="GET", drip_seconds=0.2))
    with refused("timeout", HASTY.total_seconds):
        fetch(hasty_store)
    proxy.heal()
    assert fetch(hasty_store) == BYTES


def test_a_storage_that_comes_back_is_used_again(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.inject(Fault(status=503))
    with refused("store_unreachable"):
        store.read(DOCUMENT)
    proxy.heal()
    assert store.read(DOCUMENT).data == TEXT
    assert fetch(store) == BYTES


def test_sixty_four_readers_of_a_failing_storage_get_the_right_bytes_or_an_error(
    store: S3Store, proxy: FaultyProxy
) -> None:
    def read(number: int) -> bool:
        try:
            return store.read(DOCUMENT).data == TEXT
        except DatomError as error:
            return error.code in {"store_unreachable", "timeout"}

    proxy.inject(Fault(cut_after=100, reset=True, times=60))
    with ThreadPoolExecutor(64) as threads:
        assert all(threads.map(read, range(64)))
    assert store.read(DOCUMENT).data == TEXT


@every_call
def test_a_port_where_nobody_listens_is_unreachable(
    server: S3Server, clients: S3Clients, call: Callable[[S3Store], object]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with refused("store_unreachable"):
        call(open_store(replace(server.access, endpoint=f"http://127.0.0.1:{port}"), clients))


@every_call
def test_a_host_that_does_not_exist_is_unreachable(
    server: S3Server, clients: S3Clients, call: Callable[[S3Store], object]
) -> None:
    with refused("store_unreachable"):
        call(open_store(replace(server.access, endpoint="http://storage.invalid:9000"), clients))


@every_call
def test_a_bucket_that_does_not_exist_is_unreachable(
    server: S3Server, clients: S3Clients, call: Callable[[S3Store], object]
) -> None:
    with refused("store_unreachable"):
        call(open_store(server.access, clients, bucket="nobodys-bucket"))


@every_call
@pytest.mark.parametrize(
    "keys",
    [{"secret_key": "made-up-but-not-the-one-of-this-server"}, {"access_key": "AKIANOTKNOWNTOTHIS01"}],
    ids=["secret", "access"],
)
def test_a_wrong_key_is_denied(
    server: S3Server, clients: S3Clients, call: Callable[[S3Store], object], keys: dict[str, str]
) -> None:
    with refused("access_denied"):
        call(open_store(replace(server.access, **keys), clients))


def test_a_server_that_ignores_conditions_is_read_no_further_than_the_tag(server: S3Server, clients: S3Clients) -> None:
    with answering_everything({"ETag": '"same"'}, TEXT) as url:
        store = open_store(replace(server.access, endpoint=url), clients)
        assert store.read_if_changed(DOCUMENT, '"same"') is None
        changed = store.read_if_changed(DOCUMENT, '"other"')
    assert changed is not None
    assert changed.data == TEXT


def test_a_document_of_unknown_size_is_refused(server: S3Server, clients: S3Clients) -> None:
    with answering_everything({"ETag": '"same"', "Content-Length": ""}, TEXT) as url:
        store = open_store(replace(server.access, endpoint=url), clients)
        with refused("document_unreadable"):
            store.read(DOCUMENT)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is sent in three parts."""
    path = tmp_path_factory.mktemp("large") / "a1b2c3.parquet"
    path.write_bytes(BYTES)
    return path


@pytest.mark.parametrize("reset_at", [0, 700], ids=["at once", "mid-body"])
def test_a_document_whose_sending_is_reset_once_arrives_whole(
    store: S3Store, proxy: FaultyProxy, reset_at: int
) -> None:
    proxy.inject(Fault(on="PUT", reset_at=reset_at, times=1))
    store.put("reset.json", TEXT)
    assert store.read("reset.json").data == TEXT


def test_a_document_whose_sending_is_always_reset_leaves_the_old_one(store: S3Store, proxy: FaultyProxy) -> None:
    store.put("old.json", b"old")
    proxy.inject(Fault(on="PUT", reset_at=700))
    with refused("store_unreachable"):
        store.put("old.json", TEXT)
    assert store.read("old.json").data == b"old"


def test_a_document_whose_answer_is_lost_is_sent_again(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.inject(Fault(on="PUT", silent_seconds=2, times=1))
    store.put("again.json", TEXT)
    assert store.read("again.json").data == TEXT
    assert [request.split()[0] for request in proxy.requests] == ["PUT", "PUT", "GET"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="partNumber=2", status=503, times=2),
        Fault(on="partNumber=2", reset_at=3 * MIB, times=1),
        Fault(on="partNumber=3", cut_after=0, reset=True, times=1),
        Fault(on="?uploads", status=503, times=1),
        Fault(on="POST", status=500, times=1),
    ],
    ids=["busy", "reset", "answer lost", "busy at the start", "failing at the start"],
)
def test_a_file_sent_through_passing_faults_arrives_whole(
    store: S3Store, proxy: FaultyProxy, large: Path, fault: Fault
) -> None:
    proxy.inject(fault)
    store.put_file("dm/through-faults.parquet", large)
    assert b"".join(store.chunks("dm/through-faults.parquet")) == BYTES


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(on="partNumber=2", status=503), "store_unreachable"),
        (Fault(on="partNumber=2", reset_at=3 * MIB), "store_unreachable"),
        (Fault(on="partNumber=3", status=403), "access_denied"),
        (Fault(on="uploadId", status=503), "store_unreachable"),
        (Fault(on="?uploads", status=503), "store_unreachable"),
    ],
    ids=["busy", "reset", "denied", "all of it", "the start"],
)
def test_a_file_that_cannot_be_sent_whole_is_not_there(
    store: S3Store, proxy: FaultyProxy, large: Path, fault: Fault, code: str
) -> None:
    proxy.inject(fault)
    with refused(code, 2 * QUICK.write_seconds):
        store.put_file("dm/never-whole.parquet", large)
    proxy.heal()
    assert "dm/never-whole.parquet" not in store.keys("dm/")
    with refused("not_found"):
        store.etag("dm/never-whole.parquet")


def test_a_file_that_cannot_be_sent_whole_has_its_parts_dropped(
    store: S3Store, proxy: FaultyProxy, large: Path
) -> None:
    proxy.inject(Fault(on="partNumber=2", status=403))
    with refused("access_denied"):
        store.put_file("dm/dropped.parquet", large)
    assert proxy.requests[-1].startswith("DELETE ")
    assert "uploadId=" in proxy.requests[-1]


@contextmanager
def answering_everything(headers: Mapping[str, str], body: bytes) -> Iterator[str]:
    """The URL of a server that answers every GET alike, and HEAD likewise; an empty header is left out."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(200)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(body)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as answering:
        thread = threading.Thread(target=answering.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{answering.server_port}"
        answering.shutdown()
        thread.join()


@pytest.mark.parametrize("on", ["GET /", "PUT /"])
def test_an_answer_that_breaks_off_while_it_says_what_is_wrong_is_asked_for_again(
    store: S3Store, proxy: FaultyProxy, on: str
) -> None:
    broken = Fault(on=on, status=404, says=b"<Error><Code>NoSuchKey</Code></Error>", cut_after=10)
    calls: dict[str, Callable[[str], object]] = {"GET /": store.read, "PUT /": lambda key: store.put(key, TEXT)}
    proxy.inject(replace(broken, times=1))
    calls[on](DOCUMENT)
    proxy.inject(broken)
    with refused("store_unreachable"):
        calls[on](DOCUMENT)
