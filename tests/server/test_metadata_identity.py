"""Versions and set identities against R's own, in golden vectors and in every store R wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.metadata.identity import (
    expected_version,
    metadata_sha,
    schema_1_metadata_sha,
    set_data_sha,
)
from datom_flight_server.metadata.jsonlite import as_read_by_r, compact, parse
from support.expected import FIXTURES, STORES

GOLDEN = json.loads((FIXTURES / "golden-cv1.json").read_text())
SETS = GOLDEN["sv1"]


@pytest.mark.parametrize("vector", GOLDEN["metadata_sha"], ids=lambda vector: vector["id"])
def test_a_golden_document_has_the_version_r_gave_it(vector: dict[str, Any]) -> None:
    # A vector from R is an R object; its canonical text holds all of it that counts.
    document = as_read_by_r(parse(vector["metadata_json"])) if vector["from"] == "json" else parse(vector["canonical"])
    assert metadata_sha(document) == vector["metadata_sha"]


def test_fields_that_say_nothing_of_the_content_are_no_part_of_the_version() -> None:
    vector = next(vector for vector in GOLDEN["metadata_sha"] if vector["id"] == "pkg-builder-full")
    document = parse(vector["canonical"])
    document = {"created_at": "2026-01-01T00:00:00Z", "parquet_sha": "x", "unknown": [1], "size_bytes": 9, **document}
    assert metadata_sha(document) == vector["metadata_sha"]


def test_versions_that_differ_beyond_the_fourth_decimal_are_one() -> None:
    assert metadata_sha({"custom": {"x": 0.123456789}}) == metadata_sha({"custom": {"x": 0.1235}})
    assert metadata_sha({"custom": {"x": 0.1236}}) != metadata_sha({"custom": {"x": 0.1235}})


def snapshots() -> Iterator[Any]:
    roots = [store.data for store in STORES] + [path.parent for path in (FIXTURES / "gov").rglob("datom/dm")]
    for root in roots:
        for path in sorted(root.rglob(".metadata/*.json")):
            if len(path.stem) == 64:
                yield pytest.param(path, id=path.relative_to(FIXTURES).as_posix())


@pytest.mark.parametrize("path", list(snapshots()))
def test_a_stored_snapshot_hashes_to_the_version_it_is_stored_under(path: Path) -> None:
    assert expected_version(parse(path.read_bytes())) == path.stem


def test_r_reading_a_snapshot_back_finds_the_version_r_would() -> None:
    for store in STORES:
        for name, artifact in store.index.items():
            for version, facts in artifact["versions"].items():
                found_by_r = facts.get("metadata_sha_of_stored_snapshot")
                if found_by_r is None:
                    continue
                document = parse((store.data / name / ".metadata" / f"{version}.json").read_bytes())
                assert metadata_sha(as_read_by_r(document)) == found_by_r


def test_the_rule_follows_the_schema_version() -> None:
    document = {"data_sha": "d", "project": "P", "created_at": "t"}
    assert expected_version(document) == schema_1_metadata_sha(document)
    assert expected_version({**document, "schema_version": 2}) == metadata_sha(document)
    assert metadata_sha(document) != schema_1_metadata_sha(document)


@pytest.mark.parametrize("vector", SETS, ids=lambda vector: vector["id"])
def test_a_golden_set_has_the_identity_r_gave_it(vector: dict[str, Any]) -> None:
    assert set_data_sha(vector["payload"]) == vector["data_sha"]


def test_a_stored_set_hashes_to_the_address_it_is_stored_under() -> None:
    payloads = [path for store in STORES for path in store.data.glob("*/*.json") if len(path.stem) == 64]
    assert len(payloads) >= 5
    for path in payloads:
        assert set_data_sha(parse(path.read_bytes())) == path.stem


def test_order_and_repetition_in_a_set_do_not_matter() -> None:
    payload = next(vector["payload"] for vector in SETS if vector["id"] == "pkg-golden")
    members = payload["members"]
    assert set_data_sha({**payload, "members": [*reversed(members), members[0]]}) == set_data_sha(payload)


@pytest.mark.parametrize(
    "payload",
    [{}, {"members": {}}, {"members": ["x"]}, {"members": [{"id": "x"}]}, {"members": [], "tags": {"a": 1}}],
    ids=compact,
)
def test_a_malformed_set_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(DatomError) as refused:
        set_data_sha(payload)
    assert refused.value.code in ("set_payload_malformed", "set_member_malformed")
