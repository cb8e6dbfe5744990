"""Prefetched tables are read without a word to the storage, from a folder as from S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from support.answers import code_of
from support.s3 import S3Server
from support.server import Server, running, write_config
from support.stores import write_store

DM = [pa.table({"USUBJID": [f"01-{number:03d}" for number in range(rows)]}) for rows in (10, 20)]
AE = pa.table({"AETERM": ["Headache", "Nausea"]})


@dataclass
class Stage:
    """A server over a storage that can be taken away."""

    server: Server
    versions: dict[str, list[str]]
    storage: Path

    def lose_storage(self) -> None:
        self.storage.rename(self.storage.with_name("elsewhere"))


@pytest.fixture(params=["folder", "S3"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    versions = write_store(tmp_path / "store", {"dm": DM, "ae": [AE]})
    with ExitStack() as ending:
        if request.param == "S3":
            s3: S3Server = request.getfixturevalue("s3")
            bucket = tmp_path.name.replace("_", "-").lower()
            s3.upload(tmp_path / "store", bucket)
            storage, project = s3.folder / bucket, s3.settings(bucket)
        else:
            storage, project = tmp_path / "store", {"data": f"file://{tmp_path / 'store'}"}
        config = write_config(tmp_path / "server", {"STUDY_001": project, "STUDY_002": project})
        yield Stage(ending.enter_context(running(config)), versions, storage)


def prefetched(stage: Stage, token: str | None = None, **body: Any) -> list[dict[str, Any]]:
    action = flight.Action("datom.prefetch", json.dumps({"project": "STUDY_001", **body}).encode())
    with stage.server.raw() as client:
        return [json.loads(bytes(row.body)) for row in client.do_action(action, stage.server.call_options(token))]


def test_a_prefetched_version_is_read_without_the_storage(stage: Stage) -> None:
    with stage.server.connect("STUDY_001") as conn:
        old, new = stage.versions["dm"]
        [first] = conn.prefetch("dm", version=old[:8])
        assert (first.table, first.version, first.fetched, first.error) == ("dm", old, True, None)
        rest = conn.prefetch()
        assert [(found.table, found.version, found.fetched) for found in rest] == [
            ("dm", new, True),
            ("ae", stage.versions["ae"][0], True),
        ]
        assert [found.fetched for found in conn.prefetch(["dm", "ae"])] == [False, False]
        pin = conn.pin()
        assert [found.version for found in conn.prefetch(pin=pin)] == [stage.versions["ae"][0], new]
        conn.schema("dm", version=new)
        stage.lose_storage()
        assert conn.schema("dm", version=new).names == ["USUBJID"]
        for version, rows in zip((old, new), DM, strict=True):
            assert conn.read("dm", version=version).replace_schema_metadata(None).equals(rows)
        assert conn.read("ae", version=stage.versions["ae"][0]).replace_schema_metadata(None).equals(AE)
        assert [found.fetched for found in conn.prefetch(pin=pin)] == [False, False], "pins need no storage either"


def test_any_client_may_name_one_table_or_several_or_none(stage: Stage) -> None:
    [dm] = prefetched(stage, table="dm", as_of="2026-01-20")
    assert dm == {
        "table": "dm",
        "version": stage.versions["dm"][0],
        "data_sha": dm["data_sha"],
        "size_bytes": dm["size_bytes"],
        "fetched": True,
        "error": None,
        "detail": None,
    }
    assert dm["size_bytes"] > 0
    both = prefetched(stage, tables=["ae", "nope", "dm"])
    assert [(row["table"], row["fetched"], row["error"]) for row in both] == [
        ("ae", True, None),
        ("nope", False, "not_found"),
        ("dm", True, None),
    ]
    assert '"nope"' in both[1]["detail"]
    every = prefetched(stage, as_of="2026-01-20")
    assert [(row["table"], row["version"], row["fetched"]) for row in every] == [
        ("dm", stage.versions["dm"][0], False),
        ("ae", stage.versions["ae"][0], False),
    ]


def test_a_caller_without_rights_learns_nothing_and_fetches_nothing(stage: Stage) -> None:
    stranger = stage.server.token("reader", "STUDY_002", principal="bob")
    told = []
    bodies: list[dict[str, Any]] = [{}, {"table": "dm"}, {"tables": ["dm", "nope"]}]
    for project in ("STUDY_001", "NOWHERE"):
        for body in bodies:
            with pytest.raises(flight.FlightError) as refused:
                prefetched(stage, stranger, **{"project": project, **body})
            assert code_of(refused.value) == "not_found"
            told.append(json.loads(refused.value.extra_info)["message"].replace(project, "…"))
    assert len(set(told)) == 1
    assert [row["fetched"] for row in prefetched(stage)] == [True, True]


@pytest.mark.parametrize("stage", ["folder"], indirect=True)
def test_what_is_asked_wrongly_is_refused_whole(stage: Stage) -> None:
    wrong: list[dict[str, Any]] = [
        {"table": "dm", "tables": ["ae"]},
        {"tables": []},
        {"tables": "dm"},
        {"tables": [7]},
        {"tables": ["../dm"]},
        {"version": "ab"},
        {"tables": ["dm", "ae"], "version": "ab"},
        {"table": "dm", "version": "ab", "as_of": "2026-01-01"},
        {"names": ["dm"]},
    ]
    for body in wrong:
        with pytest.raises(flight.FlightError) as refused:
            prefetched(stage, **body)
        assert code_of(refused.value) in ("invalid_argument", "invalid_name")
