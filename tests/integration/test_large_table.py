"""A table larger than the server should hold in memory streams through it all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.flight as flight
import pyarrow.parquet as pq
import pytest

from support.server import Server, running, write_config
from support.stores import add_version, write_store

pytestmark = pytest.mark.slow

ROWS = 5_000_000
COLUMNS = 10
MAX_GROWTH_BYTES = 256 * 1024 * 1024


def large_table() -> pa.Table:
    """Five million rows of laboratory results, of values that do not compress away."""
    random = np.random.default_rng(20260115)
    codes = pa.array(["ALT", "AST", "BILI", "CREAT", "HGB"])
    return pa.table(
        {
            "USUBJID": pa.array(np.arange(ROWS) // 500, pa.int32()),
            "LBSEQ": pa.array(np.arange(ROWS), pa.int64()),
            "LBTESTCD": pa.DictionaryArray.from_arrays(pa.array(random.integers(0, 5, ROWS), pa.int8()), codes),
            "LBSTRESN": random.normal(40, 12, ROWS),
            "LBORNRLO": random.random(ROWS),
            "LBORNRHI": random.random(ROWS),
            "VISITNUM": pa.array(random.integers(1, 12, ROWS), pa.int32()),
            "LBDY": pa.array(random.integers(-28, 700, ROWS), pa.int32()),
            "LBDT": pa.array(random.integers(18_000, 21_000, ROWS), pa.int32()).cast(pa.date32()),
            "LBBLFL": random.random(ROWS) < 0.1,
        }
    )


@pytest.fixture(scope="module")
def large() -> pa.Table:
    return large_table()


@pytest.fixture(scope="module")
def server(large: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("large")
    write_store(folder / "store", {"lb": [large], "dm": [large.slice(0, 10)]}, row_group_size=500_000)
    with running(write_config(folder, {"STUDY_001": {"data": f"file://{folder / 'store'}"}})) as server:
        yield server


def test_one_stream_of_five_million_rows_takes_little_memory(server: Server, large: pa.Table) -> None:
    with server.connect("STUDY_001") as connection:
        connection.read("dm")  # what the first read loads once is not the stream's
        server.forget_peak()
        before = server.rss_bytes
        rows = 0
        total = 0
        with server.raw() as client:
            ticket = flight.Ticket(b'{"project":"STUDY_001","table":"lb"}')
            for chunk in client.do_get(ticket, server.call_options(seconds=120)):
                rows += chunk.data.num_rows
                total += pc.sum(chunk.data.column("LBSEQ")).as_py() or 0
    growth = server.peak_rss_bytes - before
    print(f"peak growth for {rows} rows x {large.num_columns} columns: {growth / 2**20:.0f} MiB")
    assert large.num_columns == COLUMNS
    assert rows == ROWS
    assert total == ROWS * (ROWS - 1) // 2
    assert growth < MAX_GROWTH_BYTES


def test_several_endpoints_in_order_are_the_file(server: Server, large: pa.Table) -> None:
    with server.raw() as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_path("STUDY_001", "lb"), server.call_options())
        assert len(info.endpoints) > 1
        assert info.ordered
        assert info.total_records == ROWS == json.loads(info.app_metadata)["rows"]
        start = 0
        for endpoint in info.endpoints:
            part = client.do_get(endpoint.ticket, server.call_options(seconds=120)).read_all()
            assert part.replace_schema_metadata(None).equals(large.slice(start, part.num_rows))
            start += part.num_rows
        assert start == ROWS


def test_filtering_five_million_rows_gives_exactly_the_right_ones(server: Server, large: pa.Table) -> None:
    with server.connect("STUDY_001") as connection:
        wanted = large.filter((pc.field("LBTESTCD") == "ALT") & (pc.field("LBSTRESN") > 70.0)).select(
            ["LBSEQ", "LBSTRESN"]
        )
        table = connection.read("lb", where="LBTESTCD = 'ALT' AND LBSTRESN > 70", columns=["LBSEQ", "LBSTRESN"])
        assert table.replace_schema_metadata(None).equals(wanted)
        assert connection.read("lb", limit=1_234_567, columns=["LBSEQ"]).num_rows == 1_234_567


def test_a_stored_version_of_one_huge_row_group_streams_too(server: Server, large: pa.Table) -> None:
    store = server.config.parent / "store"
    version = add_version(store, "lb", large, row_group_size=ROWS)
    stored = next(
        path for path in (store / "datom" / "lb").glob("*.parquet") if pq.read_metadata(path).num_row_groups == 1
    )
    assert stored.exists()
    server.forget_peak()
    before = server.rss_bytes
    rows = 0
    with server.raw() as client:
        ticket = flight.Ticket(json.dumps({"project": "STUDY_001", "table": "lb", "version": version}).encode())
        for chunk in client.do_get(ticket, server.call_options(seconds=120)):
            rows += chunk.data.num_rows
    growth = server.peak_rss_bytes - before
    print(f"peak growth, one row group: {growth / 2**20:.0f} MiB")
    assert rows == ROWS
    assert growth < MAX_GROWTH_BYTES
