"""Documents made anew for every commit that R datom 0.2.0 made, byte for byte, and what a write comes to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest

from datom_flight.identity import data_sha
from datom_flight.protocol.errors import DatomError
from datom_flight_server.metadata import layout
from datom_flight_server.metadata.current import Current
from datom_flight_server.metadata.documents import (
    Action,
    Change,
    Plan,
    TableWrite,
    lineage_union,
    plan_table,
    storage_documents,
    storage_history,
    version_commits,
)
from datom_flight_server.metadata.git import Author
from datom_flight_server.metadata.jsonlite import parse, pretty
from datom_flight_server.metadata.manifest import MANIFEST_PATH, new_manifest
from datom_flight_server.metadata.set_documents import canonical_set, plan_set
from support.bundles import Commit, commits
from support.expected import FIXTURES, STORES, Store

BUNDLES = [path.parent.relative_to(FIXTURES).as_posix() for path in sorted(FIXTURES.rglob("repo.bundle"))]
AUTHOR = Author("Ann", "ann@example.org")
NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
NOW = Change(AUTHOR, NOON)


CommitsOf = Callable[[str], list[Commit]]


@pytest.fixture(scope="module")
def history_of(tmp_path_factory: pytest.TempPathFactory) -> CommitsOf:
    """The commits of a fixture's data repository, cloned once."""
    folder = tmp_path_factory.mktemp("bundles")
    known: dict[str, list[Commit]] = {}

    def commits_of(store: str) -> list[Commit]:
        if store not in known:
            known[store] = list(commits(store, folder))
        return known[store]

    return commits_of


def table_write(document: Mapping[str, Any]) -> TableWrite:
    """The write that a stored document came from."""
    columns = document["colnames"]
    return TableWrite(
        data_sha=document["data_sha"],
        parquet_sha=document["parquet_sha"],
        size_bytes=document["size_bytes"],
        rows=document["nrow"],
        columns=(columns,) if isinstance(columns, str) else tuple(columns),
        custom=document.get("custom"),
        parents=document.get("parents"),
        source_lineage=document.get("source_lineage", ()) if "parents" in document else (),
        original_file_sha=document.get("original_file_sha"),
        original_format=document.get("original_format"),
    )


def replayed(commit: Commit) -> Plan | None:
    """What the write behind a commit comes to here; None when the commit is no write of R datom 0.2.0."""
    name = commit.artifact()
    if name is None:
        return None
    document = parse(commit.changed[f"{name}/metadata.json"])
    if document.get("schema_version") != 2:
        return None
    current = Current.read(name, commit.before.get)
    change = Change(commit.author, datetime.fromisoformat(document["created_at"]), commit.message)
    if document["kind"] == "set":
        payload = parse(commit.changed[f"{name}/set.json"])
        return plan_set(current, payload["members"], payload.get("tags"), change).plan
    return plan_table(current, table_write(document), change)


# How many commits of each repository are writes of R datom 0.2.0; the others are by 0.1.1, or write no artifact.
WRITES = {
    "gov/data-study-001": 2,
    "gov/data-study-002": 2,
    "store-011": 0,
    "store-011-upgraded": 2,
    "store-basic": 36,
    "store-product": 11,
    "store-product2": 1,
}


@pytest.mark.parametrize("store", BUNDLES)
def test_every_commit_of_r_is_made_again_byte_for_byte(store: str, history_of: CommitsOf) -> None:
    plans = [(commit, plan) for commit in history_of(store) if (plan := replayed(commit)) is not None]
    assert len(plans) == WRITES[store]
    for commit, plan in plans:
        name = commit.artifact()
        if name == "custom_na" and f"{name}/metadata.json" in commit.before:
            # R reads its own null back as an empty list, and so takes what it wrote itself for changed
            assert (plan.action, dict(plan.files)) == (Action.NONE, {})
            continue
        assert plan.files == {path: data for path, data in commit.changed.items() if not path.startswith("R/")}
        assert plan.message == commit.message
        row = parse(commit.changed[MANIFEST_PATH])["artifacts"][name]
        assert (plan.version, plan.data_sha) == (row["current_version"], row["current_data_sha"])


@pytest.mark.parametrize("store", BUNDLES)
def test_the_format_s_own_messages_are_r_s(store: str, history_of: CommitsOf) -> None:
    for commit in history_of(store):
        own = commit.message.startswith(("Update ", "Sync ")) and ":" not in commit.message
        if commit.artifact() and own:
            plan = replayed(replace(commit, message=""))
            assert plan is None or plan.message == commit.message


def versions_in_git(history: list[Commit]) -> dict[tuple[str, str], dict[str, bytes]]:
    """The state right after each version of R datom 0.2.0 came into git, by name and version."""
    found: dict[tuple[str, str], dict[str, bytes]] = {}
    for commit in history:
        name = commit.artifact("version_history.json")
        if name and b'"schema_version": 2' in commit.after[f"{name}/metadata.json"]:
            version = parse(commit.after[f"{name}/version_history.json"])[0]["version"]
            found[name, version] = commit.after
    return found


@pytest.mark.parametrize("store", BUNDLES)
def test_the_content_of_any_version_has_that_version_s_id_and_the_current_one_changes_nothing(
    store: str, history_of: CommitsOf
) -> None:
    history = history_of(store)
    head = history[-1].after
    checked = 0
    for (name, version), state in versions_in_git(history).items():
        current = Current.read(name, head.get)
        document = parse(state[f"{name}/metadata.json"])
        if document["kind"] == "set":
            payload = parse(state[f"{name}/set.json"])
            plan = plan_set(current, payload["members"][::-1], payload.get("tags"), NOW).plan
        else:
            # the stored object's hash counts, whatever the fresh file's is
            plan = plan_table(current, replace(table_write(document), parquet_sha="0" * 64, size_bytes=1), NOW)
        assert plan.version == version
        assert plan.reuses_object
        assert plan.object_sha == document.get("parquet_sha", document.get("document_sha"))
        assert f"{name}/version_history.json" not in plan.files
        if plan.version == current.version:
            assert (plan.action, dict(plan.files)) == (Action.NONE, {})
        else:
            same_values = document["data_sha"] == (current.metadata or {})["data_sha"]
            assert plan.action is (Action.METADATA_ONLY if same_values else Action.FULL)
            assert set(plan.files) >= {f"{name}/metadata.json", MANIFEST_PATH}
        checked += 1
    assert checked >= min(1, WRITES[store])


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_values_read_back_from_a_stored_parquet_give_the_stored_version(store: Store, history_of: CommitsOf) -> None:
    head = history_of(store.name)[-1].after
    for name, artifact in store.index.items():
        current = Current.read(name, head.get)
        for version, facts in artifact["versions"].items():
            if artifact["kind"] != "table" or version == "current" or not facts["roundtrip_data_sha_equal"]:
                continue
            document = parse((store.data / layout.snapshot_key(name, version)).read_bytes())
            if document.get("schema_version") != 2:
                continue
            table = pq.read_table(store.data / name / f"{document['data_sha']}.parquet")
            write = replace(
                table_write(document),
                data_sha=data_sha(table),
                rows=table.num_rows,
                columns=tuple(table.column_names),
            )
            assert plan_table(current, write, NOW).version == version


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_the_storage_s_documents_are_r_s(store: Store, history_of: CommitsOf) -> None:
    history = history_of(store.name)
    head = history[-1].after
    for name in store.index:
        stored = parse((store.data / layout.history_key(name)).read_bytes())
        recorded = {entry["version"]: entry["commit_sha"] for entry in stored if "commit_sha" in entry}
        # R finds a version's commit when it next writes the artifact, so those of 0.1.1 may have none
        path = f"{name}/version_history.json"
        states = [(commit.sha, commit.changed[path]) for commit in reversed(history) if path in commit.changed]
        assert version_commits(states, recorded) == recorded
        assert version_commits(states, [entry["version"] for entry in stored]).keys() >= recorded.keys()
        documents = storage_documents(name, head.get, recorded)
        assert list(documents)[-1] == layout.MANIFEST_KEY
        for key, data in documents.items():
            assert data == (store.data / key).read_bytes()


def test_no_more_of_the_history_is_asked_for_than_is_needed() -> None:
    def states() -> Iterator[tuple[str, bytes]]:
        yield "third", b'[{"version": "c"}, {"version": "b"}, {"version": "a"}]'
        yield "second", b'[{"version": "b"}, {"version": "a"}]'
        yield "first", b'[{"version": "a"}]'
        pytest.fail("asked for more")

    assert version_commits(states(), ["b"]) == {"b": "second"}
    assert version_commits(states(), []) == {}
    assert version_commits([], ["a"]) == {}


def test_a_version_whose_commit_is_unknown_has_none() -> None:
    stored = [{"version": "b", "author": "unknown"}, {"version": "a"}]
    assert parse(storage_history(stored, {"a": "c0ffee"})) == [stored[0], {"version": "a", "commit_sha": "c0ffee"}]


# Writes of our own, over a repository of R's.


@pytest.fixture
def head(history_of: CommitsOf) -> dict[str, bytes]:
    """The files at the head of the largest repository."""
    return dict(history_of("store-basic")[-1].after)


def fresh(**changes: Any) -> TableWrite:
    write = TableWrite(data_sha="a" * 64, parquet_sha="b" * 64, size_bytes=100, rows=2, columns=("x", "y"))
    return replace(write, **changes)


def written(head: Mapping[str, bytes], name: str, write: TableWrite, when: datetime = NOON) -> dict[str, bytes]:
    """`head` after `write`."""
    return {**head, **plan_table(Current.read(name, head.get), write, Change(AUTHOR, when)).files}


def test_a_first_write_makes_three_documents_and_a_row_at_the_end(head: dict[str, bytes]) -> None:
    plan = plan_table(Current.read("new", head.get), fresh(), NOW)
    assert (plan.action, plan.reuses_object, plan.object_sha) == (Action.FULL, False, "b" * 64)
    assert list(plan.files) == ["new/metadata.json", "new/version_history.json", MANIFEST_PATH]
    manifest, before = parse(plan.files[MANIFEST_PATH]), parse(head[MANIFEST_PATH])
    assert list(manifest["artifacts"]) == [*before["artifacts"], "new"]
    assert manifest["summary"]["total_size_bytes"] == before["summary"]["total_size_bytes"] + 100
    assert manifest["updated_at"] == "2027-01-01T12:00:00Z"
    assert parse(plan.files["new/metadata.json"])["project"] == "STUDY_001"


def test_a_table_of_one_column_has_its_name_bare() -> None:
    head = {MANIFEST_PATH: pretty(new_manifest("P", "2027-01-01T00:00:00Z"))}
    plan = plan_table(Current.read("t", head.get), fresh(columns=("x",)), NOW)
    assert parse(plan.files["t/metadata.json"])["colnames"] == "x"


def test_an_imported_table_is_its_own_source(head: dict[str, bytes]) -> None:
    write = fresh(original_file_sha="c" * 64, original_format="csv", parents=[{"source": "P"}])
    plan = plan_table(Current.read("raw", head.get), write, NOW)
    document = parse(plan.files["raw/metadata.json"])
    assert document["source_lineage"] == [{"project": "STUDY_001", "table": "raw", "version_sha": "a" * 64}]
    assert "parents" not in document
    assert plan.message == "Sync raw (new)"
    assert parse(plan.files[MANIFEST_PATH])["artifacts"]["raw"]["original_format"] == "csv"
    changed = plan_table(Current.read("raw", {**head, **plan.files}.get), fresh(data_sha="d" * 64), NOW)
    assert "original_format" not in parse(changed.files[MANIFEST_PATH])["artifacts"]["raw"]


def test_a_lineage_is_absent_without_parents_and_empty_when_they_have_none(head: dict[str, bytes]) -> None:
    parent = {"source": "STUDY_001", "table": "lb", "version": "e" * 64, "data_sha": "f" * 64}
    with_parents = written(head, "t", fresh(parents=[parent]))
    assert b'"source_lineage": [],' in with_parents["t/metadata.json"]
    assert b"source_lineage" not in written(head, "t", fresh(source_lineage=[{"project": "P"}]))["t/metadata.json"]


def test_the_union_of_lineages_has_each_source_once_in_the_order_they_are_met() -> None:
    one, two, three = ({"project": "P", "table": name, "version_sha": "a" * 64} for name in ("x", "y", "z"))
    assert lineage_union([one, two], None, [], [three, one]) == [one, two, three]
    assert lineage_union() == []


def test_a_revert_uses_the_stored_object_and_adds_no_version(head: dict[str, bytes]) -> None:
    first = written(head, "t", fresh())
    second = written(first, "t", fresh(data_sha="c" * 64, parquet_sha="d" * 64), NOON + timedelta(hours=1))
    revert = fresh(parquet_sha="e" * 64, size_bytes=99)
    plan = plan_table(Current.read("t", second.get), revert, Change(AUTHOR, NOON + timedelta(hours=2)))
    assert (plan.action, plan.reuses_object, plan.object_sha) == (Action.FULL, True, "b" * 64)
    assert set(plan.files) == {"t/metadata.json", MANIFEST_PATH}
    assert parse(plan.files[MANIFEST_PATH])["artifacts"]["t"]["version_count"] == 2
    assert plan.version == Current.read("t", first.get).version


def test_new_metadata_over_the_same_values_keeps_the_stored_object_and_its_size(head: dict[str, bytes]) -> None:
    first = written(head, "t", fresh())
    write = fresh(parquet_sha="e" * 64, size_bytes=99, custom={"owner": "me"})
    plan = plan_table(Current.read("t", first.get), write, NOW)
    assert (plan.action, plan.object_sha, plan.reuses_object) == (Action.METADATA_ONLY, "b" * 64, True)
    assert parse(plan.files["t/metadata.json"])["size_bytes"] == 100
    assert [entry["parquet_sha"] for entry in parse(plan.files["t/version_history.json"])] == ["b" * 64] * 2


def test_an_object_without_a_recorded_hash_gets_none_from_a_fresh_file(head: dict[str, bytes]) -> None:
    first = written(head, "t", fresh())
    for path in ("t/metadata.json", "t/version_history.json"):
        first[path] = first[path].replace(b'"parquet_sha": "' + b"b" * 64 + b'"', b'"parquet_sha": ""')
    plan = plan_table(Current.read("t", first.get), fresh(parquet_sha="e" * 64, custom={"a": 1}), NOW)
    assert (plan.action, plan.object_sha) == (Action.METADATA_ONLY, None)
    assert "parquet_sha" not in parse(plan.files["t/metadata.json"])


@pytest.mark.parametrize("custom", [None, {}])
def test_empty_custom_metadata_is_none(head: dict[str, bytes], custom: dict[str, Any] | None) -> None:
    first = written(head, "t", fresh(custom=custom))
    assert b"custom" not in first["t/metadata.json"]
    assert plan_table(Current.read("t", first.get), fresh(custom={}), NOW).action is Action.NONE


@pytest.mark.parametrize(
    "custom",
    [
        {"a": [1, 2.5, None], "b": {"c": ["x", "y"], "d": [], "e": {}}, "f": True, "g": ["only"], "h": 'é/中"\\\n'},
        {"a": None, "b": -0.0, "c": 1e-300, "d": 2**40, "e": 0.123456789, "f": [[1, 2], ["a", 3]], "g": [{"x": [1]}]},
    ],
    ids=["texts", "numbers"],
)
def test_custom_metadata_written_again_as_any_json_reader_gives_it_changes_nothing(
    head: dict[str, bytes], custom: dict[str, Any]
) -> None:
    first = written(head, "t", fresh(custom=custom))
    current = Current.read("t", first.get)
    stored = first["t/metadata.json"]
    for again in (custom, json.loads(json.dumps(custom)), json.loads(stored)["custom"], parse(stored)["custom"]):
        plan = plan_table(current, fresh(custom=again), NOW)
        assert (plan.action, plan.version) == (Action.NONE, current.version)


def test_what_no_r_value_holds_is_refused(head: dict[str, bytes]) -> None:
    current = Current.read("t", head.get)
    for write, change in (
        (fresh(custom={"a": "\0"}), NOW),
        (fresh(custom={"a": {1, 2}}), NOW),
        (fresh(), replace(NOW, message="a\0b")),
    ):
        with pytest.raises(DatomError) as refused:
            plan_table(current, write, change)
        assert refused.value.code == "invalid_argument"


def test_the_older_manifest_is_converted_where_it_stands(history_of: CommitsOf) -> None:
    head = history_of("store-011")[-1].after
    before = parse(head[MANIFEST_PATH])
    manifest = parse(written(head, "new", fresh())[MANIFEST_PATH])
    assert list(manifest) == ["project_name", "updated_at", "artifacts", "summary", "schema_version"]
    for name, row in before["tables"].items():
        assert list(manifest["artifacts"][name].items()) == [("kind", "table"), *row.items()]
    assert manifest["summary"] == {
        "total_tables": 4,
        "total_size_bytes": before["summary"]["total_size_bytes"] + 100,
        "total_versions": before["summary"]["total_versions"] + 1,
        "total_sets": 0,
    }


def test_the_first_write_over_an_unchanged_table_of_the_older_format_is_a_new_version(history_of: CommitsOf) -> None:
    head = history_of("store-011")[-1].after
    current = Current.read("dm", head.get)
    assert current.version == current.versions[0]
    assert current.metadata is not None
    plan = plan_table(current, table_write(current.metadata), NOW)
    assert (plan.action, plan.reuses_object) == (Action.METADATA_ONLY, True)
    assert plan.version == "90851fd8ab681a13a5f308fddb182ac233c32d8a13446f85f0893bbba7852d6a"  # as R did


@pytest.mark.parametrize("store", BUNDLES)
def test_the_current_version_is_the_one_the_manifest_names(store: str, history_of: CommitsOf) -> None:
    for commit in history_of(store):
        if name := commit.artifact():
            current = Current.read(name, commit.after.get)
            assert current.version == current.manifest["artifacts"][name]["current_version"]
            assert current.version in current.versions


# Refusals.


@pytest.mark.parametrize(
    ("path", "old", "new", "code"),
    [
        (MANIFEST_PATH, b'"updated_at"', b'"newer": 1, "updated_at"', "schema_unsupported"),
        (MANIFEST_PATH, b'"kind"', b'"newer": 1, "kind"', "schema_unsupported"),
        (MANIFEST_PATH, b'"schema_version": 2', b'"schema_version": 3', "schema_unsupported"),
        (MANIFEST_PATH, b'"schema_version": 2', b'"schema_version": "2"', "schema_invalid"),
        (MANIFEST_PATH, b'"project_name"', b'"updated_at"', "manifest_unreadable"),
        (MANIFEST_PATH, b"{", b"", "manifest_unreadable"),
        ("dm/metadata.json", b'"project"', b'"newer": 1, "project"', "schema_unsupported"),
        ("dm/metadata.json", b'"schema_version": 2', b'"schema_version": 3', "schema_unsupported"),
        ("dm/metadata.json", b'"schema_version": 2', b'"schema_version": true', "schema_invalid"),
        ("dm/metadata.json", b"{", b"", "document_unreadable"),
        ("dm/version_history.json", b"[", b"", "document_unreadable"),
    ],
)
def test_documents_that_cannot_be_continued_are_not_written_over(
    head: dict[str, bytes], path: str, old: bytes, new: bytes, code: str
) -> None:
    head[path] = head[path].replace(old, new, 1)
    with pytest.raises(DatomError) as refused:
        Current.read("dm", head.get)
    assert refused.value.code == code
    if new.startswith(b'"newer"'):
        assert refused.value.fields["fields"] == ["newer"]


@pytest.mark.parametrize(
    ("path", "data", "code"),
    [
        (MANIFEST_PATH, None, "manifest_unreadable"),
        (MANIFEST_PATH, b'{"project_name": "P", "artifacts": {"dm": 1}}', "manifest_unreadable"),
        ("dm/metadata.json", b"[]", "document_unreadable"),
        ("dm/version_history.json", b"{}", "document_unreadable"),
        ("dm/version_history.json", b"[1]", "document_unreadable"),
    ],
)
def test_documents_of_another_shape_are_not_written_over(
    head: dict[str, bytes], path: str, data: bytes | None, code: str
) -> None:
    with pytest.raises(DatomError) as refused:
        Current.read("dm", lambda asked: data if asked == path else head.get(asked))
    assert refused.value.code == code


def test_an_unknown_field_within_a_version_of_the_history_is_carried(head: dict[str, bytes]) -> None:
    path = "dm/version_history.json"
    head[path] = head[path].replace(b'"timestamp"', b'"newer": "kept", "timestamp"', 1)
    history = parse(written(head, "dm", fresh())[path])
    assert history[1]["newer"] == "kept"


def test_a_manifest_that_lists_nothing_as_r_s_empty_list_is_continued() -> None:
    head = {MANIFEST_PATH: b'{"schema_version": 2, "project_name": "P", "artifacts": [], "summary": {}}'}
    assert list(parse(written(head, "t", fresh())[MANIFEST_PATH])["artifacts"]) == ["t"]


def test_what_is_not_there_cannot_be_mirrored(head: dict[str, bytes]) -> None:
    with pytest.raises(DatomError) as refused:
        storage_documents("nothing", head.get, {})
    assert refused.value.code == "metadata_corrupt"


# Sets.

MEMBER = {"id": {"project": "OTHER", "name": "dm", "kind": "table", "version": "a" * 64}}


@pytest.fixture
def product(history_of: CommitsOf) -> Current:
    """The set of R's product repository."""
    return Current.read("study001-adam", history_of("store-product")[-1].after.get)


def test_a_set_has_one_form_whatever_order_it_is_given_in(product: Current) -> None:
    early = {"id": {**MEMBER["id"], "name": "ae"}, "tags": {"z": ["b", "a", "b"], "a": ["only"]}}
    given = canonical_set(product, [MEMBER, early, MEMBER], {"owner": ["b", "a"], "about": "x"})
    assert given == canonical_set(product, [early, MEMBER], {"about": ["x"], "owner": ["a", "b", "a"]})
    assert [member["id"]["name"] for member in given["members"]] == ["ae", "dm"]
    assert list(given["members"][0]["id"]) == ["kind", "name", "project", "version"]
    assert "tags" not in canonical_set(product, [{**MEMBER, "tags": {}}], {})["members"][0]


def test_a_plan_of_a_set_has_the_payload_its_address_and_hash_name(product: Current) -> None:
    done = plan_set(product, [MEMBER], {"about": "x"}, NOW)
    assert done.plan.action is Action.FULL
    assert done.plan.object_sha == hashlib.sha256(done.payload).hexdigest()
    assert done.plan.files["study001-adam/set.json"] == done.payload
    assert parse(done.plan.files[MANIFEST_PATH])["artifacts"]["study001-adam"]["member_count"] == 1
    assert parse(done.plan.files[MANIFEST_PATH])["summary"] == product.manifest["summary"]


@pytest.mark.parametrize(
    ("members", "tags"),
    [
        ([], None),
        ([{"id": {}}], None),
        ([{}], None),
        (["dm"], None),
        ([{**MEMBER, "more": 1}], None),
        ([{"id": {**MEMBER["id"], "data_sha": "x"}}], None),
        ([{"id": {**MEMBER["id"], "kind": "view"}}], None),
        ([{"id": {**MEMBER["id"], "version": "a" * 8}}], None),
        ([{"id": {**MEMBER["id"], "version": None}}], None),
        ([{"id": {**MEMBER["id"], "name": "../dm"}}], None),
        ([{"id": {**MEMBER["id"], "project": 1}}], None),
        ([{"id": {**MEMBER["id"], "project": "STUDY_001_ADAM", "name": "study001-adam"}}], None),
        ([MEMBER, {**MEMBER, "tags": {"a": "b"}}], None),
        ([{**MEMBER, "tags": {"a": []}}], None),
        ([{**MEMBER, "tags": {"a": ""}}], None),
        ([{**MEMBER, "tags": {"a": 1}}], None),
        ([{**MEMBER, "tags": ["a"]}], None),
        ([MEMBER], {"": "x"}),
        ([MEMBER], {"a": {"b": "c"}}),
        ([MEMBER], "text"),
    ],
)
def test_what_is_no_set_is_refused(product: Current, members: Any, tags: Any) -> None:
    with pytest.raises(DatomError) as refused:
        plan_set(product, members, tags, NOW)
    assert refused.value.code in ("invalid_argument", "invalid_name")


def test_a_name_belongs_to_one_kind(product: Current) -> None:
    with pytest.raises(DatomError) as refused:
        plan_table(product, fresh(), NOW)
    assert refused.value.code == "kind_mismatch"
    with pytest.raises(DatomError) as refused:
        plan_set(replace(product, name="adsl", metadata=None), [MEMBER], None, NOW)
    assert refused.value.code == "kind_mismatch"
