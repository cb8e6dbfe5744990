"""The demo does what the README's first command promises."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import datom_flight
from support.server import clean_environment, command

SECONDS = 120


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [command("datom-flight-server"), "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(home),
        cwd=home,
    )


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A demo server that stays up, and what it printed: its URL, and the token of each role."""
    process = start(tmp_path, "--dir", str(tmp_path / "demo"), "--listen", "grpc://127.0.0.1:0")
    printed: dict[str, str] = {}
    try:
        assert process.stdout is not None
        while "url" not in printed:
            line = process.stdout.readline()
            assert line, "the demo ended before it listened"
            if match := re.fullmatch(r"(reader|developer) token: (\S+)\n", line):
                printed[match[1]] = match[2]
            if match := re.fullmatch(r"listening on (\S+)\n", line):
                printed["url"] = match[1]
        yield process, printed
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def test_the_demo_serves_a_study_to_a_reader_and_a_developer(
    demo: tuple[subprocess.Popen[str], dict[str, str]], tmp_path: Path
) -> None:
    _, printed = demo
    for role in ("reader", "developer"):
        with datom_flight.connect(printed["url"], token=printed[role]) as conn:
            assert (conn.role, conn.project) == (role, "STUDY_001")
            assert [table.name for table in conn.tables()] == ["dm", "ex", "lb", "ae"]
            assert all((table.versions or 0) >= 6 for table in conn.tables())
            assert conn.read("dm").num_rows >= 48
            assert all(finding.ok for finding in [*conn.validate(), *conn.verify(conn.pin())])


def test_the_demo_ends_with_exit_code_0_when_it_is_told_to_stop(
    demo: tuple[subprocess.Popen[str], dict[str, str]],
) -> None:
    process, _ = demo
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0


@pytest.mark.slow
def test_the_story_ends_with_the_same_bytes_and_a_refused_write(tmp_path: Path) -> None:
    process = start(tmp_path, "--story", "--dir", str(tmp_path / "demo"))
    said, complaints = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, complaints
    assert complaints == ""
    assert len(re.findall(r"^    (?:dm|ex|lb|ae) .* identical$", said, re.MULTILINE)) == 4
    assert "DIFFERENT" not in said
    assert "error: permission_denied" in said
    history = json.loads((tmp_path / "demo/storage/study-001/datom/dm/.metadata/version_history.json").read_text())
    assert len(history) == 9
