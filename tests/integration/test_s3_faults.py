"""With S3 slow, busy, cut off or lying: the data is right, or an error with its code comes in time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest

from support.answers import assert_reveals_nothing, code_of
from support.faulty import Fault, FaultyProxy, faulty_proxy
from support.s3 import S3Server
from support.server import Server, running, write_config
from support.stores import write_store

DEADLINE_SECONDS = 45
ROWS = 200_000
DATA = "parquet"
DOCUMENTS = ".metadata"

PASSING = {
    "slow answers": Fault(silent_seconds=1.5, times=3),
    "two times 503": Fault(status=503, times=2),
    "a document cut off": Fault(on=DOCUMENTS, cut_after=40, reset=True, times=1),
    "a document truncated": Fault(on=DOCUMENTS, cut_after=40, times=1),
    "data cut off": Fault(on=DATA, cut_after=100_000, reset=True, times=1),
    "data truncated": Fault(on=DATA, cut_after=100_000, times=1),
}
LASTING = {
    "always 503": (Fault(status=503), {"store_unreachable"}),
    "always 500": (Fault(status=500), {"store_unreachable"}),
    "refused": (Fault(status=403), {"access_denied"}),
    "documents cut off": (Fault(on=DOCUMENTS, cut_after=40, reset=True), {"store_unreachable"}),
    "documents truncated": (Fault(on=DOCUMENTS, cut_after=40), {"store_unreachable"}),
    "documents altered": (Fault(on=DOCUMENTS, altered_at=0), {"document_unreadable"}),
    "data cut off": (Fault(on=DATA, cut_after=100_000, reset=True), {"store_unreachable"}),
    "data truncated": (Fault(on=DATA, cut_after=100_000), {"store_unreachable", "integrity_mismatch"}),
    "data altered in its middle": (Fault(on=DATA, altered_at=500_000), {"integrity_mismatch"}),
    "data altered at its beginning": (Fault(on=DATA, altered_at=0), {"integrity_mismatch"}),
    "silence": (Fault(silent_seconds=300), {"store_unreachable", "timeout"}),
    "data in drips": (Fault(on=DATA, drip_seconds=1), {"store_unreachable", "timeout"}),
}


def rows_of(number: int) -> pa.Table:
    random = np.random.default_rng(number)
    return pa.table({"SEQ": np.arange(ROWS), "AVAL": random.normal(number, 1, ROWS)})


# One table for each fault, so that nothing of it is known beforehand.
TABLES = {f"t{number}": rows_of(number) for number in range(len(PASSING) + len(LASTING))}
NAMES = dict(zip([*PASSING, *(f"lasting {name}" for name in LASTING)], TABLES, strict=True))


@dataclass(frozen=True, slots=True)
class Site:
    """A server whose storage is behind a proxy, and the version of each table."""

    server: Server
    proxy: FaultyProxy
    versions: dict[str, list[str]]

    def read(self, table: str) -> pa.Table:
        """The pinned rows of `table`, asked for once, by a plain client."""
        ticket = json.dumps({"project": "STUDY_001", "table": table, "version": self.versions[table][0]})
        with self.server.raw() as client:
            options = self.server.call_options(seconds=DEADLINE_SECONDS)
            return client.do_get(flight.Ticket(ticket), options).read_all()


@pytest.fixture(scope="module")
def site(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("faults")
    versions = write_store(folder / "store", {name: [table] for name, table in TABLES.items()})
    s3.upload(folder / "store", "faulty-network", "study")
    with faulty_proxy(s3.url) as proxy:
        project = {**s3.settings("faulty-network", "study"), "endpoint": proxy.url}
        config = write_config(folder / "server", {"STUDY_001": project}, server={"metadata_max_age_seconds": 0})
        with running(config) as server:
            server.token()
            yield Site(server, proxy, versions)


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_changes_no_row(site: Site, name: str) -> None:
    table = NAMES[name]
    site.proxy.inject(PASSING[name])
    try:
        assert site.read(table).equals(TABLES[table])
    finally:
        site.proxy.heal()


@pytest.mark.slow
@pytest.mark.parametrize("name", LASTING)
def test_a_fault_that_lasts_is_an_error_in_time_and_is_forgotten_when_it_ends(site: Site, name: str) -> None:
    fault, codes = LASTING[name]
    table = NAMES[f"lasting {name}"]
    site.proxy.inject(fault)
    started = time.monotonic()
    try:
        with pytest.raises(flight.FlightError) as refusal:
            site.read(table)
    finally:
        site.proxy.heal()
    assert time.monotonic() - started < DEADLINE_SECONDS
    assert refusal.value.extra_info, "the server's own answer, not the client's deadline"
    assert code_of(refusal.value) in codes
    assert_reveals_nothing(str(refusal.value), site.server)
    assert site.read(table).equals(TABLES[table])
    assert site.server.alive


def test_a_version_once_read_needs_no_storage(site: Site) -> None:
    name = next(iter(TABLES))
    assert site.read(name).equals(TABLES[name])
    site.proxy.inject(Fault(status=503))
    try:
        before = len(site.proxy.requests)
        assert site.read(name).equals(TABLES[name])
        assert len(site.proxy.requests) == before
    finally:
        site.proxy.heal()


def test_the_client_library_reads_through_a_storage_that_is_busy_now_and_then(site: Site) -> None:
    name = list(TABLES)[1]
    site.proxy.inject(Fault(status=503, times=5))
    try:
        with site.server.connect("STUDY_001") as connection:
            assert connection.read(name).equals(TABLES[name])
    finally:
        site.proxy.heal()
