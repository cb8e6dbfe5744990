"""What a new project begins with, against the first commits that R datom 0.2.0 made."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st

from datom_flight.protocol.errors import DatomError
from datom_flight_server.metadata.current import Current
from datom_flight_server.metadata.jsonlite import parse
from datom_flight_server.metadata.manifest import MANIFEST_PATH
from datom_flight_server.metadata.skeleton import INITIAL_MESSAGE, PROJECT_PATH, project_files, yaml_text
from datom_flight_server.model import DataLocation
from support.bundles import commits
from support.git import RECORDED_ROOT

WHEN = datetime.fromisoformat("2026-11-23T05:46:58Z")
STORES: dict[str, dict[str, Any]] = {
    "store-basic": {"project": "STUDY_001", "prefix": "study-001"},
    "store-product": {"project": "STUDY_001_ADAM", "prefix": "", "product_set": "study001-adam"},
    "store-product2": {"project": "SUBMISSION", "prefix": "a/b", "product_set": "submission set (1)"},
    "gov/data-study-001": {"project": "STUDY_001", "prefix": "study-001"},
    "gov/data-study-002": {"project": "STUDY_002", "prefix": ""},
}


@pytest.mark.parametrize("store", STORES)
def test_the_first_commit_is_r_s_byte_for_byte(store: str, tmp_path: Path) -> None:
    facts = STORES[store]
    first = next(commits(store, tmp_path))
    place = f"{RECORDED_ROOT}/{store}"
    files = project_files(
        facts["project"],
        DataLocation("local", f"{place}/storage", facts["prefix"]),
        f"{place}/remote.git",
        datetime.fromisoformat(parse(first.changed[MANIFEST_PATH])["updated_at"]),
        product_set=facts.get("product_set"),
        about="Test fixture.",
    )
    assert files == first.changed
    assert first.message == INITIAL_MESSAGE


def test_a_bucket_has_a_region() -> None:
    files = project_files("P", DataLocation("s3", "my-bucket"), "git@example.org:p.git", WHEN, region="eu-west-1")
    settings = yaml.safe_load(files[PROJECT_PATH])
    assert settings["storage"]["data"] == {"type": "s3", "root": "my-bucket", "prefix": None, "region": "eu-west-1"}
    assert list(settings["storage"]) == ["data", "max_file_size_gb"]
    assert settings["repos"] == {"data": {"remote_url": "git@example.org:p.git"}}
    assert settings["schema_version"] == 1


def test_a_new_project_can_be_written_to() -> None:
    files = project_files("P", DataLocation("local", "/data"), "/p.git", WHEN)
    current = Current.read("dm", files.get)
    assert (current.project, current.version, current.versions) == ("P", None, ())


@pytest.mark.parametrize("name", ["", "../x", "datom", "1st", "a/b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    for arguments in ({"project": name}, {"project": "P", "product_set": name}):
        with pytest.raises(DatomError) as refused:
            project_files(location=DataLocation("local", "/data"), remote_url="/p.git", when=WHEN, **arguments)
        assert refused.value.code == "invalid_name"


@pytest.mark.parametrize("text", ["/srv/x y/z.git", "https://github.com/acme/s-1.git", "git@host:a/b.git", "set (1)"])
def test_ordinary_places_need_no_quotes(text: str) -> None:
    assert yaml_text(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("yes")
@example("NULL")
@example("a: b")
@example("a:")
@example("a #b")
@example("- a")
@example("/a ")
@example("1e5")
@example("2026-01-01")
@example("~")
@example("'\"\\")
@example("\x00\x7f\x85\u2028\ufeff😀")
@example("line\nbreak")
def test_any_text_reads_back_as_itself(text: str) -> None:
    printed = yaml_text(text)
    assert "\n" not in printed
    assert yaml.safe_load(f"place:\n  root: {printed}\n") == {"place": {"root": text}}
