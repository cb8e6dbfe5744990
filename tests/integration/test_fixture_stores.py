"""Every store that R wrote reads back exactly, over Flight, from a folder and from S3, with and without a prefix."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import datom_flight
from support.expected import STORES, Store, assert_same_table
from support.git import clone_governance
from support.s3 import S3Server
from support.server import Server, running, write_config

TABLES = [
    pytest.param(store, name, id=f"{store.name}-{name}")
    for store in STORES
    for name, row in store.index.items()
    if row["kind"] == "table"
]
SETS = [
    pytest.param(store, name, id=f"{store.name}-{name}")
    for store in STORES
    for name, row in store.index.items()
    if row["kind"] == "set"
]
STORE_IDS = [pytest.param(store, id=store.name) for store in STORES]

# Where each store is served a second time: at the top if R wrote it under a prefix, else under this one.
MOVED_PREFIX = "moved/further in"


def moved(store: Store) -> Store:
    """`store` under the other kind of prefix, as a project of its own."""
    return Store(store.name, f"{store.project}_MOVED", "" if store.prefix else MOVED_PREFIX, store.answers)


@pytest.fixture(scope="module", params=["local", "s3"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("stores")
    if request.param == "local":
        projects = {place.project: _local(store, place, folder) for store in STORES for place in (store, moved(store))}
    else:
        s3 = request.getfixturevalue("s3")
        projects = {place.project: _on_s3(s3, store, place) for store in STORES for place in (store, moved(store))}
    with running(write_config(folder, projects)) as server:
        yield server


@pytest.fixture(params=["as written", "moved"])
def connection(request: pytest.FixtureRequest, server: Server, store: Store) -> Iterator[datom_flight.Connection]:
    place = store if request.param == "as written" else moved(store)
    with server.connect(place.project) as connection:
        yield connection


def _local(store: Store, place: Store, folder: Path) -> dict[str, str]:
    root = folder / place.project
    shutil.copytree(store.data, root / place.prefix / "datom")
    return {"data": f"file://{root / place.prefix}"}


def _on_s3(s3: S3Server, store: Store, place: Store) -> dict[str, str]:
    bucket = place.project.lower().replace("_", "-")
    s3.upload(store.data, bucket, "/".join(part for part in (place.prefix, "datom") if part))
    return s3.settings(bucket, place.prefix)


@pytest.mark.parametrize(("store", "name"), TABLES)
def test_every_version_holds_what_r_read(connection: datom_flight.Connection, store: Store, name: str) -> None:
    versions = store.index[name]["versions"]
    for version, expected in store.answers_named(name, "read"):
        table = connection.read(name, version)
        assert_same_table(table, expected)
        metadata = table.schema.metadata
        assert metadata[b"datom.project"].decode() == connection.project
        assert metadata[b"datom.table"].decode() == name
        assert (
            metadata[b"datom.data_sha"].decode() == expected["data_sha"] == versions[version or "current"]["data_sha"]
        )
        if version is not None:
            assert metadata[b"datom.version"].decode() == version


@pytest.mark.parametrize(("store", "name"), TABLES)
def test_the_schema_is_the_one_stored_in_the_parquet(
    connection: datom_flight.Connection, store: Store, name: str
) -> None:
    for version, expected in store.answers_named(name, "read"):
        stored = pq.read_schema(store.data / name / f"{expected['data_sha']}.parquet")
        schema = connection.schema(name, version)
        assert schema.equals(stored, check_metadata=False)
        assert {**schema.metadata, **(stored.metadata or {})} == schema.metadata
        assert connection.read(name, version).schema.equals(schema, check_metadata=True)


@pytest.mark.parametrize(("store", "name"), TABLES)
def test_the_current_version_bears_the_name_r_gives_it(
    connection: datom_flight.Connection, store: Store, name: str
) -> None:
    current = connection.read(name).schema.metadata[b"datom.version"].decode()
    assert current == store.index[name].get("recorded_current_version", store.index[name]["manifest_current_version"])


@pytest.mark.parametrize(("store", "name"), TABLES + SETS)
def test_the_history_is_the_one_r_lists(connection: datom_flight.Connection, store: Store, name: str) -> None:
    expected = store.answer(name, "datom_history.json")
    history = connection.history(name)
    assert [
        {
            "version": row.version,
            "data_sha": row.data_sha,
            "timestamp": f"{row.timestamp:%Y-%m-%dT%H:%M:%SZ}",
            "author": row.author,
            "commit_message": row.message,
            "commit_sha": row.commit,
        }
        for row in history
    ] == expected
    if store.index[name]["kind"] == "table":
        versions = store.index[name]["versions"]
        assert [row.parquet_sha for row in history] == [versions[row.version]["parquet_sha"] for row in history]
    assert [row.version for row in connection.history(name, limit=1)] == [expected[0]["version"]]


@pytest.mark.parametrize(("store", "name"), TABLES)
def test_parents_and_lineage_are_as_recorded(connection: datom_flight.Connection, store: Store, name: str) -> None:
    for version, expected in store.answers_named(name, "lineage"):
        assert connection.parents(name, version) == expected["parents"]
        assert connection.lineage(name, version) == expected["lineage"]


@pytest.mark.parametrize(("store", "name"), TABLES + SETS)
def test_metadata_is_the_document_as_stored(connection: datom_flight.Connection, store: Store, name: str) -> None:
    documents = store.data / name / ".metadata"
    assert connection.metadata(name) == json.loads((documents / "metadata.json").read_text())
    for version in store.index[name]["versions"]:
        if (documents / f"{version}.json").exists():
            assert connection.metadata(name, version) == json.loads((documents / f"{version}.json").read_text())


@pytest.mark.parametrize(("store", "name"), SETS)
def test_sets_have_the_members_and_tags_r_lists(connection: datom_flight.Connection, store: Store, name: str) -> None:
    for version, expected in store.answers_named(name, "set"):
        found = connection.set(name, version)
        assert found.name == name
        assert found.version == expected["version"]
        assert (found.tags or {}) == _tags(expected["tags"])
        assert [(dataclasses.asdict(member.id), member.tags or {}) for member in found.members] == [
            (member["id"], _tags(member.get("tags"))) for member in expected["members"]
        ]


@pytest.mark.parametrize("store", STORE_IDS)
def test_the_list_of_tables_is_the_one_r_gives(connection: datom_flight.Connection, store: Store) -> None:
    assert [
        {
            "name": row.name,
            "kind": row.kind,
            "current_version": row.version,
            "current_data_sha": row.data_sha,
            "last_updated": f"{row.last_updated:%Y-%m-%dT%H:%M:%SZ}",
            "version_count": row.versions,
        }
        for row in connection.tables()
    ] == store.answer("datom_list.json")


@pytest.mark.parametrize("store", STORE_IDS)
def test_the_summary_counts_what_r_counts(connection: datom_flight.Connection, store: Store) -> None:
    expected = store.answer("datom_summary_reader.json")
    summary = connection.summary()
    assert (summary.tables, summary.sets, summary.versions) == (
        expected["table_count"],
        expected["set_count"],
        expected["total_versions"],
    )
    assert f"{summary.last_updated:%Y-%m-%dT%H:%M:%SZ}" == expected["last_updated"]


@pytest.mark.parametrize("store", STORE_IDS)
def test_validation_finds_every_table_whole(connection: datom_flight.Connection, store: Store) -> None:
    findings = connection.validate()
    assert findings
    assert not [finding for finding in findings if not finding.ok]
    assert {finding.table for finding in findings if finding.table} >= set(store.index)


@pytest.mark.parametrize("store", [store for store in STORES if store.name == "store-product"])
def test_members_of_a_set_read_as_the_versions_the_set_names(server: Server, store: Store) -> None:
    with server.connect(store.project) as connection:
        members = connection.set("study001-adam", "83fdc16e")
        table = connection.read_member(members, "adlb")
        pinned = members.member("adlb").id.version
        assert_same_table(table, store.answer("adlb", f"read_{pinned}.json"))
        # A member of another project, which this reader may see as well.
        table = connection.read_member(members, "lb")
        pinned = members.member("lb").id.version
        assert_same_table(table, STORES[0].answer("lb", f"read_{pinned}.json"))


def test_governed_projects_read_from_where_the_governance_repository_says(tmp_path: Path) -> None:
    repository = clone_governance(tmp_path / "governance")
    config = write_config(tmp_path / "server", {}, governance={"repo": str(repository)})
    with running(config) as server:
        with server.connect() as connection:
            assert sorted(project.name for project in connection.projects()) == ["STUDY_001", "STUDY_002"]
        for project in ("STUDY_001", "STUDY_002"):
            with server.connect(project) as connection:
                assert [row.name for row in connection.tables()] == ["dm"]
                for version in connection.history("dm"):
                    table = connection.read("dm", version.version)
                    assert table.schema.metadata[b"datom.data_sha"].decode() == version.data_sha


def _tags(tags: dict[str, str | list[str]] | None) -> dict[str, list[str]]:
    return {key: [value] if isinstance(value, str) else list(value) for key, value in (tags or {}).items()}
