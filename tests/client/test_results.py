"""What answers look like to people."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from datom_flight import Finding, Identity, ProjectInfo, ProjectSummary, TableInfo, Version
from datom_flight.results import Findings, History, Projects, Records, Tables

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
VERSION = Version("a1" * 32, "b2" * 32, "c3" * 32, NOON, "Ann <ann@example.org>", "First cut", "d4" * 20)


def test_a_history_prints_as_an_aligned_table() -> None:
    history = History([VERSION, replace(VERSION, version="e5" * 32, message=None, timestamp=None, commit=None)])
    assert str(history) == (
        "version   timestamp             author                 message    data_sha  commit\n"
        "a1a1a1a1  2026-01-15T12:00:00Z  Ann <ann@example.org>  First cut  b2b2b2b2  d4d4d4d4\n"
        "e5e5e5e5  -                     Ann <ann@example.org>  -          b2b2b2b2  -"
    )
    assert repr(history) == str(history)


def test_ids_are_as_long_as_it_takes_to_tell_them_apart() -> None:
    twins = History([VERSION, replace(VERSION, version="a1" * 5 + "b" + "0" * 53)])
    assert str(twins).splitlines()[1].split()[0] == "a1a1a1a1a1a"


def test_a_slice_prints_too_and_an_item_is_itself() -> None:
    history = History([VERSION] * 3)
    assert isinstance(history[:2], History)
    assert len(history[:2]) == 2
    assert history[0] is VERSION
    assert history == [VERSION] * 3


def test_long_lists_end_with_how_many_are_left() -> None:
    assert str(History([VERSION] * 70)).endswith("\n… and 10 more")
    assert "… and 10 more" in History([VERSION] * 70)._repr_html_()


def test_empty_lists_say_so() -> None:
    assert str(History()) == "no versions"
    assert str(Tables()) == "no tables"
    assert History().to_pandas().empty


def test_text_from_elsewhere_cannot_break_lines_or_drive_the_terminal() -> None:
    printed = str(History([replace(VERSION, message="one\ntwo\x1b[31m" + "x" * 100)]))
    assert len(printed.splitlines()) == 2
    assert "\x1b" not in printed
    assert "x…" in printed


def test_html_escapes_what_it_shows() -> None:
    assert "&lt;script&gt;" in History([replace(VERSION, message="<script>")])._repr_html_()


def test_every_list_has_a_data_frame_with_full_values() -> None:
    frame = History([VERSION]).to_pandas()
    assert frame.loc[0, "version"] == "a1" * 32
    assert frame.loc[0, "timestamp"] == NOON
    assert list(Records([{"a": 1}, {"b": 2}]).to_pandas().columns) == ["a", "b"]


def test_lists_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(History([VERSION]))) == [VERSION]


def test_tables_projects_and_findings_print() -> None:
    tables = Tables([TableInfo("dm", "table", "a" * 64, "b" * 64, 1_234_567, NOON, 6)])
    assert str(tables).splitlines()[1] == "dm    table  aaaaaaaa  bbbbbbbb      1.2 MB  2026-01-15T12:00:00Z         6"
    projects = Projects([ProjectInfo("STUDY_001", "s3", "bucket", "", None)])
    assert str(projects).splitlines()[1].split() == ["STUDY_001", "s3", "bucket", "-"]
    findings = Findings([Finding("dm", None, "data_sha", False, "differs")])
    assert str(findings).splitlines()[1] == "dm     -        data_sha  NO  differs"


def test_one_answer_prints_as_a_card() -> None:
    assert str(Identity("ann", "reader", None)) == (
        "-- datom identity\n* Principal: ann\n* Role:      reader\n* Projects:  all"
    )
    summary = ProjectSummary("STUDY_001", "reader", "s3", "bucket", "", 4, 0, 24, 999, None)
    assert "* Size:         999 B" in str(summary)


@pytest.mark.parametrize("damaged", [None, 5, "", "soon"])
def test_a_damaged_timestamp_is_none(damaged: object) -> None:
    assert Version.from_wire({"version": "a" * 64, "timestamp": damaged}).timestamp is None
