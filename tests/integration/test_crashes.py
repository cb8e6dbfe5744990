"""The server is killed at every step of a write: what was acknowledged stays, what was not is absent or complete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest

import datom_flight
from datom_flight.identity import data_sha
from datom_flight.protocol.messages import encode_object
from datom_flight_server.metadata.identity import metadata_sha
from support.crashing import CrashingServer, crashing
from support.s3 import S3Server
from support.same import assert_same
from support.server import write_config
from support.writable import Place, command, empty_place, git_over_http, put

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROJECT = "STUDY_CRASH"
LEAST_POINTS = 10
MOST_POINTS = 200


@dataclass(frozen=True, slots=True)
class TableWrite:
    """A write of a table that is cut short, and then tried again."""

    name: str
    table: pa.Table
    metadata: dict[str, Any] | None = None

    @property
    def version(self) -> str:
        """The id it must get."""
        document = {
            "kind": "table",
            "data_sha": data_sha(self.table),
            "hash_algo": "datom-cv1",
            "table_type": "derived",
            "nrow": self.table.num_rows,
            "ncol": self.table.num_columns,
            "colnames": tuple(self.table.column_names),
            **({"custom": self.metadata} if self.metadata else {}),
        }
        return metadata_sha(document)

    def send(self, server: CrashingServer) -> str:
        """The version, by a plain client that tries once."""
        more = {"metadata": self.metadata} if self.metadata else {}
        return str(put(server, command(PROJECT, self.name, **more), self.table, server.token)["version"])

    def again(self, conn: datom_flight.Connection) -> datom_flight.WriteReceipt:
        """The receipt of our own client."""
        return conn.write(self.name, self.table, metadata=self.metadata)

    def check(self, conn: datom_flight.Connection) -> None:
        """Fail unless it reads back."""
        assert_same(conn.read(self.name, self.version), self.table)


@dataclass(frozen=True, slots=True)
class SetWrite:
    """The same, of a set."""

    name: str
    members: Sequence[dict[str, Any]]
    version: str

    def send(self, server: CrashingServer) -> str:
        """The version, by a plain client that tries once."""
        body = {"project": PROJECT, "table": self.name, "members": self.members}
        with server.raw() as client:
            (answer,) = client.do_action(fl.Action("datom.write_set", encode_object(body)), server.call_options())
            return str(datom_flight.WriteReceipt.from_wire(json.loads(answer.body.to_pybytes())).version)

    def again(self, conn: datom_flight.Connection) -> datom_flight.WriteReceipt:
        """The receipt of our own client."""
        return conn.write_set(self.name, self.members)

    def check(self, conn: datom_flight.Connection) -> None:
        """Fail unless it reads back."""
        assert conn.set(self.name, self.version).version == self.version


Write = TableWrite | SetWrite
Scenario = Callable[[datom_flight.Connection, int], Write]


def rows(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64()), "text": [str(value) for value in values]})


def a_new_table(conn: datom_flight.Connection, number: int) -> Write:
    return TableWrite(f"new {number}".replace(" ", "_"), rows(number))


def a_later_version(conn: datom_flight.Connection, number: int) -> Write:
    if number == 1:
        conn.write("later", rows(0))
    return TableWrite("later", rows(number, number))


def other_metadata(conn: datom_flight.Connection, number: int) -> Write:
    if number == 1:
        conn.write("described", rows(0))
    return TableWrite("described", rows(0), {"cut": number})


def a_revert(conn: datom_flight.Connection, number: int) -> Write:
    if number == 1:
        conn.write("reverted", rows(1))
        conn.write("reverted", rows(0))
    return TableWrite("reverted", rows(number % 2))


def a_set(conn: datom_flight.Connection, number: int) -> Write:
    cited = conn.write("cited", rows(1)).version
    other = conn.write("cited", rows(2)).version
    members = [
        {"id": {"project": PROJECT, "name": "cited", "kind": "table", "version": version}}
        for version in (cited, other)[: 1 + number % 2]
    ]
    for member in members:
        member["tags"] = {"number": str(number)}
    name = f"set_{number // 2}"
    return SetWrite(name, members, conn.write_set("rehearsal", members).version)


SCENARIOS: dict[str, Scenario] = {
    "a new table": a_new_table,
    "a later version": a_later_version,
    "other metadata": other_metadata,
    "a revert": a_revert,
    "a set": a_set,
}


@pytest.fixture(scope="module", params=["folder, git by path", "S3, git over http"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("crashes")
    if request.param.startswith("folder"):
        yield empty_place(folder, PROJECT)
        return
    s3: S3Server = request.getfixturevalue("s3")
    with git_over_http(folder) as git:
        yield empty_place(folder, PROJECT, s3, git.url)


@pytest.fixture(scope="module")
def server(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashingServer]:
    config = write_config(
        tmp_path_factory.mktemp("server"), {PROJECT: place.settings}, server={"metadata_max_age_seconds": 0}
    )
    with crashing(config) as server:
        yield server


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_write_that_is_killed_is_absent_or_complete(server: CrashingServer, place: Place, scenario: str) -> None:
    acknowledged: dict[tuple[str, str], Write] = {}
    points = []
    # the steps within a push and on the disk are many, and the same for every write
    stride = 1 if scenario == "a new table" or place.settings["data"].startswith("s3:") else 2
    for number, step in enumerate(range(1, MOST_POINTS, stride), 1):
        with server.connect(PROJECT) as conn:
            write = SCENARIOS[scenario](conn, number)
        server.stop_at(step)
        try:
            got_through = write.send(server) == write.version
        except (fl.FlightError, pa.ArrowException, OSError):
            got_through = False
        if got_through:
            break
        points.append(server.killed_before())
        server.kill()
        server.forget_stop()
        server.start()
        assert leftovers(server, place) == []
        with server.connect(PROJECT) as conn:
            assert_absent_or_complete(conn, place, write)
            receipt = write.again(conn)
            assert receipt.version == write.version
            acknowledged[write.name, write.version] = write
            write.check(conn)
            assert wrong(conn, write.name) == []
    print(f"{scenario}: {len(points)} points: {', '.join(points)}")
    assert len(points) >= LEAST_POINTS
    with server.connect(PROJECT) as conn:
        for write in acknowledged.values():
            write.check(conn)
            assert [entry.version for entry in conn.history(write.name)].count(write.version) == 1
        assert wrong(conn) == []
    assert "Traceback" not in server.log


def assert_absent_or_complete(conn: datom_flight.Connection, place: Place, write: Write) -> None:
    """Fail unless git and the storage both have `write` as the current version, or both do not."""
    rows = {row.name: row for row in conn.tables()}
    committed = place.committed(".datom/manifest.json")["artifacts"]
    assert {name: row.version for name, row in rows.items()} == {
        name: row["current_version"] for name, row in committed.items()
    }
    if write.name in rows:
        assert place.document(write.name) == place.committed(f"{write.name}/metadata.json")
        assert wrong(conn, write.name) == []
    if write.name in rows and rows[write.name].version == write.version:
        write.check(conn)


def wrong(conn: datom_flight.Connection, name: str | None = None) -> list[Any]:
    return [finding for finding in conn.validate(name) if not finding.ok]


def leftovers(server: CrashingServer, place: Place) -> list[Path]:
    """What a killed process has left, in the storage, the spool, the cache and git."""
    cache = server.config.parent / "cache"
    spooled = list((cache / "spool").iterdir())
    parts = [path for path in cache.rglob("*.part") if path.is_file()]
    locks = [path for path in place.remote.rglob("*.lock") if path.name != "datom-flight.lock"]  # which stays
    return [*place.unfinished(), *spooled, *parts, *locks]
