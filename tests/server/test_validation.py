"""Validation finds what is wrong with a store, and nothing in one that R wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from datom_flight_server.model import DataLocation, Project
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.catalog import Catalog
from datom_flight_server.versions.documents import Documents
from datom_flight_server.versions.validation import Finding, findings

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"


def findings_of(root: Path, prefix: str = "", name: str | None = None) -> list[Finding]:
    project = Project("P", DataLocation("local", str(root), prefix))
    return list(findings(Catalog(project, LocalStore(root, prefix), Documents(0)), name))


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "store-product" / "storage", tmp_path / "storage"))


def wrong(root: Path) -> list[tuple[str | None, str]]:
    return [(finding.table, finding.check) for finding in findings_of(root) if not finding.ok]


@pytest.mark.parametrize(
    ("store", "prefix"),
    [
        ("store-basic", "study-001"),
        ("store-product", ""),
        ("store-product2", "a/b"),
        ("store-011", ""),
        ("store-011-upgraded", ""),
    ],
)
def test_a_store_that_r_wrote_is_valid(store: str, prefix: str) -> None:
    found = findings_of(FIXTURES / store / "storage", prefix)
    assert [finding for finding in found if not finding.ok] == []
    assert {"manifest", "metadata", "history", "snapshot", "payload"} == {finding.check for finding in found}


def test_one_table_can_be_validated_alone(product: Path) -> None:
    assert {finding.table for finding in findings_of(product, name="adsl")} == {"adsl"}


def test_altered_bytes_are_found(product: Path) -> None:
    payload = next((product / "datom" / "adsl").glob("*.parquet"))
    payload.write_bytes(payload.read_bytes()[:-1] + b"?")
    assert wrong(product) == [("adsl", "payload")]


def test_a_lost_snapshot_is_found(product: Path) -> None:
    current = json.loads((product / "datom" / ".metadata" / "manifest.json").read_text())["artifacts"]["adlb"]
    (product / "datom" / "adlb" / ".metadata" / f"{current['current_version']}.json").unlink()
    assert wrong(product) == [("adlb", "snapshot")]


def test_an_edited_document_is_found(product: Path) -> None:
    path = product / "datom" / "adsl" / ".metadata" / "metadata.json"
    path.write_text(path.read_text().replace('"nrow": ', '"nrow": 1'))
    assert wrong(product) == [("adsl", "metadata")]


def test_an_edited_custom_value_is_found(tmp_path: Path) -> None:
    root = Path(shutil.copytree(FIXTURES / "store-basic" / "storage", tmp_path / "storage"))
    (path,) = (root / "study-001" / "datom" / "custom_numbers" / ".metadata").glob("6b25*.json")
    path.write_text(path.read_text().replace('"e": 0.3333', '"e": 0.3334'))
    assert [finding.check for finding in findings_of(root, "study-001") if not finding.ok] == ["snapshot"]


def test_a_manifest_that_lags_behind_is_found(product: Path) -> None:
    path = product / "datom" / ".metadata" / "manifest.json"
    path.write_text(path.read_text().replace('"version_count": 6', '"version_count": 5'))
    assert wrong(product) == [("study001-adam", "manifest")]
