"""The command ``datom-flight`` as a process: what it keeps, prints and leaves, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from datom_flight.cli import commands
from datom_flight.protocol.errors import DatomError
from support.rows import rows
from support.server import await_condition, clean_environment, command, run_command
from support.tls import write_certificate
from support.wire_server import WireServer

Run = Callable[..., subprocess.CompletedProcess[str]]

TESTS = str(Path(__file__).parents[1])


@pytest.fixture
def run(server: WireServer, tmp_path: Path) -> Run:
    """Runs the command, as an anonymous reader unless told otherwise."""
    return lambda *arguments, **more: run_command(
        "datom-flight", *arguments, home=tmp_path, **{"DATOM_FLIGHT_URL": server.url, **more}
    )


@pytest.fixture
def keyring_file(tmp_path: Path) -> dict[str, str]:
    """An environment in which the OS keyring is a file."""
    return {
        "PYTHON_KEYRING_BACKEND": "support.file_keyring.FileKeyring",
        "PYTHONPATH": TESTS,
        "KEYRING_FILE": str(tmp_path / "keyring.json"),
    }


def one_line(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def login(server: WireServer, tmp_path: Path, given: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command("datom-flight"), "login", server.url.upper().replace("GRPC", "grpc")],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(tmp_path, **environment),
        check=False,
    )


def test_login_keeps_a_token_that_later_commands_find(
    server: WireServer, run: Run, tmp_path: Path, keyring_file: dict[str, str]
) -> None:
    server.tokens["secret-token"] = "ann"
    result = login(server, tmp_path, "secret-token\n", **keyring_file)
    assert result.returncode == 0, result.stderr
    assert "Principal: ann" in result.stdout
    assert "secret-token" not in result.stdout + result.stderr
    assert json.loads((tmp_path / "keyring.json").read_text()) == {f"datom-flight {server.url}": "secret-token"}
    assert "Principal: ann" in run("whoami", **keyring_file).stdout


def test_login_with_a_bad_token_keeps_nothing(server: WireServer, tmp_path: Path, keyring_file: dict[str, str]) -> None:
    server.tokens["good"] = "ann"
    assert "unauthenticated" in one_line(login(server, tmp_path, "bad\n", **keyring_file))
    assert "no token was given" in one_line(login(server, tmp_path, "\n", **keyring_file))
    assert not (tmp_path / "keyring.json").exists()


@pytest.mark.parametrize("backend", ["keyring.backends.fail.Keyring", "keyring.backends.null.Keyring"])
def test_login_without_a_keyring_says_what_to_do_instead(server: WireServer, tmp_path: Path, backend: str) -> None:
    server.tokens["good"] = "ann"
    line = one_line(login(server, tmp_path, "good\n", PYTHON_KEYRING_BACKEND=backend))
    assert "DATOM_FLIGHT_TOKEN" in line
    assert "--token-file" in line


def test_a_token_file_is_read(server: WireServer, run: Run, tmp_path: Path) -> None:
    server.tokens["good"] = "ann"
    (tmp_path / "token").write_text("good\n")
    (tmp_path / "empty").write_text("\n")
    assert "Principal: ann" in run("whoami", "--token-file", "token").stdout
    assert "unauthenticated" in one_line(run("whoami"))
    assert '"empty" is empty' in one_line(run("whoami", "--token-file", "empty"))
    assert '"missing": No such file' in one_line(run("whoami", "--token-file", "missing"))


def test_failures_are_one_line_with_what_to_do(run: Run, tmp_path: Path) -> None:
    assert one_line(run("read", "nope")).startswith('error: not_found: no table "nope" in project "STUDY_001" (')
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        line = one_line(run("tables", "--url", f"grpc://127.0.0.1:{bound.getsockname()[1]}"))
    assert "unavailable" in line
    assert "check the address" in line
    assert "DATOM_FLIGHT_URL" in one_line(run("tables", DATOM_FLIGHT_URL=""))


def test_a_tls_mistake_is_one_line_too(run: Run, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    pair = (certificate.read_bytes(), key.read_bytes())
    with WireServer("grpc+tls://127.0.0.1:0", tls_certificates=[pair]) as server:
        url = f"grpc+tls://127.0.0.1:{server.port}"
        assert "--tls-root-certs" in one_line(run("whoami", "--url", url))
        assert run("whoami", "--url", url, "--tls-root-certs", str(certificate)).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["read"],
        ["read", "dm", "--limit", "x"],
        ["tables", "--format", "xml"],
        ["read", "dm", "-o", "dm.xls"],
        ["write", "dm"],
        ["write", "dm", "dm.pdf"],
        ["sync"],
    ],
)
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Usage:" in result.stderr


def test_a_warning_is_one_line_on_stderr(server: WireServer, run: Run) -> None:
    server.put("dm", rows(3))
    server.warnings = ["governance_attached"]
    result = run("read", "dm", "--format", "json")
    assert len(json.loads(result.stdout)) == 3
    assert result.stderr.startswith("warning: project ")
    assert len(result.stderr.splitlines()) == 1


def test_a_preview_shows_the_first_rows_and_how_many_there_are(server: WireServer, run: Run) -> None:
    server.put("dm", rows(1234))
    result = run("read", "dm")
    assert len(result.stdout.splitlines()) == 21
    assert result.stderr.startswith("20 of 1,234 rows, version ")


def test_a_read_that_fails_leaves_no_file(server: WireServer, run: Run, tmp_path: Path) -> None:
    server.put("dm", rows(95))
    server.faults.cut_after = [4] * 20
    assert "truncated" in one_line(run("read", "dm", "-o", "dm.parquet"))
    assert not list(tmp_path.glob("*dm.parquet*"))


def test_pinned_tables_are_read_and_verified_from_the_file(server: WireServer, run: Run, tmp_path: Path) -> None:
    server.whoami["projects"] = ["STUDY_001", "STUDY_002"]
    stored = server.put("dm", rows(30))
    server.put("lb", rows(3))
    result = run("pin", "-o", "pin.json", "--project", "STUDY_001")
    assert (result.returncode, result.stdout) == (0, "")
    assert run("pin", "--project", "STUDY_001", "--format", "json").stdout == (tmp_path / "pin.json").read_text()
    server.put("dm", rows(40))
    # The pin names its project: no --project is needed.
    assert run("read", "dm", "--pin", "pin.json", "-o", "dm.parquet").returncode == 0
    assert pq.read_table(tmp_path / "dm.parquet").num_rows == 30
    assert run("verify", "pin.json").returncode == 0
    object.__setattr__(stored, "rows", rows(30, first=1))
    result = run("verify", "pin.json", "--format", "json")
    assert result.returncode == 1
    assert [(found["table"], found["ok"]) for found in json.loads(result.stdout)] == [("dm", False), ("lb", True)]
    assert "1 of 2 tables" in result.stderr
    assert 'the pin is of project "STUDY_001"' in one_line(run("verify", "pin.json", "--project", "STUDY_002"))


def test_prefetching_says_what_came_of_each_table(server: WireServer, run: Run) -> None:
    fetched = {"version": "a" * 64, "data_sha": "b" * 64, "size_bytes": 1000, "fetched": True}
    server.answers["datom.prefetch"] = [{"table": "dm", **fetched, "error": None, "detail": None}]
    result = run("prefetch", "dm", "--version", "aa", "--format", "json")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == [{"table": "dm", **fetched, "error": None, "detail": None}]
    assert server.calls[-1] == ("datom.prefetch", {"project": "STUDY_001", "table": "dm", "version": "aa"})
    server.answers["datom.prefetch"] = [{"table": "dm", "fetched": False, "error": "not_found", "detail": "no dm"}]
    result = run("prefetch", "dm", "--as-of", "2026-01-01")
    assert result.returncode == 1
    assert "not_found" in result.stdout
    assert result.stderr == "error: 1 of 1 tables cannot be fetched (see the list)\n"
    assert "version is of one table" in one_line(run("prefetch", "dm", "lb", "--version", "aa"))


def test_a_reader_that_goes_away_ends_it_quietly(server: WireServer, tmp_path: Path) -> None:
    server.put("dm", rows(50_000))
    with subprocess.Popen(
        [command("datom-flight"), "read", "dm", "--format", "csv", "--url", server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(tmp_path),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b'"USUBJID","AGE","SITE"\n'
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.fixture
def stalled(server: WireServer, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that waits for rows which do not come."""
    server.put("dm", rows(40))
    server.faults.stall_after = [2] * 20
    with subprocess.Popen(
        [command("datom-flight"), "read", "dm", "-o", "dm.csv", "--url", server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(tmp_path),
        cwd=tmp_path,
    ) as process:
        await_condition(lambda: any(method == "DoGet" for method, _ in server.calls), 30, "the read has begun")
        yield process


def test_ctrl_c_ends_it_at_once_with_130_and_no_half_file(stalled: subprocess.Popen[bytes], tmp_path: Path) -> None:
    stalled.send_signal(signal.SIGINT)
    output, errors = stalled.communicate(timeout=20)
    assert stalled.returncode == 130
    assert output == b""
    assert errors.strip() == b""
    assert not list(tmp_path.glob("*dm.csv*"))


def test_ctrl_c_ends_a_write_with_130_and_nothing_is_written(server: WireServer, tmp_path: Path) -> None:
    pq.write_table(rows(100), tmp_path / "dm.parquet", row_group_size=10)
    server.faults.stall_after = [1]
    with subprocess.Popen(
        [command("datom-flight"), "write", "dm", "dm.parquet", "--url", server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(tmp_path),
        cwd=tmp_path,
    ) as process:
        await_condition(lambda: any(method == "DoPut" for method, _ in server.calls), 30, "the write has begun")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors.strip()) == (130, b"", b"")
    server.faults.release.set()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_a_slow_read_shows_progress_on_a_terminal_only(server: WireServer, tmp_path: Path) -> None:
    server.put("dm", rows(40))
    server.faults.stall_after = [2]
    ours, theirs = os.openpty()
    shown: list[bytes] = []

    def watch() -> None:
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:
                return
            shown.append(data)
            if b"rows" in b"".join(shown):
                server.faults.release.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun = time.monotonic()
    with subprocess.Popen(
        [command("datom-flight"), "read", "dm", "--format", "csv", "--url", server.url],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=clean_environment(tmp_path, TERM="xterm", COLUMNS="80"),
    ) as process:
        output, _ = process.communicate(timeout=60)
    os.close(theirs)
    watcher.join(10)
    os.close(ours)
    assert time.monotonic() - begun > 1
    assert process.returncode == 0
    assert len(output.splitlines()) == 41
    assert b"dm" in b"".join(shown)


def test_a_file_is_written_and_its_receipt_printed(server: WireServer, run: Run, tmp_path: Path) -> None:
    pq.write_table(rows(30), tmp_path / "dm.parquet")
    (tmp_path / "about.json").write_text('{"cut": "2026-04-01"}')
    result = run(
        *["write", "dm", "dm.parquet", "--message", "April cut", "--metadata", "about.json", "--expected", ""],
        *["--parent", "lb@8a3b", "--parent", "STUDY_002/vs@77ab", "--format", "json"],
    )
    assert (result.returncode, result.stderr) == (0, "")
    receipt = json.loads(result.stdout)
    assert list(receipt) == ["table", "version", "data_sha", "parquet_sha", "commit", "action"]
    assert (receipt["table"], receipt["action"]) == ("dm", "full")
    request, batches = server.writes[-1]
    assert sum(batch.num_rows for batch in batches) == 30
    assert (request.message, request.metadata, request.expected) == ("April cut", {"cut": "2026-04-01"}, "")
    assert [(parent.source, parent.table, parent.version) for parent in request.parents or ()] == [
        ("STUDY_001", "lb", "8a3b"),
        ("STUDY_002", "vs", "77ab"),
    ]
    assert "* Action:  none" in run("write", "dm", "dm.parquet").stdout
    assert run("write", "dm", "dm.parquet", "--format", "csv").stdout.startswith("table,version,data_sha")


def test_types_that_were_inferred_are_said(server: WireServer, run: Run, tmp_path: Path) -> None:
    (tmp_path / "dm.csv").write_text("USUBJID,AGE\n01-001,34\n")
    result = run("write", "dm", "dm.csv")
    assert result.returncode == 0
    assert result.stderr == "types inferred from dm.csv: USUBJID string, AGE int64\n"


def test_a_write_that_is_refused_is_one_line(server: WireServer, run: Run, tmp_path: Path) -> None:
    pq.write_table(rows(3), tmp_path / "dm.parquet")
    (tmp_path / "damaged.parquet").write_text("PAR1")
    server.faults.refuse_after = [(1, DatomError.of("permission_denied", "readers do not write"))]
    assert "permission_denied" in one_line(run("write", "dm", "dm.parquet"))
    assert "conflict" in one_line(run("write", "dm", "dm.parquet", "--expected", "a" * 64))
    assert '"damaged.parquet" cannot be read' in one_line(run("write", "dm", "damaged.parquet"))
    assert "No such file" in one_line(run("write", "dm", "missing.parquet"))
    assert "is not a JSON object" in one_line(run("write", "dm", "dm.parquet", "--metadata", "dm.parquet"))


def test_a_set_is_written_from_its_file(server: WireServer, run: Run, tmp_path: Path) -> None:
    answer = {"table": "adam", "version": "a" * 64, "data_sha": "b" * 64, "parquet_sha": None, "commit": "d" * 40}
    server.answers["datom.write_set"] = [{**answer, "action": "full"}]
    member = {"id": {"project": "STUDY_001", "name": "dm", "kind": "table", "version": "e" * 64}}
    (tmp_path / "adam.json").write_text(json.dumps({"members": [member], "tags": {"purpose": "interim"}}))
    result = run("write-set", "adam", "adam.json", "--message", "first", "--format", "json")
    assert json.loads(result.stdout) == {**answer, "action": "full"}
    assert server.calls[-1][1] == {
        "project": "STUDY_001",
        "table": "adam",
        "members": [member],
        "tags": {"purpose": "interim"},
        "message": "first",
    }
    (tmp_path / "odd.json").write_text('{"members": [], "labels": {}}')
    assert 'unknown key "labels"' in one_line(run("write-set", "adam", "odd.json"))
    (tmp_path / "none.json").write_text("{}")
    assert 'no list "members"' in one_line(run("write-set", "adam", "none.json"))


def test_every_command_and_option_is_documented() -> None:
    text = (Path(TESTS).parent / "docs" / "commands.md").read_text()
    for name, found in commands.commands.items():
        assert f"| `{name}" in text
        for parameter in found.params:
            if parameter.param_type_name == "option":
                assert f"`{parameter.opts[-1]}" in text or f", `{parameter.opts[-1]}" in text, parameter.opts
