"""What a release says of itself."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[1]
HEADINGS = re.findall(r"(?m)^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"))
RELEASED = [re.fullmatch(r"\[?(\d+\.\d+\.\d+)\]? - (\d{4}-\d{2}-\d{2})", heading) for heading in HEADINGS[1:]]


def project_version() -> str:
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    return found


def test_the_version_is_a_semantic_one_and_the_one_installed() -> None:
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", project_version())
    assert version("datom-flight") == project_version()


def test_the_changelog_begins_with_what_is_not_released_and_goes_back_in_time() -> None:
    assert HEADINGS[0] == "Unreleased"
    assert all(RELEASED), HEADINGS
    released = [(Version(found[1]), found[2]) for found in RELEASED if found]
    assert all(later > earlier for later, earlier in pairwise(released))


def test_the_version_is_the_newest_in_the_changelog_or_the_one_to_come() -> None:
    newest = next((Version(found[1]) for found in RELEASED if found), Version("0"))
    assert Version(project_version()) >= newest


def test_every_entry_of_the_changelog_stands_under_a_kind_of_change() -> None:
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert set(re.findall(r"(?m)^### (.+)$", text)) <= kinds
    for section in re.split(r"(?m)^## .+$", text)[1:]:
        assert "- " not in section.partition("### ")[0]
