"""A table larger than the server should hold in memory streams through it all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.flight as flight
import pytest

from support.s3 import S3Server
from support.server import Server, running, write_config
from support.stores import write_store

pytestmark = pytest.mark.slow

ROWS = 5_000_000
COLUMNS = 10
MEMORY_BYTES = 64 * 1024 * 1024
MAX_GROWTH_BYTES = MEMORY_BYTES + 192 * 1024 * 1024


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
def store(large: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    small = {"dm": [large.slice(0, 10)]}
    write_store(folder / "grouped", {"lb": [large], **small}, row_group_size=500_000)
    write_store(folder / "whole", {"lb": [large], **small}, row_group_size=ROWS)
    return folder


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = write_config(tmp_path_factory.mktemp("server"), {"STUDY_001": {"data": f"file://{store / 'grouped'}"}})
    with running(config) as server:
        yield server


@pytest.mark.parametrize("groups", ["grouped", "whole"])
@pytest.mark.parametrize("backend", ["local", "s3"])
def test_one_stream_of_five_million_rows_takes_little_memory(
    store: Path, s3: S3Server, tmp_path: Path, backend: str, groups: str
) -> None:
    if backend == "s3":
        s3.upload(store / groups, f"large-{groups}")
        project = s3.settings(f"large-{groups}")
    else:
        project = {"data": f"file://{store / groups}"}
    config = write_config(tmp_path, {"STUDY_001": project}, cache={"memory_bytes": MEMORY_BYTES})
    with running(config) as server, server.raw() as client:
        options = server.call_options(seconds=120)
        # What the first read of all loads once is not the stream's.
        client.do_get(flight.Ticket(b'{"project":"STUDY_001","table":"dm"}'), options).read_all()
        server.forget_peak()
        before = server.rss_bytes
        rows = total = 0
        for chunk in client.do_get(flight.Ticket(b'{"project":"STUDY_001","table":"lb"}'), options):
            rows += chunk.data.num_rows
            total += pc.sum(chunk.data.column("LBSEQ")).as_py() or 0
        growth = server.peak_rss_bytes - before
    print(f"{backend}, {groups}: the server grew by {growth / 2**20:.0f} MiB for {rows} rows of {COLUMNS} columns")
    assert rows == ROWS
    assert total == ROWS * (ROWS - 1) // 2
    assert growth < MAX_GROWTH_BYTES


def test_several_endpoints_in_order_are_the_file(server: Server, large: pa.Table) -> None:
    assert large.num_columns == COLUMNS
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
