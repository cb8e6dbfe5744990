"""The official Python reader of datom reads what the server writes, from a folder and from S3."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import datom as peer
import numpy as np
import pyarrow as pa
import pytest

import datom_flight
from support.s3 import S3Server
from support.same import assert_same
from support.server import Server, running, write_config
from support.writable import Place, empty_place, git_over_http, peer_of

PROJECT = "STUDY_PEER"

INT64 = [1, -(2**63) + 1, 2**53 + 1, 2**63 - 1, None]
DOUBLES = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1.7976931348623157e308])
PAYLOADS = np.array([0x7FF8000000000001, 0x7FF00000000007A3, 0xFFF8000000000000], np.uint64).view(np.float64)
WHEN = [datetime(2026, 7, 1, 12, 30, 0, 123456), datetime(1901, 1, 1), None]

# Each of a type that parquet gives back as it is.
KEPT: dict[str, pa.Table] = {
    "numbers": pa.table(
        {
            "bool": pa.array([True, False, None]),
            "int8": pa.array([-128, 127, None], pa.int8()),
            "uint8": pa.array([0, 255, None], pa.uint8()),
            "int16": pa.array([-(2**15), 2**15 - 1, None], pa.int16()),
            "uint16": pa.array([0, 2**16 - 1, None], pa.uint16()),
            "int32": pa.array([-(2**31), 2**31 - 1, None], pa.int32()),
            "uint32": pa.array([0, 2**32 - 1, None], pa.uint32()),
            "uint64": pa.array([0, 2**64 - 1, None], pa.uint64()),
            "float16": pa.array(np.array([0.5, -0.0, 65504], np.float16)),
            "float32": pa.array([0.1, -1.5, None], pa.float32()),
            "decimal": pa.array([Decimal("1.25"), Decimal("-99999.99"), None], pa.decimal128(7, 2)),
            "large decimal": pa.array([Decimal(10**60), Decimal(-1), None], pa.decimal256(61, 0)),
        }
    ),
    "integer64": pa.table({"small": pa.array([1, 2, None, 4, 5]), "large": pa.array(INT64)}),
    "doubles": pa.table(
        {
            "values": pa.array(np.concatenate([DOUBLES, PAYLOADS])),
            "missing": pa.array([None, *range(1, 10)], pa.float64()),
        }
    ),
    "texts": pa.table(
        {
            "utf8": ["", "é", "e\u0301", "日本語", "\U0001f9ec", " \t\n", None],
            "large": pa.array(["x" * 70_000, "", None, "b", "c", "d", "e"], pa.large_string()),
            "nothing": pa.array([None] * 7, pa.string()),
        }
    ),
    "factors": pa.table(
        {
            "factor": pa.DictionaryArray.from_arrays(pa.array([1, 0, None, 1], pa.int32()), ["F", "M", "unused"]),
            "ordered": pa.DictionaryArray.from_arrays(
                pa.array([2, 0, 1, None], pa.int32()), ["low", "mid", "high"], ordered=True
            ),
        }
    ),
    "dates and times": pa.table(
        {
            "date": pa.array([date(2026, 2, 28), date(1969, 12, 31), None]),
            "ms": pa.array([datetime(2026, 7, 1), datetime(1960, 1, 1), None], pa.timestamp("ms")),
            "us": pa.array(WHEN, pa.timestamp("us")),
            "utc": pa.array(WHEN, pa.timestamp("us", "UTC")),
            "zone": pa.array(WHEN, pa.timestamp("us", "Europe/Zurich")),
            "ns": pa.array([1, -1, None], pa.timestamp("ns")),
            "time of day": pa.array([time(0), time(23, 59, 59, 999000), None], pa.time32("ms")),
            "finer": pa.array([time(0), time(23, 59, 59, 999999), None], pa.time64("us")),
            "finest": pa.array([0, 86_399_999_999_000, None], pa.time64("ns")),
            "span": pa.array([timedelta(days=1), timedelta(seconds=-5), None], pa.duration("us")),
            "seconds": pa.array([1, -1, None], pa.duration("s")),
        }
    ),
    "one column": pa.table({"x": [1.5]}),
    "Names (odd)_and-all": pa.table({'a "quoted" name': [1], "名前": ["x"], " ": [True]}),
}

# Stored as their nearest kin: what is sent, and what is kept.
TURNED: dict[str, tuple[pa.DataType, pa.DataType]] = {
    "view": (pa.string_view(), pa.string()),
    "date64": (pa.date64(), pa.timestamp("ms")),
    "seconds": (pa.timestamp("s", "UTC"), pa.timestamp("ms", "UTC")),
    "time": (pa.time32("s"), pa.time32("ms")),
    "decimal32": (pa.decimal32(5, 2), pa.decimal128(5, 2)),
    "levels": (pa.dictionary(pa.int8(), pa.large_string()), pa.dictionary(pa.int32(), pa.string())),
}


@pytest.fixture(scope="module", params=["folder", "S3"])
def storage(request: pytest.FixtureRequest) -> S3Server | None:
    return None if request.param == "folder" else request.getfixturevalue("s3")


@pytest.fixture(scope="module")
def place(storage: S3Server | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("peer")
    if storage is None:
        yield empty_place(folder, PROJECT)
        return
    with git_over_http(folder) as git:
        yield empty_place(folder, PROJECT, storage, git.url)


@pytest.fixture(scope="module")
def server(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(write_config(tmp_path_factory.mktemp("server"), {PROJECT: place.settings})) as server:
        yield server


@pytest.fixture(scope="module")
def ours(server: Server) -> Iterator[datom_flight.Connection]:
    with server.connect(PROJECT, token=server.token("developer")) as connection:
        yield connection


@pytest.fixture
def theirs(place: Place, storage: S3Server | None) -> peer.Conn:
    return peer_of(place, storage)


@pytest.mark.parametrize("name", KEPT)
def test_a_table_reads_the_same_there_as_it_was_written(
    ours: datom_flight.Connection, theirs: peer.Conn, name: str
) -> None:
    receipt = ours.write(name, KEPT[name])
    assert_same(peer.read(theirs, name, as_arrow=True), KEPT[name])
    assert_same(peer.read(theirs, name, receipt.version, as_arrow=True), KEPT[name])
    assert_same(ours.read(name), KEPT[name])
    # for people: what pandas makes of both is the same
    assert peer.read(theirs, name).shape == (KEPT[name].num_rows, KEPT[name].num_columns)


def test_types_that_parquet_or_r_lack_read_as_their_nearest_kin(
    ours: datom_flight.Connection, theirs: peer.Conn
) -> None:
    values: dict[str, list[Any]] = {
        "view": ["a", None],
        "date64": [date(2026, 1, 1), None],
        "seconds": [datetime(2026, 1, 1), None],
        "time": [time(12), None],
        "decimal32": [Decimal("1.25"), None],
        "levels": ["a", None],
    }
    sent = pa.table({name: pa.array(values[name], before) for name, (before, _) in TURNED.items()})
    ours.write("turned", sent)
    kept = pa.table({name: sent.column(name).cast(after) for name, (_, after) in TURNED.items()})
    assert_same(peer.read(theirs, "turned", as_arrow=True), kept)
    assert_same(ours.read("turned"), kept)


def test_every_version_reads_the_same_there(ours: datom_flight.Connection, theirs: peer.Conn) -> None:
    versions = {}
    for number in range(12):
        table = pa.table({"n": pa.array([number] * (number + 1), pa.int32()), "t": [str(number)] * (number + 1)})
        versions[ours.write("many", table, message=f"Cut {number}").version] = table
    back = ours.write("many", versions[next(iter(versions))])
    for version, table in versions.items():
        assert_same(peer.read(theirs, "many", version[:12], as_arrow=True), table)
    assert_same(peer.read(theirs, "many", as_arrow=True), versions[back.version])
    other = ours.write("many", versions[back.version], metadata={"cutoff": "2026-01-31", "n": [1, 2.5]})
    assert other.action == "metadata_only"
    assert_same(peer.read(theirs, "many", other.version, as_arrow=True), versions[back.version])


def test_sets_and_their_members_read_the_same_there(ours: datom_flight.Connection, theirs: peer.Conn) -> None:
    tables = {name: ours.write(f"member {name}", pa.table({"x": [name]})) for name in ("a", "b")}
    members: list[dict[str, Any]] = [
        {"id": {"project": PROJECT, "name": f"member {name}", "kind": "table", "version": receipt.version}}
        for name, receipt in tables.items()
    ]
    members[0]["tags"] = {"role": ["zweite", "ältere"], "one": "x"}
    first = ours.write_set("product", members[:1])
    second = ours.write_set("product", members, tags={"phase": "III", "sites": ["b", "a", "a"]})
    inner = {"id": {"project": PROJECT, "name": "product", "kind": "set", "version": first.version}}
    ours.write_set("outer", [inner, members[1]])
    for name in ("product", "outer"):
        for version in (None, *(entry.version for entry in ours.history(name))):
            found, known = peer.get_set(theirs, name, version), ours.set(name, version)
            assert (found.name, found.version) == (known.name, known.version)
            assert [
                (member.id.project, member.id.name, member.id.kind, member.id.version) for member in found.members
            ] == [(member.id.project, member.id.name, member.id.kind, member.id.version) for member in known.members]
            assert listed(found.tags) == listed(known.tags)
            assert [listed(member.tags) for member in found.members] == [
                listed(member.tags) for member in known.members
            ]
    whole = peer.get_set(theirs, "product")
    assert whole.version == second.version
    assert listed(whole.tags) == {"phase": ["III"], "sites": ["a", "b"]}
    assert_same(
        peer.fetch_member(theirs, whole, "member a", tags={"role": "ältere"}, as_arrow=True), pa.table({"x": ["a"]})
    )


def test_its_listings_are_ours(ours: datom_flight.Connection, theirs: peer.Conn) -> None:
    ours.write("listed", KEPT["numbers"], message='Say "why"\nin two lines\n\nand more')
    ours.write("listed", KEPT["texts"])
    ours.write_set(
        "listed set",
        [{"id": {"project": PROJECT, "name": "listed", "kind": "table", "version": ours.history("listed")[0].version}}],
    )
    rows = peer.list_artifacts(theirs, include_versions=True, short_hash=False).to_dict("records")
    assert rows == [
        {
            "name": row.name,
            "kind": row.kind,
            "current_version": row.version,
            "current_data_sha": row.data_sha,
            "last_updated": f"{row.last_updated:%Y-%m-%dT%H:%M:%SZ}",
            "version_count": row.versions,
        }
        for row in ours.tables()
    ]
    for name in [row["name"] for row in rows]:
        assert peer.history(theirs, name, n=1000).to_dict("records") == [
            {
                "version": entry.version,
                "data_sha": entry.data_sha,
                "timestamp": f"{entry.timestamp:%Y-%m-%dT%H:%M:%SZ}",
                "author": entry.author,
                "commit_message": entry.message,
                "commit_sha": entry.commit,
            }
            for entry in ours.history(name)
        ]
    newest = peer.history(theirs, "listed", n=1).to_dict("records")[0]
    assert newest["author"] == "ann <ann@datom-flight.invalid>"
    assert newest["commit_sha"] is not None


def listed(tags: Any) -> dict[str, list[str]]:
    """Tags, however a reader holds them, as lists of texts."""
    return {key: [value] if isinstance(value, str) else list(value) for key, value in (tags or {}).items()}
