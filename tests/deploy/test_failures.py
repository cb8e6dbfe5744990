"""What is said of failures and of threats is shown: each row names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = ("docs/failures.md", "docs/security.md")


def rows() -> list[str]:
    """The rows of the tables whose last column says which tests show them."""
    found: list[str] = []
    for page in TABLES:
        shown = False
        for line in (ROOT / page).read_text().splitlines():
            if shown and line.startswith("| "):
                found.append(line)
            elif not line.startswith("|"):
                shown = False
            shown = shown or line.endswith("| shown by |")
    return found


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """The names of all tests."""
    return {
        name
        for file in (ROOT / "tests").glob("**/test_*.py")
        for name in re.findall(r"^ *def (test_\w+)", file.read_text(), re.M)
    }


@pytest.mark.parametrize("row", rows(), ids=lambda row: ": ".join(map(str.strip, row.split("|")[1:3])))
def test_a_row_names_tests_that_there_are(row: str, tests: set[str]) -> None:
    shown_by = row.rstrip(" |").rpartition("|")[2]
    named = set(re.findall(r"`(test_\w+)`", shown_by))
    assert named, "no test shows it"
    assert named <= tests
