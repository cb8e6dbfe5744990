"""Rows are compressed on the wire for those who ask for it, and are the same rows."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.flight as fl
import pytest

import datom_flight
from datom_flight import DatomError
from datom_flight.protocol.messages import ReadRequest
from support.adbc import adbc
from support.relay import relaying
from support.server import Server, running, write_config
from support.stores import write_store

ROWS = 50_000
CODECS = pytest.mark.parametrize("codec", ["lz4", "zstd"])
QUERY = "SELECT SEX, SEQ * 2 AS TWICE, USUBJID FROM lb WHERE SEQ % 2 = 0"

LB = pa.table(
    {
        "SEQ": pa.array(range(ROWS), pa.int64()),
        "USUBJID": [f"STUDY-{row // 100:06d}" for row in range(ROWS)],
        "SEX": pa.array(["F", "M", None, "M"] * (ROWS // 4)).dictionary_encode(),
        "AVAL": [None if row % 7 == 0 else row / 8 for row in range(ROWS)],
    }
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("compression")
    write_store(folder / "store", {"lb": [LB], "none": [LB.slice(0, 0)]}, row_group_size=10_000)
    with running(write_config(folder, {"STUDY_001": {"data": f"file://{folder / 'store'}"}})) as server:
        yield server


def fetched(server: Server, codec: str | None, query: str | None = None) -> tuple[pa.Table, int]:
    """All rows of the table, or of a query, and the bytes that came from the server for them."""
    with (
        relaying(server.url) as relay,
        datom_flight.connect(relay.url, "STUDY_001", token=server.token(), compression=codec) as connection,
    ):
        before = relay.received
        table = connection.read("lb") if query is None else connection.sql(query)
        return table, relay.received - before


@CODECS
@pytest.mark.parametrize("query", [None, QUERY], ids=["read", "computed"])
def test_compressed_rows_are_fewer_bytes_and_equal(server: Server, codec: str, query: str | None) -> None:
    plain, plain_bytes = fetched(server, None, query)
    table, bytes_ = fetched(server, codec, query)
    assert table.equals(plain, check_metadata=True)
    table.validate(full=True)
    assert bytes_ < plain_bytes / 2


@CODECS
def test_a_table_without_rows_can_be_asked_for_compressed(server: Server, codec: str) -> None:
    with server.connect("STUDY_001", compression=codec) as connection:
        assert connection.read("none").equals(LB.slice(0, 0))


@CODECS
def test_a_compressed_scan_is_checked_to_its_end_like_any_other(server: Server, codec: str) -> None:
    with server.connect("STUDY_001", compression=codec) as connection:
        assert pa.Table.from_batches(connection.scan("lb")).num_rows == ROWS


@CODECS
def test_the_stock_driver_takes_compressed_rows(server: Server, codec: str) -> None:
    with (
        adbc(server, headers={"x-datom-compression": codec, "x-datom-project": "STUDY_001"}) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT SEQ, AVAL FROM lb")
        assert cursor.fetch_arrow_table().equals(LB.select(["SEQ", "AVAL"]))


def test_the_connections_own_driver_asks_for_what_the_connection_does(server: Server) -> None:
    received = {}
    for codec in (None, "zstd"):
        with (
            relaying(server.url) as relay,
            datom_flight.connect(relay.url, "STUDY_001", token=server.token(), compression=codec) as connection,
            connection.adbc() as driver,
            driver.cursor() as cursor,
        ):
            cursor.execute("SELECT * FROM lb")
            assert cursor.fetch_arrow_table().num_rows == ROWS
            received[codec] = relay.received
    assert received["zstd"] < received[None] / 2


def test_an_unknown_codec_is_refused_when_connecting(server: Server) -> None:
    with pytest.raises(DatomError) as caught:
        server.connect("STUDY_001", compression="gzip")
    assert caught.value.code == "invalid_argument"
    assert 'compression "gzip" is not one of lz4, zstd' in caught.value.message


def test_an_unknown_codec_on_the_wire_is_refused_before_the_first_row(server: Server) -> None:
    ticket = fl.Ticket(ReadRequest("STUDY_001", "lb").to_json())
    headers = [(b"authorization", f"Bearer {server.token()}".encode()), (b"x-datom-compression", b"gzip")]
    with server.raw() as client, pytest.raises(fl.FlightServerError) as caught:
        client.do_get(ticket, fl.FlightCallOptions(timeout=30, headers=headers)).read_all()
    error = DatomError.from_json(caught.value.extra_info)
    assert error is not None
    assert error.code == "invalid_argument"
