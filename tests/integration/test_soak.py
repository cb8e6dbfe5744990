"""A minute of everything at once; `make soak` goes on for twenty."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from support.soak.course import Course, Soak
from support.soak.kinds import KINDS
from support.soak.report import figures, show
from support.soak.verdict import findings

MINUTE = Course(seconds=60, kill_seconds=12, spare_seconds=12, seed="a minute")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_row_is_wrong_and_no_write_lost_while_replicas_storage_and_git_fail(tmp_path: Path) -> None:
    with Soak(MINUTE, tmp_path) as soak:
        soak.run()
        wrong = findings(soak)
        found = figures(soak)
    show(found, Console(width=120))
    assert wrong == []
    assert found["kills"] >= 2
    assert all(found["requests"][kind]["requests"] > found["requests"][kind]["errors"] for kind in KINDS)
    assert all(sum(met.values()) for met in found["faults"].values())
