"""Two servers over the same storage share the work, and either goes on where the other is gone."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import datom_flight
from datom_flight import Connection
from datom_flight.protocol.messages import ReadRequest
from datom_flight.protocol.queries import SqlRequest
from support.adbc import adbc
from support.relay import Relay
from support.server import Server, await_condition, write_config
from support.stores import add_version, write_store
from support.tls import write_certificate

ROWS = 4_000_000
PARTS = 4
REUSE = "arrow-flight-reuse-connection://?"
MIB = 1024 * 1024

QUERY = "SELECT NOTE, sum(SEQ) AS TOTAL FROM lb GROUP BY NOTE ORDER BY NOTE"


class Pair:
    """Two servers of one configuration, each behind a relay, which is where clients reach it.

    Attributes:
        servers, relays: in the same order.
    """

    def __init__(self, folder: Path, store: Path, scheme: str = "grpc", **keys: object) -> None:
        ports = [_free_port() for _ in range(2)]
        self.relays = [Relay(f"{scheme}://127.0.0.1:{port}") for port in ports]
        self.servers: list[Server] = []
        self._tls_root_certs: bytes | None = None
        if scheme == "grpc+tls":
            certificate, key = write_certificate(folder)
            self._tls_root_certs = certificate.read_bytes()
            keys |= {"certificate": str(certificate), "key": str(key)}
        for number, port in enumerate(ports):
            listen = {"listen": f"{scheme}://127.0.0.1:{port}", "replicas": self.urls, **keys}
            project = {"data": f"file://{store}"}
            config = write_config(folder / str(number), {"STUDY_001": project}, server=listen)
            self.servers.append(Server(config, tls_root_certs=self._tls_root_certs))

    @property
    def urls(self) -> list[str]:
        """Where clients reach them."""
        return [relay.url for relay in self.relays]

    def connect(self, number: int = 0, **options: object) -> Connection:
        """A reader's connection to one of them, with a token that the other made."""
        token = self.servers[1 - number].token()
        options.setdefault("tls_root_certs", self._tls_root_certs)
        return datom_flight.connect(self.urls[number], "STUDY_001", token=token, **options)  # type: ignore[arg-type]

    def kill(self, number: int) -> None:
        """End one of them without a word to anybody."""
        os.kill(self.servers[number].pid, signal.SIGKILL)
        self.servers[number].ended()

    def close(self) -> None:
        """End both."""
        for relay in self.relays:
            relay.close()
        for server in self.servers:
            if server.alive:
                server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pair_of(folder: Path, store: Path, scheme: str = "grpc", **keys: object) -> Iterator[Pair]:
    with ExitStack() as ending:
        pair = Pair(folder, store, scheme, **keys)
        ending.callback(pair.close)
        yield pair


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a table in four parts, of 70 MiB each on the wire and next to nothing on the disk."""
    folder = tmp_path_factory.mktemp("store")
    seq = np.arange(ROWS, dtype=np.int32)
    notes = pa.array([f"{number} of ten notes, none of which says anything to anybody" for number in range(10)])
    lb = pa.table({"SEQ": seq, "NOTE": notes.take(pa.array(seq % 10))})
    write_store(folder, {"lb": [lb], "dm": [lb.slice(0, 10), lb.slice(0, 20)]}, row_group_size=500_000)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Pair]:
    """Two servers that stay."""
    with pair_of(tmp_path_factory.mktemp("pair"), store) as pair:
        yield pair


@pytest.fixture
def mortal(tmp_path: Path, store: Path) -> Iterator[Pair]:
    """Two servers that need not stay."""
    with pair_of(tmp_path, store) as pair:
        yield pair


def is_whole(table: pa.Table) -> bool:
    """Whether every row is there, once and in its place."""
    return bool(np.array_equal(table["SEQ"].to_numpy(), np.arange(ROWS)))


def info_of(pair: Pair, number: int, table: str = "lb") -> fl.FlightInfo:
    with pair.servers[number].raw() as client:
        descriptor = fl.FlightDescriptor.for_path("STUDY_001", table)
        return client.get_flight_info(descriptor, pair.servers[number].call_options())


def locations(info: fl.FlightInfo) -> list[list[str]]:
    return [[location.uri.decode() for location in endpoint.locations] for endpoint in info.endpoints]


def streamed(client: fl.FlightClient, ticket: fl.Ticket, options: fl.FlightCallOptions) -> pa.Table:
    return client.do_get(ticket, options).read_all()


READS: list[Callable[[Connection], pa.Table]] = [
    lambda connection: connection.read("lb"),
    lambda connection: connection.scan("lb").read_all(),
]


def test_both_servers_name_the_same_replicas_for_each_part(pair: Pair) -> None:
    places = locations(info_of(pair, 0))
    assert places == locations(info_of(pair, 1))
    assert len(places) == PARTS
    assert [each[-1] for each in places] == [REUSE] * PARTS
    assert all(sorted(each[:-1]) == sorted(pair.urls) for each in places)
    assert sorted(each[0] for each in places) == sorted(pair.urls * (PARTS // 2))


def test_a_small_table_stays_with_the_connection_it_was_asked_for_on(pair: Pair) -> None:
    assert locations(info_of(pair, 0, "dm")) == [[]]


@pytest.mark.parametrize("read", READS, ids=["read", "scan"])
def test_each_server_sends_its_share(pair: Pair, read: Callable[[Connection], pa.Table]) -> None:
    before = [relay.received for relay in pair.relays]
    with pair.connect(0) as connection:
        assert is_whole(read(connection))
    first, second = (relay.received - bytes_ for relay, bytes_ in zip(pair.relays, before, strict=True))
    assert 0.9 < first / second < 1.1


def test_the_stock_driver_fetches_from_both_servers(pair: Pair) -> None:
    before = [relay.received for relay in pair.relays]
    server = pair.servers[0]
    with adbc(server, headers={"x-datom-project": "STUDY_001"}) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM lb")
        assert is_whole(cursor.fetch_arrow_table())
    # The driver itself is connected to the server and not to its relay.
    assert all(relay.received - bytes_ > 100 * MIB for relay, bytes_ in zip(pair.relays, before, strict=True))


def test_a_ticket_of_one_server_gives_the_same_rows_at_the_other(pair: Pair) -> None:
    for endpoint in info_of(pair, 0).endpoints[:1]:
        tables = []
        for number in (0, 1):
            with pair.servers[number].raw() as client:
                tables.append(streamed(client, endpoint.ticket, pair.servers[1 - number].call_options()))
        assert tables[0].equals(tables[1], check_metadata=True)
        assert tables[0].num_rows == ROWS // PARTS


def test_a_query_planned_by_one_server_is_run_by_the_other(pair: Pair) -> None:
    descriptor = fl.FlightDescriptor.for_command(SqlRequest(QUERY, "STUDY_001").to_json())
    planning, running = pair.servers
    with planning.raw() as client:
        info = client.get_flight_info(descriptor, planning.call_options())
    (endpoint,) = info.endpoints
    with running.raw() as client:
        table = streamed(client, endpoint.ticket, planning.call_options())
    assert table["TOTAL"].to_pylist() == [sum(range(first, ROWS, 10)) for first in range(10)]


def test_the_parts_of_a_table_run_in_parallel_on_one_server(pair: Pair) -> None:
    options = pair.servers[0].call_options()
    with pair.servers[0].raw() as client:
        info = client.get_flight_info(fl.FlightDescriptor.for_path("STUDY_001", "lb"), options)
        readers = [client.do_get(endpoint.ticket, options) for endpoint in info.endpoints]
        # Each has begun before any has ended, and the last one ends while those before it wait for their reader.
        begun = [reader.read_chunk().data for reader in readers]
        rest = [reader.read_all() for reader in reversed(readers)][::-1]
    tables = [
        pa.concat_tables([pa.Table.from_batches([batch]), table]) for batch, table in zip(begun, rest, strict=True)
    ]
    assert is_whole(pa.concat_tables(tables))


def test_a_connection_that_is_reset_in_mid_read_costs_no_row(pair: Pair) -> None:
    before = sum(relay.received for relay in pair.relays)
    with pair.connect(0) as connection:
        scan = connection.scan("lb")
        first = scan.read_next_batch()
        for relay in pair.relays:
            relay.reset()
        assert sum(relay.received for relay in pair.relays) - before < 250 * MIB, "not all rows had come"
        assert is_whole(pa.Table.from_batches([first, *scan]))


@pytest.mark.parametrize(
    ("read", "killed"), [(READS[0], 0), (READS[1], 1)], ids=["read, the connection's own", "scan, the other"]
)
def test_a_server_that_is_killed_in_mid_read_costs_no_row(
    mortal: Pair, read: Callable[[Connection], pa.Table], killed: int
) -> None:
    with mortal.connect(0) as connection, ThreadPoolExecutor(1) as pool:
        before = mortal.relays[killed].received
        table = pool.submit(read, connection)
        await_condition(lambda: mortal.relays[killed].received - before > 20 * MIB, 60, "rows are on their way")
        mortal.kill(killed)
        assert is_whole(table.result())
        assert mortal.relays[killed].received - before < 140 * MIB, "it was killed before it had sent its share"


def test_a_server_that_stops_in_mid_read_costs_no_row_and_the_stock_driver_goes_on_without_it(mortal: Pair) -> None:
    with mortal.connect(0) as connection:
        scan = connection.scan("lb")
        first = scan.read_next_batch()
        mortal.servers[1].stop()
        assert is_whole(pa.Table.from_batches([first, *scan]))
    with adbc(mortal.servers[0], headers={"x-datom-project": "STUDY_001"}) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM lb")
        assert is_whole(cursor.fetch_arrow_table())


def test_a_version_that_one_server_knows_is_known_to_the_other_at_once(tmp_path: Path) -> None:
    table = pa.table({"SEQ": range(10)})
    write_store(tmp_path / "store", {"dm": [table.slice(0, 5)]})
    with pair_of(tmp_path, tmp_path / "store", metadata_max_age_seconds=3600) as pair:
        with pair.connect(1) as connection:
            assert connection.read("dm").num_rows == 5
        version = add_version(tmp_path / "store", "dm", table)
        with pair.connect(0) as connection:
            assert connection.read("dm").schema.metadata[b"datom.version"].decode() == version
        ticket = fl.Ticket(ReadRequest("STUDY_001", "dm", version).to_json())
        with pair.servers[1].raw() as client:
            assert streamed(client, ticket, pair.servers[0].call_options()).num_rows == 10


def test_replicas_are_reached_by_tls(tmp_path: Path, store: Path) -> None:
    with pair_of(tmp_path, store, "grpc+tls") as pair, pair.connect(0) as connection:
        assert is_whole(connection.read("lb"))
        assert all(relay.received > 100 * MIB for relay in pair.relays)


def test_a_name_stands_for_the_replicas_it_resolves_to(tmp_path: Path, store: Path) -> None:
    port = _free_port()
    listen = {"listen": f"grpc://127.0.0.1:{port}", "replicas": [f"dns:///localhost:{port}"]}
    config = write_config(tmp_path, {"STUDY_001": {"data": f"file://{store}"}}, server=listen)
    server = Server(config)
    try:
        options = server.call_options()
        with server.raw() as client:
            descriptor = fl.FlightDescriptor.for_path("STUDY_001", "lb")
            url = f"grpc://127.0.0.1:{port}"
            await_condition(
                lambda: url in locations(client.get_flight_info(descriptor, options))[0], 10, "the name is looked up"
            )
        with server.connect("STUDY_001") as connection:
            assert is_whole(connection.read("lb"))
    finally:
        server.stop()
