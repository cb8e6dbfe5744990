"""Which version a request names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.model import DataLocation, Kind, Project
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.catalog import Catalog
from datom_flight_server.versions.documents import Documents
from support.counting import CountingStore
from support.stores import add_version, write_store

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"


def catalog_of(
    root: Path, prefix: str = "", documents: Documents | None = None, name: str = "STUDY_001"
) -> tuple[Catalog, CountingStore]:
    store = CountingStore(LocalStore(root, prefix))
    project = Project(name, DataLocation("local", str(root), prefix))
    return Catalog(project, store, documents or Documents(0)), store


@pytest.fixture
def basic() -> Catalog:
    return catalog_of(FIXTURES / "store-basic" / "storage", "study-001")[0]


def versions_of(catalog: Catalog, name: str) -> list[str]:
    return [str(entry.version) for entry in catalog.history(name)]


def test_the_current_version_is_the_one_whose_document_is_current(basic: Catalog) -> None:
    assert basic.resolve("dm", Kind.TABLE).version == versions_of(basic, "dm")[0]


def test_after_a_revert_the_current_version_is_not_the_newest(basic: Catalog) -> None:
    found = basic.resolve("revert_current", Kind.TABLE)
    assert found.version == versions_of(basic, "revert_current")[1]


def test_of_two_versions_with_the_same_values_the_newest_is_current_where_no_time_tells(basic: Catalog) -> None:
    assert basic.resolve("revert_ambiguous", Kind.TABLE).version == versions_of(basic, "revert_ambiguous")[0]


def test_a_unique_prefix_names_a_version(basic: Catalog) -> None:
    for version in versions_of(basic, "dm"):
        assert basic.resolve("dm", Kind.TABLE, version[:6]).version == version


def test_the_version_of_an_instant_includes_the_second_it_was_written(basic: Catalog) -> None:
    for entry in basic.history("dm"):
        assert basic.resolve("dm", Kind.TABLE, as_of=entry.timestamp).version == entry.version


def test_an_instant_between_two_versions_names_the_earlier(basic: Catalog) -> None:
    entries = basic.history("dm")
    found = basic.resolve("dm", Kind.TABLE, as_of="2026-11-23T05:47:06.5Z")
    assert found.version == entries[2].version


def test_an_instant_in_another_zone_is_the_same_instant(basic: Catalog) -> None:
    found = basic.resolve("dm", Kind.TABLE, as_of="2026-11-23T07:47:04+02:00")
    assert found.version == basic.history("dm")[2].version


def test_a_bare_date_is_the_end_of_that_day(basic: Catalog) -> None:
    assert basic.resolve("dm", Kind.TABLE, as_of="2026-11-23").version == versions_of(basic, "dm")[0]
    with pytest.raises(DatomError) as refused:
        basic.resolve("dm", Kind.TABLE, as_of="2026-11-22")
    assert refused.value.code == "version_not_found"


def test_as_of_knows_when_a_revert_took_place(basic: Catalog) -> None:
    newer, older = versions_of(basic, "revert_current")
    assert basic.resolve("revert_current", Kind.TABLE, as_of="2026-11-23T05:47:35Z").version == older
    assert basic.resolve("revert_current", Kind.TABLE, as_of="2026-11-23T05:47:36Z").version == newer
    assert basic.resolve("revert_current", Kind.TABLE, as_of="2026-11-23T05:47:37Z").version == older


def test_a_pinned_version_costs_no_request_once_seen(tmp_path: Path) -> None:
    ids = write_store(tmp_path, {"dm": [pa.table({"x": [1]}), pa.table({"x": [2]})]})
    catalog, store = catalog_of(tmp_path)
    pinned = catalog.resolve("dm", Kind.TABLE, ids["dm"][0])
    asked = store.requests
    assert catalog.resolve("dm", Kind.TABLE, ids["dm"][0]) == pinned
    assert store.requests == asked


def test_resolved_versions_of_all_projects_are_kept_within_their_bytes(tmp_path: Path) -> None:
    documents = Documents(0, max_version_bytes=2500)
    ids = write_store(tmp_path, {name: [pa.table({"x": [1]})] for name in ("dm", "ae")})
    one, store = catalog_of(tmp_path, documents=documents)
    other, other_store = catalog_of(tmp_path, documents=documents, name="STUDY_002")

    def requests(catalog: Catalog, asked: CountingStore, name: str) -> int:
        before = asked.requests
        assert catalog.resolve(name, Kind.TABLE, ids[name][0]).project == catalog.project.name
        return asked.requests - before

    assert requests(one, store, "dm") > 0
    assert requests(one, store, "dm") == 0
    assert requests(other, other_store, "dm") > 0, "another project's is another"
    assert requests(one, store, "dm") == 0
    assert requests(one, store, "ae") > 0
    assert requests(one, store, "dm") == 0
    assert requests(other, other_store, "dm") > 0, "it was used longest ago"


def test_a_version_resolved_as_current_is_known_when_it_is_pinned(tmp_path: Path) -> None:
    write_store(tmp_path, {"dm": [pa.table({"x": [1]})]})
    catalog, _ = catalog_of(tmp_path)
    current = catalog.resolve("dm", Kind.TABLE)
    shutil.rmtree(tmp_path / "datom")
    assert catalog.resolve("dm", Kind.TABLE, current.version) == current


def test_a_pinned_table_asked_for_as_a_set_is_still_a_table(tmp_path: Path) -> None:
    ids = write_store(tmp_path, {"dm": [pa.table({"x": [1]})]})
    catalog, _ = catalog_of(tmp_path)
    catalog.resolve("dm", Kind.TABLE, ids["dm"][0])
    with pytest.raises(DatomError) as refused:
        catalog.resolve("dm", Kind.SET, ids["dm"][0])
    assert refused.value.code == "kind_mismatch"


def test_a_new_version_is_current_as_soon_as_its_documents_are_written(tmp_path: Path) -> None:
    write_store(tmp_path, {"dm": [pa.table({"x": [1]})]})
    catalog, _ = catalog_of(tmp_path)
    catalog.resolve("dm", Kind.TABLE)
    added = add_version(tmp_path, "dm", pa.table({"x": [2]}))
    assert catalog.resolve("dm", Kind.TABLE).version == added


def test_a_full_id_that_is_not_known_yet_is_looked_for_in_the_storage(tmp_path: Path) -> None:
    write_store(tmp_path, {"dm": [pa.table({"x": [1]})]})
    catalog, store = catalog_of(tmp_path, documents=Documents(1000))
    catalog.resolve("dm", Kind.TABLE)
    version = add_version(tmp_path, "dm", pa.table({"x": [2]}))
    assert catalog.resolve("dm", Kind.TABLE, version).version == version
    requests = store.requests
    with pytest.raises(DatomError, match="no version"):
        catalog.resolve("dm", Kind.TABLE, "0" * 64)
    with pytest.raises(DatomError, match="no version"):
        catalog.resolve("dm", Kind.TABLE, "0" * 8)
    assert store.requests == requests + 1


def test_a_version_that_lands_between_the_two_documents_has_its_name(tmp_path: Path) -> None:
    write_store(tmp_path, {"dm": [pa.table({"x": [1]})]})
    catalog, _ = catalog_of(tmp_path, documents=Documents(1000))
    catalog.history("dm")
    added = add_version(tmp_path, "dm", pa.table({"x": [2]}))
    # the history is kept from before, the metadata is new
    assert catalog.resolve("dm", Kind.TABLE).version == added


def test_a_current_version_without_a_name_is_bound_to_its_values(tmp_path: Path) -> None:
    write_store(tmp_path, {"dm": [pa.table({"x": [1]})]})
    (tmp_path / "datom" / "dm" / ".metadata" / "version_history.json").write_text("[]")
    catalog, _ = catalog_of(tmp_path)
    found = catalog.resolve("dm", Kind.TABLE)
    assert found.version is None
    assert catalog.resolve("dm", Kind.TABLE, data_sha=found.data_sha) == found
    add_version(tmp_path, "dm", pa.table({"x": [2]}))
    with pytest.raises(DatomError) as refused:
        catalog.resolve("dm", Kind.TABLE, data_sha=found.data_sha)
    assert refused.value.code == "version_not_found"


@pytest.mark.parametrize("version", ["", "zz", "0" * 64, "0" * 65, "../../x", "8A3B"])
def test_what_names_no_version_is_not_found(basic: Catalog, version: str) -> None:
    with pytest.raises(DatomError) as refused:
        basic.resolve("dm", Kind.TABLE, version or "0")
    assert refused.value.code == "version_not_found"
    assert "newest: a842f6ab" in refused.value.message


def test_the_metadata_of_a_version_is_its_snapshot(basic: Catalog) -> None:
    for name in ("dm", "revert_ambiguous"):
        folder = FIXTURES / "store-basic" / "storage" / "study-001" / "datom" / name / ".metadata"
        for version in versions_of(basic, name):
            assert basic.metadata(name, version) == json.loads((folder / f"{version}.json").read_text())
        assert basic.metadata(name) == json.loads((folder / "metadata.json").read_text())


def test_a_current_version_whose_snapshot_is_not_there_yet_has_its_document(tmp_path: Path) -> None:
    (version,) = write_store(tmp_path, {"dm": [pa.table({"x": [1]})]})["dm"]
    (tmp_path / "datom" / "dm" / ".metadata" / f"{version}.json").unlink()
    catalog, _ = catalog_of(tmp_path)
    assert catalog.metadata("dm", version) == catalog.metadata("dm")


def test_a_set_is_read_only_when_its_payload_has_the_recorded_hash() -> None:
    catalog, _ = catalog_of(FIXTURES / "store-product" / "storage")
    payload = catalog.set_payload(catalog.resolve("study001-adam", Kind.SET))
    assert [member["id"]["name"] for member in payload.members] == ["adlb", "adsl"]


def test_whether_governance_rules_is_asked_once(tmp_path: Path) -> None:
    write_store(tmp_path, {"dm": [pa.table({"x": [1]})]})
    catalog, store = catalog_of(tmp_path)
    assert not catalog.claims_governance()
    asked = store.requests
    assert not catalog.claims_governance()
    assert store.requests == asked
