"""The demo's study and store: the same everywhere, exactly in the format, and readable by datom's own Python reader."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import datom
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pygit2
import pytest

from datom_flight.identity import data_sha
from datom_flight.protocol.errors import DatomError
from datom_flight_server.demo import data
from datom_flight_server.demo.store import Organisation, create_organisation
from datom_flight_server.metadata.jsonlite import parse
from support.expected import FIXTURES
from support.git import git

SIX = range(1, 7)
GOVERNED = FIXTURES / "gov"


@pytest.fixture(scope="module")
def organisation(tmp_path_factory: pytest.TempPathFactory) -> Organisation:
    """Six cuts in a folder nobody writes to afterwards."""
    made = create_organisation(tmp_path_factory.mktemp("demo"))
    for number in SIX:
        made.write_cut(number)
    return made


def reader(organisation: Organisation) -> Any:
    """datom's own Python reader, on the demo's project."""
    location = organisation.project.location
    with pytest.warns(datom.GovernanceAttachedWarning):
        return datom.get_conn(datom.store_local(location.root, location.prefix), organisation.project.name)


def objects_of(organisation: Organisation) -> Path:
    return Path(organisation.project.location.root) / organisation.project.location.prefix / "datom"


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def git_file(repository: Path, path: str, commit: str = "refs/heads/main") -> bytes:
    found = pygit2.Repository(str(repository)).revparse_single(commit).peel(pygit2.Commit).tree[path]
    assert isinstance(found, pygit2.Blob)
    return bytes(found.data)


# The data.


def test_a_cut_is_the_same_at_every_call() -> None:
    assert all(table.equals(data.cut(4)[name]) for name, table in data.cut(4).items())
    assert [data_sha(table) for table in data.cut(4).values()] == [data_sha(table) for table in data.cut(4).values()]


def test_six_cuts_hold_48_subjects_and_three_more_bring_more() -> None:
    subjects = [set(data.cut(number)["dm"]["USUBJID"].to_pylist()) for number in data.CUTS]
    assert len(subjects[5]) >= 48
    assert list(data.CUTS) == list(range(1, 10))
    for earlier, later in pairwise(subjects):
        assert earlier < later


@pytest.mark.parametrize("name", data.TABLES)
def test_every_cut_changes_every_table(name: str) -> None:
    hashes = [data_sha(data.cut(number)[name]) for number in data.CUTS]
    assert len(set(hashes)) == len(hashes)


def test_every_cut_has_the_same_tables_and_schemas() -> None:
    first = data.cut(1)
    assert tuple(first) == data.TABLES
    for number in data.CUTS:
        assert [table.schema for table in data.cut(number).values()] == [table.schema for table in first.values()]


def test_nothing_in_a_cut_is_of_a_later_day() -> None:
    for number in data.CUTS:
        last = data.cut_day(number).isoformat()
        for table in data.cut(number).values():
            for column in table.column_names:
                if column.endswith("DTC"):
                    days = [day for day in table[column].to_pylist() if day is not None]
                    assert not days or max(days) <= last


def test_the_tables_are_of_one_study() -> None:
    tables = data.cut(9)
    subjects = set(tables["dm"]["USUBJID"].to_pylist())
    for name, table in tables.items():
        assert table["STUDYID"].unique().to_pylist() == ["STUDY_001"]
        assert table["DOMAIN"].unique().to_pylist() == [name.upper()]
        assert set(table["USUBJID"].to_pylist()) <= subjects
        assert len(set(table.column_names)) == table.num_columns


def test_the_columns_have_the_types_that_sdtm_gives_them() -> None:
    tables = data.cut(6)
    for name, column in (("dm", "SEX"), ("dm", "ARM"), ("lb", "LBNRIND"), ("ae", "AESEV")):
        assert pa.types.is_dictionary(tables[name].schema.field(column).type)
    assert tables["dm"].schema.field("AGE").type == pa.int32()
    assert tables["ex"].schema.field("EXDOSE").type == pa.float64()
    assert tables["lb"].schema.field("LBSTRESN").type == pa.float64()
    assert tables["dm"].schema.field("RFSTDTC").type == pa.string()
    assert tables["lb"]["LBSTRESN"].null_count == tables["lb"]["LBORRES"].null_count > 0
    assert pc.all(pc.not_equal(tables["lb"]["LBDY"], 0)).as_py()


def test_a_cut_that_never_was_is_refused() -> None:
    for number in (0, 10, -1):
        with pytest.raises(DatomError) as refused:
            data.cut(number)
        assert refused.value.code == "invalid_argument"


# The store.


def test_versions_are_the_same_on_every_machine(organisation: Organisation, tmp_path: Path) -> None:
    elsewhere = create_organisation(tmp_path / "a folder # with odd: näme")
    assert elsewhere.write_cut(1, when=datetime(2030, 1, 1, tzinfo=UTC)) == {
        "dm": "2cae4097ad7bb18f0414e4ec73fb0a3aea453c10628c1c123b717480b0595a0e",
        "ex": "4276b148f0309586daa991d2d066b80a9d1edca527f54b39cded9f7371d66573",
        "lb": "75bdd821352de7f06c8ba1011312dff6af4e57433c057778d55d6c368f1fdf54",
        "ae": "9dcdd8f5f3629795cef581191eb963eb109d4f9710a4c1548d9d7d09ed7cd7f5",
    }
    assert [row["version"] for row in datom_rows(organisation, "dm")][-1].startswith("2cae4097")


def datom_rows(organisation: Organisation, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = datom.history(reader(organisation), name, n=100).to_dict("records")
    return rows


@pytest.mark.parametrize("name", data.TABLES)
def test_the_official_reader_reads_every_version_as_it_was_written(organisation: Organisation, name: str) -> None:
    connection = reader(organisation)
    rows = datom_rows(organisation, name)
    assert len(rows) == len(SIX)
    for number, row in zip(reversed(SIX), rows, strict=True):
        written = data.cut(number)[name]
        table = datom.read(connection, name, row["version"], as_arrow=True)
        assert table.equals(written)
        assert table.schema == written.schema
        assert row["data_sha"] == data_sha(table)
        assert row["timestamp"].startswith(data.cut_day(number).isoformat())
        assert row["author"] == "Dana Engineer <dana@acme.example>"
    assert datom.read(connection, name, as_arrow=True).equals(data.cut(6)[name])


def test_the_official_reader_lists_every_table_at_its_current_version(organisation: Organisation) -> None:
    listed = datom.list_artifacts(reader(organisation), include_versions=True, short_hash=False).to_dict("records")
    assert [row["name"] for row in listed] == list(data.TABLES)
    for row in listed:
        newest = datom_rows(organisation, row["name"])[0]
        assert row["kind"] == "table"
        assert row["version_count"] == len(SIX)
        assert (row["current_version"], row["current_data_sha"]) == (newest["version"], newest["data_sha"])
        assert row["last_updated"] == newest["timestamp"]


def test_documents_have_the_fields_of_r_s_in_r_s_order(organisation: Organisation) -> None:
    ours, rs = objects_of(organisation), GOVERNED / "data-study-001" / "storage" / "study-001" / "datom"
    for key in ("dm/.metadata/metadata.json", "dm/.metadata/version_history.json", ".metadata/governance.json"):
        assert shape(parse((ours / key).read_bytes())) == shape(parse((rs / key).read_bytes()))
    our_manifest, r_manifest = (parse((root / ".metadata/manifest.json").read_bytes()) for root in (ours, rs))
    our_manifest["artifacts"] = {"dm": our_manifest["artifacts"]["dm"]}
    assert shape(our_manifest) == shape(r_manifest)
    mirrored = organisation.governance_storage / "datom" / "projects" / "STUDY_001"
    for path in mirrored.iterdir():
        r_document = GOVERNED / "gov-storage" / "datom" / "projects" / "STUDY_001" / path.name
        assert shape(parse(path.read_bytes())) == shape(parse(r_document.read_bytes()))
    assert len(list(mirrored.iterdir())) == 3


def shape(value: Any) -> Any:
    """Keys in order, and types; of a list, its first element's."""
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


def test_storage_holds_what_the_history_names_and_nothing_else(organisation: Organisation) -> None:
    expected = {".metadata/manifest.json", ".metadata/governance.json"}
    for name in data.TABLES:
        expected |= {f"{name}/.metadata/metadata.json", f"{name}/.metadata/version_history.json"}
        for row in datom_rows(organisation, name):
            expected |= {f"{name}/.metadata/{row['version']}.json", f"{name}/{row['data_sha']}.parquet"}
    assert files(objects_of(organisation)).keys() == expected


def test_payloads_are_stored_as_r_stores_them(organisation: Organisation) -> None:
    for path in objects_of(organisation).glob("*/*.parquet"):
        documents = [parse(snapshot.read_bytes()) for snapshot in path.parent.glob(f".metadata/{'?' * 64}.json")]
        document = next(found for found in documents if found["data_sha"] == path.stem)
        assert document["parquet_sha"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert document["size_bytes"] == path.stat().st_size
        metadata = pq.read_metadata(path)
        assert b"ARROW:schema" in metadata.metadata
        column = metadata.row_group(0).column(2)
        assert (column.compression, column.is_stats_set) == ("SNAPPY", True)
        assert column.has_dictionary_page


def test_storage_mirrors_git_and_adds_the_commit_of_each_version(organisation: Organisation) -> None:
    repository = Path(organisation.data_repository.url)
    manifest = git_file(repository, ".datom/manifest.json")
    assert (objects_of(organisation) / ".metadata/manifest.json").read_bytes() == manifest
    for name in data.TABLES:
        current = git_file(repository, f"{name}/metadata.json")
        assert (objects_of(organisation) / name / ".metadata/metadata.json").read_bytes() == current
        stored = parse((objects_of(organisation) / name / ".metadata/version_history.json").read_bytes())
        recorded = parse(git_file(repository, f"{name}/version_history.json"))
        assert [{k: v for k, v in row.items() if k != "commit_sha"} for row in stored] == recorded
        for row in stored:
            assert list(row)[-1] == "commit_sha"
            at_commit = parse(git_file(repository, f"{name}/version_history.json", row["commit_sha"]))
            assert at_commit[0]["version"] == row["version"]
            commit = pygit2.Repository(str(repository))[row["commit_sha"]].peel(pygit2.Commit)
            assert commit.message == row["commit_message"]


def test_each_write_commits_exactly_its_three_documents(organisation: Organisation) -> None:
    repository = pygit2.Repository(organisation.data_repository.url)
    commits = list(repository.walk(repository.references["refs/heads/main"].target))
    assert [commit.message for commit in commits[-2:]] == [
        "Attach governance: STUDY_001",
        "Initialize datom repository",
    ]
    assert len(commits) == 2 + len(SIX) * len(data.TABLES)
    for commit in commits[:-2]:
        name = commit.message.partition(":")[0]
        changed = {delta.new_file.path for delta in repository.diff(commit.parents[0], commit).deltas}
        assert changed == {f"{name}/metadata.json", f"{name}/version_history.json", ".datom/manifest.json"}


def test_the_data_repository_clones_like_r_s(organisation: Organisation, tmp_path: Path) -> None:
    pygit2.clone_repository(organisation.data_repository.url, str(tmp_path / "clone"))
    found = {path for path in files(tmp_path / "clone") if not path.startswith(".git/")}
    documents = {f"{name}/{file}.json" for name in data.TABLES for file in ("metadata", "version_history")}
    project = {".datom/manifest.json", ".datom/project.yaml", ".datom/governance.json", ".gitignore", "README.md"}
    assert found == documents | project
    bundle = GOVERNED / "data-study-001" / "repo.bundle"
    git("clone", "--quiet", str(bundle), "r", cwd=tmp_path)
    ours, rs = ((tmp_path / folder / ".datom/project.yaml").read_text() for folder in ("clone", "r"))
    assert yaml_keys(ours) == yaml_keys(rs)
    assert (tmp_path / "clone/.gitignore").read_bytes() == (tmp_path / "r/.gitignore").read_bytes()


def yaml_keys(text: str) -> list[str]:
    return [line.partition(":")[0] for line in text.splitlines()]


def test_the_governance_repository_says_where_the_data_is(organisation: Organisation) -> None:
    reference = git_file(organisation.governance_repository, "projects/STUDY_001/ref.json")
    location = organisation.project.location
    place = {"type": "local", "root": location.root, "prefix": location.prefix}
    assert parse(reference) == {"current": place, "previous": []}
    mirrored = organisation.governance_storage / "datom" / "projects" / "STUDY_001" / "ref.json"
    assert mirrored.read_bytes() == reference


def test_opening_an_organisation_again_changes_nothing_and_continues(tmp_path: Path) -> None:
    made = create_organisation(tmp_path)
    assert made.cuts_written == 0
    first, second = made.write_cut(1), made.write_cut(2)
    before = files(tmp_path)
    again = create_organisation(tmp_path)
    assert again.cuts_written == 2
    assert again.write_cut(2) == second
    assert again.write_cut(1) == first
    assert files(tmp_path) == before
    assert again.write_cut(3)["dm"] not in (first["dm"], second["dm"])
    assert again.cuts_written == 3


def test_a_write_that_stopped_after_its_commit_is_finished_when_opened_again(tmp_path: Path) -> None:
    made = create_organisation(tmp_path)
    made.write_cut(1)
    objects = objects_of(made)
    shutil.copytree(objects, tmp_path / "before")
    version = made.write_cut(2)["dm"]
    finished = files(objects)
    # put every document back as it was before the cut; the payloads, which go first, stay
    for path, content in files(tmp_path / "before").items():
        (objects / path).write_bytes(content)
    (objects / "dm" / ".metadata" / f"{version}.json").unlink()
    assert files(objects) != finished
    create_organisation(tmp_path)
    assert files(objects) == finished


def test_a_payload_left_behind_by_a_write_that_stopped_is_taken_over(tmp_path: Path) -> None:
    made = create_organisation(tmp_path)
    table = data.cut(1)["dm"]
    left_behind = objects_of(made) / "dm" / f"{data_sha(table)}.parquet"
    left_behind.parent.mkdir(parents=True)
    pq.write_table(table, left_behind, compression="zstd")
    made.write_cut(1)
    assert datom.read(reader(made), "dm", as_arrow=True).equals(table)


def test_an_organisation_that_was_moved_is_refused(tmp_path: Path) -> None:
    create_organisation(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(DatomError) as refused:
        create_organisation(tmp_path / "there")
    assert refused.value.code == "invalid_argument"
