"""A write becomes a version: object, commit, mirror, and nothing half done."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datom_flight.identity import data_sha
from datom_flight.protocol.errors import DatomError
from datom_flight_server.metadata.bare import BareRepository
from datom_flight_server.model import DataLocation, Kind, Project
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.catalog import Catalog
from datom_flight_server.versions.documents import Documents
from datom_flight_server.versions.validation import findings
from datom_flight_server.versions.writer import TableContent, Writer, author_of
from support.git import git

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
STORES = {"store-basic": "study-001", "store-product": "", "store-product2": "a/b", "store-011-upgraded": ""}
ANN = author_of("ann@example.org")


class Place:
    """A copy of a store that R wrote: its remote, its storage, and a writer to both."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.prefix = STORES[store]
        shutil.copytree(FIXTURES / store / "storage", folder / "storage")
        git("clone", "--quiet", "--bare", str(FIXTURES / store / "repo.bundle"), "remote.git", cwd=folder)
        self.remote = folder / "remote.git"
        self.store = LocalStore(folder / "storage", self.prefix)
        self.objects = folder / "storage" / self.prefix / "datom"
        self.repository = BareRepository(str(self.remote), None, "main", folder / "clones")
        self.writer = Writer(self.repository, self.store)

    @property
    def catalog(self) -> Catalog:
        project = Project("P", DataLocation("local", str(self.folder / "storage"), self.prefix))
        return Catalog(project, self.store, Documents(0))

    @property
    def head(self) -> str:
        return git("rev-parse", "main", cwd=self.remote)

    @property
    def state(self) -> dict[str, str]:
        """The hash of every stored file, and git's head."""
        files = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in self._files()}
        return {**files, "head": self.head}

    @property
    def artifacts(self) -> dict[str, Any]:
        manifest = json.loads((self.objects / ".metadata" / "manifest.json").read_text())
        return dict(manifest["artifacts"])

    def document(self, name: str, which: str = "metadata") -> Any:
        return json.loads((self.objects / name / ".metadata" / f"{which}.json").read_text())

    def content(self, table: pa.Table, **parquet: Any) -> TableContent:
        path = self.folder / "fresh.parquet"
        pq.write_table(table, path, **parquet)
        data = path.read_bytes()
        sha = hashlib.sha256(data).hexdigest()
        return TableContent(data_sha(table), path, sha, len(data), table.num_rows, tuple(table.column_names))

    def stored(self, name: str, document: dict[str, Any]) -> TableContent:
        """The content of a version that R wrote. Its own hash stands: R's round trip loses some values' types."""
        table = pq.read_table(self.objects / name / f"{document['data_sha']}.parquet")
        return replace(self.content(table), data_sha=document["data_sha"])

    def wrong(self) -> list[Any]:
        return [finding for finding in findings(self.catalog) if not finding.ok]

    def _files(self) -> Iterator[Path]:
        return (path for path in self.objects.rglob("*") if path.is_file())


def again(document: dict[str, Any]) -> dict[str, Any]:
    """How a document's version was written, as arguments of `write_table`."""
    more: dict[str, Any] = {"custom": document.get("custom")}
    if document.get("original_file_sha"):
        return {**more, "original": (document["original_file_sha"], document["original_format"])}
    return {**more, "parents": document.get("parents"), "source_lineage": document.get("source_lineage") or ()}


@pytest.fixture
def basic(tmp_path: Path) -> Place:
    return Place(tmp_path, "store-basic")


@pytest.mark.parametrize("store", ["store-basic", "store-product", "store-011-upgraded"])
def test_writing_the_current_content_of_what_r_wrote_changes_no_byte(tmp_path: Path, store: str) -> None:
    place = Place(tmp_path, store)
    before = place.state
    for name, row in place.artifacts.items():
        document = place.document(name)
        # the first write of 0.2.0 over what 0.1.1 wrote is a version of its own
        if row["kind"] == "table" and document.get("schema_version") == 2:
            receipt = place.writer.write_table(name, place.stored(name, document), ANN, **again(document))
            assert (receipt.action, receipt.version, receipt.commit) == ("none", row["current_version"], None)
    assert place.state == before


@pytest.mark.parametrize("store", ["store-basic", "store-product"])
def test_writing_the_content_of_an_earlier_version_gives_its_id_and_adds_no_entry(tmp_path: Path, store: str) -> None:
    place = Place(tmp_path, store)
    for name, row in place.artifacts.items():
        history = place.document(name, "version_history")
        if row["kind"] != "table":
            continue
        for entry in history[1:]:
            row = place.artifacts[name]
            document = place.document(name, entry["version"])
            receipt = place.writer.write_table(name, place.stored(name, document), ANN, **again(document))
            assert receipt.version == entry["version"]
            assert (receipt.action == "none") == (entry["version"] == row["current_version"])
            assert place.document(name, "version_history") == history
            assert place.catalog.resolve(name, Kind.TABLE).data_sha == entry["data_sha"]
    assert place.wrong() == []


def test_a_new_version_leaves_every_older_one_readable_and_the_store_valid(basic: Place) -> None:
    old = {str(entry.version): entry.data_sha for entry in basic.catalog.history("dm")}
    receipt = basic.writer.write_table("dm", basic.content(pa.table({"x": [1, 2]})), ANN, message="Another")
    assert receipt.action == "full"
    newest, *older = basic.catalog.history("dm")
    assert (newest.version, newest.commit, newest.message) == (receipt.version, receipt.commit, "Another")
    assert {str(entry.version): entry.data_sha for entry in older} == old
    assert basic.wrong() == []


def test_a_commit_is_by_the_principal_and_committed_by_the_server(basic: Place) -> None:
    basic.writer.write_table("dm", basic.content(pa.table({"x": [1]})), author_of("Bob B"))
    said = git("log", "-1", "--format=%an <%ae>|%cn|%B", "main", cwd=basic.remote).strip()
    assert said == "Bob B <Bob.B@datom-flight.invalid>|datom-flight|Update dm"
    changed = git("show", "--name-only", "--format=", "main", cwd=basic.remote).split()
    assert changed == [".datom/manifest.json", "dm/metadata.json", "dm/version_history.json"]


def test_other_metadata_over_the_same_values_uploads_nothing(basic: Place) -> None:
    content = basic.content(pa.table({"x": [1]}))
    basic.writer.write_table("fresh", content, ANN)
    (payload,) = (basic.objects / "fresh").glob("*.parquet")
    before = payload.stat()
    receipt = basic.writer.write_table(
        "fresh", basic.content(pa.table({"x": [1]}), compression="gzip"), ANN, custom={"a": 1}
    )
    assert receipt.action == "metadata_only"
    assert receipt.parquet_sha == content.parquet_sha
    assert payload.stat() == before


def test_an_object_that_is_there_already_is_recorded_by_its_own_hash(basic: Place) -> None:
    table = pa.table({"x": list(range(1000))})
    there = basic.content(table, compression="zstd")
    basic.store.put_file(f"fresh/{there.data_sha}.parquet", there.parquet)
    ours = basic.content(table)
    assert ours.parquet_sha != there.parquet_sha
    receipt = basic.writer.write_table("fresh", ours, ANN)
    assert receipt.parquet_sha == there.parquet_sha
    assert basic.document("fresh")["size_bytes"] == there.size_bytes
    assert basic.wrong() == []


def test_half_an_object_that_nobody_refers_to_is_replaced(basic: Place) -> None:
    content = basic.content(pa.table({"x": list(range(1000))}))
    basic.store.put(f"fresh/{content.data_sha}.parquet", content.parquet.read_bytes()[:100])
    receipt = basic.writer.write_table("fresh", content, ANN)
    assert receipt.parquet_sha == content.parquet_sha
    assert basic.wrong() == []


def test_a_recorded_object_that_is_gone_is_put_back_only_by_the_same_bytes(basic: Place) -> None:
    first, second = pa.table({"x": [1]}), pa.table({"x": [2]})
    basic.writer.write_table("fresh", basic.content(first), ANN)
    basic.writer.write_table("fresh", basic.content(second), ANN)
    (basic.objects / "fresh" / f"{data_sha(first)}.parquet").unlink()
    with pytest.raises(DatomError) as refused:
        basic.writer.write_table("fresh", basic.content(first, compression="gzip"), ANN)
    assert refused.value.code == "integrity_mismatch"
    basic.writer.write_table("fresh", basic.content(first), ANN)
    assert basic.wrong() == []


def test_an_expected_version_that_is_not_current_is_a_conflict_that_names_the_current_one(basic: Place) -> None:
    first = basic.writer.write_table("fresh", basic.content(pa.table({"x": [1]})), ANN, expected="")
    for expected in ("", "0" * 64):
        again = basic.writer.write_table("fresh", basic.content(pa.table({"x": [1]})), ANN, expected=expected)
        assert (again.action, again.version) == ("none", first.version)
        with pytest.raises(DatomError) as refused:
            basic.writer.write_table("fresh", basic.content(pa.table({"x": [2]})), ANN, expected=expected)
        assert refused.value.code == "conflict"
        assert refused.value.fields == {"current": first.version}
    second = basic.writer.write_table("fresh", basic.content(pa.table({"x": [2]})), ANN, expected=first.version)
    assert second.version != first.version


def test_a_write_is_built_anew_when_others_moved_the_branch(basic: Place, tmp_path: Path) -> None:
    git("clone", "--quiet", str(basic.remote), "work", cwd=tmp_path)
    push = basic.repository.push
    rivals = iter(range(3))

    def overtaken(commit: str) -> None:
        for number in rivals:
            (tmp_path / "work" / "notes.txt").write_text(f"{number}")
            git("add", "--all", "--force", cwd=tmp_path / "work")
            git("commit", "--quiet", "--message", "Overtake", cwd=tmp_path / "work")
            git("push", "--quiet", cwd=tmp_path / "work")
            break
        push(commit)

    basic.repository.push = overtaken  # type: ignore[method-assign]
    receipt = basic.writer.write_table("dm", basic.content(pa.table({"x": [1]})), ANN)
    log = git("log", "-4", "--format=%s %P", "main", cwd=basic.remote).splitlines()
    assert [line.rpartition(" ")[0] for line in log] == ["Update dm", "Overtake", "Overtake", "Overtake"]
    assert receipt.commit == basic.head.strip()
    assert basic.wrong() == []


def test_a_set_is_written_and_read_back(basic: Place) -> None:
    version = basic.catalog.resolve("dm", Kind.TABLE).version
    member = {
        "id": {"project": "STUDY_001", "name": "dm", "kind": "table", "version": version},
        "tags": {"a": ["z", "b"]},
    }
    receipt = basic.writer.write_set("cited", [member, member], ANN, tags={"owner": "ann"})
    found = basic.catalog.resolve("cited", Kind.SET)
    payload = basic.catalog.set_payload(found)
    assert found.version == receipt.version
    assert payload.tags == {"owner": ["ann"]}
    assert payload.members == ({"id": member["id"], "tags": {"a": ["b", "z"]}},)
    assert basic.writer.write_set("cited", [member], ANN, tags={"owner": ["ann"]}).action == "none"
    assert basic.wrong() == []


def test_the_kind_of_a_name_does_not_change(basic: Place) -> None:
    member = {"id": {"project": "X", "name": "t", "kind": "table", "version": "0" * 64}}
    with pytest.raises(DatomError) as refused:
        basic.writer.write_set("dm", [member], ANN)
    assert refused.value.code == "kind_mismatch"


def test_reconciling_a_store_that_r_wrote_changes_nothing(tmp_path: Path) -> None:
    for store in STORES:
        (tmp_path / store).mkdir()
        place = Place(tmp_path / store, store)
        before = place.state
        assert place.writer.reconcile(thorough=True) == []
        assert place.state == before


def test_what_the_mirror_lost_or_has_otherwise_comes_back_byte_for_byte(basic: Place) -> None:
    before = basic.state
    (basic.objects / "dm" / ".metadata" / "version_history.json").write_text("damaged")
    (basic.objects / "dm" / ".metadata" / "metadata.json").unlink()
    for snapshot in (basic.objects / "ex" / ".metadata").glob("????????*.json"):
        snapshot.unlink()
    (basic.objects / ".metadata" / "manifest.json").unlink()
    acts = basic.writer.reconcile(thorough=True)
    assert {act.key.split("/")[0] for act in acts} == {"dm", "ex", ".metadata"}
    assert basic.state == before
    assert basic.writer.reconcile(thorough=True) == []


def test_a_commit_that_was_never_mirrored_is_finished_when_its_object_is_there(basic: Place) -> None:
    content = basic.content(pa.table({"x": [1]}))
    put = basic.store.put

    def fails(key: str, data: bytes) -> None:
        raise DatomError.of("store_unreachable", "gone")

    basic.store.put = fails  # type: ignore[method-assign]
    with pytest.raises(DatomError) as pending:
        basic.writer.write_table("fresh", content, ANN)
    assert pending.value.code == "mirror_pending"
    basic.store.put = put  # type: ignore[method-assign]
    # sent again, it is acknowledged only once the storage has it
    basic.store.put = fails  # type: ignore[method-assign]
    with pytest.raises(DatomError) as pending:
        basic.writer.write_table("fresh", content, ANN)
    assert pending.value.code == "mirror_pending"
    basic.store.put = put  # type: ignore[method-assign]
    fresh_start = Writer(basic.repository, basic.store)
    assert {act.key.split("/")[0] for act in fresh_start.reconcile()} == {"fresh", ".metadata"}
    assert basic.catalog.resolve("fresh", Kind.TABLE).version == pending.value.fields["version"]
    assert basic.wrong() == []


def test_a_commit_whose_object_is_not_there_yet_is_not_made_current(basic: Place) -> None:
    content = basic.content(pa.table({"x": [1]}))
    before = basic.catalog.resolve("dm", Kind.TABLE)
    basic.writer.write_table("dm", content, ANN)
    for key in ("metadata.json", "version_history.json"):
        (basic.objects / "dm" / ".metadata" / key).write_bytes(
            (FIXTURES / "store-basic/storage/study-001/datom/dm/.metadata" / key).read_bytes()
        )
    (basic.objects / "dm" / f"{content.data_sha}.parquet").unlink()
    acts = [act for act in basic.writer.reconcile(thorough=True) if act.key.startswith("dm/")]
    assert [(act.key, act.done) for act in acts] == [(f"dm/{content.data_sha}.parquet", False)]
    assert basic.catalog.resolve("dm", Kind.TABLE) == before


def test_a_sets_payload_comes_back_from_git(tmp_path: Path) -> None:
    place = Place(tmp_path, "store-product")
    before = place.state
    current = place.catalog.resolve("study001-adam", Kind.SET)
    (place.objects / "study001-adam" / f"{current.data_sha}.json").unlink()
    place.writer.reconcile(thorough=True)
    assert place.state == before


def test_what_differs_from_git_is_named(basic: Place) -> None:
    assert set().union(*basic.writer.differing().values()) == set()
    (basic.objects / "dm" / ".metadata" / "metadata.json").unlink()
    assert basic.writer.differing("dm") == {"dm": ["dm/.metadata/metadata.json"]}


def test_reconciling_puts_nothing_back_that_another_server_wrote_meanwhile(basic: Place) -> None:
    content = basic.content(pa.table({"x": [1]}))
    rival = Writer(BareRepository(str(basic.remote), None, "main", basic.folder / "other clones"), basic.store)
    (basic.objects / "dm" / ".metadata" / "metadata.json").unlink()
    lagging = Writer(basic.repository, LocalStore(basic.folder / "storage", basic.prefix))
    fetch = basic.repository.fetch

    def overtaken() -> str | None:
        tip = fetch()
        basic.repository.fetch = fetch  # type: ignore[method-assign]
        rival.write_table("dm", content, ANN)
        return tip

    basic.repository.fetch = overtaken  # type: ignore[method-assign]
    lagging.reconcile(thorough=True)
    assert basic.catalog.resolve("dm", Kind.TABLE).data_sha == content.data_sha
    assert basic.wrong() == []
    assert rival.differing()["dm"] == []


def test_older_documents_that_a_slower_writer_put_under_a_newer_manifest_are_found(basic: Place) -> None:
    documents = basic.objects / "dm" / ".metadata"
    older = {path: path.read_bytes() for path in documents.glob("*_history.json")}
    basic.writer.write_table("dm", basic.content(pa.table({"x": [1]})), ANN)
    for path, data in older.items():
        path.write_bytes(data)
    acts = Writer(basic.repository, basic.store).reconcile()
    assert [act.key for act in acts] == ["dm/.metadata/version_history.json"]
    assert basic.wrong() == []


def test_what_killed_writers_left_is_swept(basic: Place) -> None:
    (basic.objects / "dm" / ".writing-0123456789abcdef").write_bytes(b"half")
    before = basic.state
    basic.writer.reconcile(thorough=True)
    assert [path for path in before if path not in basic.state] == [
        str(basic.objects / "dm" / ".writing-0123456789abcdef")
    ]


def test_a_document_that_is_not_understood_keeps_no_other_from_being_repaired(basic: Place, tmp_path: Path) -> None:
    git("clone", "--quiet", str(basic.remote), "work", cwd=tmp_path)
    newer = json.dumps({**basic.document("dm"), "schema_version": 3})
    (tmp_path / "work" / "dm" / "metadata.json").write_text(newer)
    git("commit", "--quiet", "--all", "--message", "From the future", cwd=tmp_path / "work")
    git("push", "--quiet", cwd=tmp_path / "work")
    (basic.objects / "ex" / ".metadata" / "metadata.json").unlink()
    acts = basic.writer.reconcile(thorough=True)
    assert [(act.key, act.done) for act in acts] == [
        ("dm/.metadata/metadata.json", False),
        ("ex/.metadata/metadata.json", True),
    ]
