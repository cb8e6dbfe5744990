"""Folders of extracts: what is new or changed, asked about, written as imports, and told."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from datom_flight import Connection
from datom_flight.protocol.errors import DatomError
from datom_flight.results import ImportInfo
from datom_flight.syncing import carry_out, survey
from support.rows import rows
from support.server import clean_environment, command, run_command
from support.wire_server import WireServer

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "extracts"
    folder.mkdir()
    (folder / "dm.csv").write_text("USUBJID,AGE\n01-001,34\n")
    pq.write_table(rows(20), folder / "lb.parquet")
    return folder


@pytest.fixture
def run(server: WireServer, tmp_path: Path) -> Run:
    return lambda *arguments: run_command("datom-flight", *arguments, home=tmp_path, DATOM_FLIGHT_URL=server.url)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def info(name: str, file_sha: str | None = None, kind: str = "table") -> ImportInfo:
    return ImportInfo(name, kind, file_sha)


def states(folder: Path, *tables: ImportInfo, pattern: str = "*") -> dict[str, tuple[str, str | None]]:
    return {extract.file: (extract.state, extract.detail) for extract in survey(folder, pattern, tables)}


# What is found


def test_files_are_new_changed_or_unchanged_by_their_bytes(folder: Path) -> None:
    assert states(folder) == {"dm.csv": ("new", None), "lb.parquet": ("new", None)}
    assert states(folder, info("dm", "0" * 64), info("lb", sha(folder / "lb.parquet"))) == {
        "dm.csv": ("changed", None),
        "lb.parquet": ("unchanged", None),
    }
    assert "not imported" in str(states(folder, info("dm"))["dm.csv"])


def test_what_cannot_become_a_table_says_why(folder: Path) -> None:
    for name in ("notes.pdf", "1st.csv", "datom.csv", "ae.csv", "vs.csv", "vs.tsv", ".hidden.csv"):
        (folder / name).write_text("A\n1\n")
    (folder / "below").mkdir()
    found = states(folder, info("ae", kind="set"))
    assert {name: state for name, (state, _) in found.items()} == {
        "1st.csv": "not supported",
        "ae.csv": "not supported",
        "datom.csv": "not supported",
        "dm.csv": "new",
        "lb.parquet": "new",
        "notes.pdf": "not supported",
        "vs.csv": "conflict",
        "vs.tsv": "conflict",
    }
    details = {name: str(detail) for name, (_, detail) in found.items()}
    assert ".pdf" in details["notes.pdf"]
    assert "start with a letter" in details["1st.csv"]
    assert "reserved" in details["datom.csv"]
    assert '"ae" is a set' in details["ae.csv"]
    assert '"vs.tsv"' in details["vs.csv"]


def test_only_files_that_the_pattern_fits_are_looked_at(folder: Path) -> None:
    assert list(states(folder, pattern="*.csv")) == ["dm.csv"]


# What is written


def test_a_file_that_changes_while_it_is_read_is_not_written(
    server: WireServer, conn: Connection, folder: Path
) -> None:
    (extract,) = survey(folder, "lb*", [])

    def meanwhile(source: Any) -> Any:
        pq.write_table(rows(21), folder / "lb.parquet")
        return source

    outcome = carry_out(conn, extract, follow=meanwhile)
    assert outcome.failed
    assert "changed while it was read" in str(outcome.detail)
    assert not server.writes


def test_a_folder_is_written_as_imports(server: WireServer, run: Run, folder: Path) -> None:
    result = run("sync", "extracts", "--yes", "--format", "json")
    assert result.returncode == 0, result.stderr
    assert "new" in result.stderr, "what it is going to do goes to stderr"
    told = json.loads(result.stdout)
    assert [(each["file"], each["table"], each["state"], each["action"]) for each in told] == [
        ("dm.csv", "dm", "new", "full"),
        ("lb.parquet", "lb", "new", "full"),
    ]
    requests = [request for request, _ in server.writes]
    assert [(r.original_file_sha, r.original_format, r.message) for r in requests] == [
        (sha(folder / "dm.csv"), "csv", "Sync dm (new)"),
        (sha(folder / "lb.parquet"), "parquet", "Sync lb (new)"),
    ]
    assert told[0]["version"] == server._tables["STUDY_001", "dm"][0].version


def test_what_is_unchanged_is_neither_read_nor_asked_about(server: WireServer, run: Run, folder: Path) -> None:
    (folder / "dm.csv").write_bytes(b"not even a table")
    server.answers["datom.tables"] = [
        {"name": "dm", "kind": "table", "original_file_sha": sha(folder / "dm.csv"), "original_format": "csv"},
        {"name": "lb", "kind": "table", "original_file_sha": sha(folder / "lb.parquet")},
    ]
    result = run("sync", "extracts")
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["dm.csv", "dm", "unchanged", "-", "-", "-"],
        ["lb.parquet", "lb", "unchanged", "-", "-", "-"],
    ]
    assert [method for method, _ in server.calls] == ["datom.whoami", "datom.tables"]


def test_one_failure_does_not_stop_the_others(server: WireServer, run: Run, folder: Path) -> None:
    (folder / "ae.csv").write_bytes(b"")
    (folder / "co.csv").write_text("A\n1\n")
    (folder / "readme.txt").write_text("not data")
    server.faults.refuse_after = [(1, DatomError.of("not_hashable", "columns that datom cannot hash"))]
    result = run("sync", "extracts", "--yes", "--format", "json", "--message", "March transfer")
    assert result.returncode == 1
    assert "2 of 5 files" in result.stderr
    told = {each["file"]: each for each in json.loads(result.stdout)}
    assert "cannot be read as csv" in told["ae.csv"]["detail"]
    assert told["co.csv"]["detail"].startswith("not_hashable")
    assert (told["dm.csv"]["action"], told["lb.parquet"]["action"]) == ("full", "full")
    assert told["readme.txt"]["state"] == "not supported"
    assert {request.message for request, _ in server.writes} == {"March transfer"}


def test_files_of_one_name_are_left_alone_and_told(server: WireServer, run: Run, folder: Path) -> None:
    (folder / "lb.csv").write_text("A\n1\n")
    result = run("sync", "extracts", "--yes")
    assert result.returncode == 1
    assert [request.table for request, _ in server.writes] == ["dm"]


# Asking


def test_without_a_terminal_and_without_yes_nothing_is_written(server: WireServer, run: Run, folder: Path) -> None:
    result = run("sync", "extracts")
    assert (result.returncode, result.stdout) == (1, "")
    assert "--yes" in result.stderr.splitlines()[-1]
    assert not server.writes
    assert "No such file" in run("sync", "nowhere").stderr


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
@pytest.mark.parametrize(("answer", "code", "count"), [(b"y\n", 0, 2), (b"n\n", 1, 0)])
def test_it_asks_at_a_terminal(
    server: WireServer, tmp_path: Path, folder: Path, answer: bytes, code: int, count: int
) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [command("datom-flight"), "sync", "extracts", "--url", server.url],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(tmp_path),
        cwd=tmp_path,
    ) as process:
        os.write(ours, answer)
        _, errors = process.communicate(timeout=60)
    os.close(theirs)
    os.close(ours)
    assert b'Write 2 tables to project "STUDY_001"? [y/N]' in errors
    assert process.returncode == code
    assert len(server.writes) == count
