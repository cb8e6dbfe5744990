"""The server's commands, run as a person or a service manager runs them."""

from __future__ import annotations

import datetime as dt
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from datom_flight_server.auth.tokens import Tokens
from datom_flight_server.model import Principal, Role
from support.expected import FIXTURES
from support.git import clone_governance, git
from support.server import SECRET, await_condition, run_command, running, write_config

NAME = "datom-flight-server"
BASIC = {"STUDY_001": {"data": (FIXTURES / "store-basic" / "storage").as_uri() + "/study-001"}}


def refused(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one line on stderr of a run that failed as it should."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    return line


def check(config: Path, **environment: str) -> tuple[int, list[list[str]]]:
    """The exit code, and subject, state and detail of each check."""
    done = run_command(NAME, "check", "--config", str(config), home=config.parent, **environment)
    assert "Traceback" not in done.stderr
    header, *rows = (line.split(maxsplit=2) for line in done.stdout.splitlines())
    assert header == ["check", "state", "detail"]
    return done.returncode, [[part.strip() for part in row] for row in rows]


def one(rows: list[list[str]], subject: str, state: str) -> str:
    (detail,) = (row[2] for row in rows if row[:2] == [subject, state])
    return detail


def certificate(folder: Path, name: str) -> None:
    """A self-signed certificate ``{name}.pem`` and its key ``{name}.key`` in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def test_token_create_prints_the_token_and_nothing_else(tmp_path: Path) -> None:
    config = write_config(tmp_path, BASIC, governance={"repo": "gov", "token": "env:NOT_SET"})
    arguments = ["--principal", "ann", "--role", "developer", "--project", "STUDY_001", "--project", "B (2)"]
    done = run_command(NAME, "token", "create", "--config", str(config), *arguments, home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (token,) = done.stdout.splitlines()
    assert Tokens(SECRET).verify(token) == Principal("ann", Role.DEVELOPER, frozenset({"STUDY_001", "B (2)"}))


def test_a_token_without_projects_is_for_all(tmp_path: Path) -> None:
    config = write_config(tmp_path, BASIC)
    done = run_command(
        NAME, "token", "create", "--config", str(config), "--principal", "ann", "--role", "reader", home=tmp_path
    )
    assert Tokens(SECRET).verify(done.stdout.strip()).projects is None


@pytest.mark.parametrize("expires", ["0d", "90", "d", "-1d", "1y", "999999999d", "1.5d"])
def test_a_time_that_is_none_is_a_usage_error(tmp_path: Path, expires: str) -> None:
    config = write_config(tmp_path, BASIC)
    arguments = ["--principal", "ann", "--role", "reader", f"--expires={expires}"]
    done = run_command(NAME, "token", "create", "--config", str(config), *arguments, home=tmp_path)
    assert done.returncode == 2
    assert f'"{expires}" is not a time like 90d, 12h or 30m' in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--principal", " ", "--role", "reader"], "the principal of a token has no name"),
        (["--principal", "a", "--role", "reader", "--project", "../x"], 'project name "../x" holds a character'),
    ],
)
def test_a_token_that_cannot_be_made_is_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    config = write_config(tmp_path, BASIC)
    done = run_command(NAME, "token", "create", "--config", str(config), *arguments, home=tmp_path)
    assert says in refused(done)


@pytest.mark.parametrize("command", [["serve"], ["token", "create", "--principal", "a", "--role", "reader"]])
def test_settings_that_cannot_be_used_are_one_line_each(tmp_path: Path, command: list[str]) -> None:
    config = write_config(tmp_path, BASIC, auth={"secret": "env:NOT_SET"})
    line = refused(run_command(NAME, *command, "--config", str(config), home=tmp_path))
    assert f'{config}: auth.secret: environment variable "NOT_SET" is not set' in line
    missing = run_command(NAME, *command, "--config", str(tmp_path / "no.toml"), home=tmp_path)
    assert "cannot be read: No such file or directory" in refused(missing)
    assert run_command(NAME, *command, home=tmp_path).returncode == 2


def test_check_passes_a_good_file(tmp_path: Path) -> None:
    code, rows = check(write_config(tmp_path, BASIC, sql={"memory_bytes": "64MB"}))
    assert code == 0
    assert {row[1] for row in rows} == {"ok"}
    assert one(rows, "projects.STUDY_001", "ok").endswith("storage/study-001: 20 tables, 0 sets")


def test_check_names_every_problem_of_the_settings(tmp_path: Path) -> None:
    code, rows = check(write_config(tmp_path, {"A": {"data": "nowhere", "regoin": "x"}}, srever={"x": 1}))
    assert code == 1
    assert [row[:2] for row in rows] == [
        ["projects.A.data", "failed"],
        ["projects.A.regoin", "failed"],
        ["srever", "failed"],
    ]


def test_check_names_what_cannot_be_reached_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    projects: Mapping[str, Mapping[str, Any]] = {
        **BASIC,
        "GONE": {"data": "file:///nowhere/at/all"},
        "EMPTY": {"data": "file:empty"},
        "DAMAGED": {"data": (FIXTURES / "bad" / "40-manifest-malformed" / "storage").as_uri()},
    }
    code, rows = check(write_config(tmp_path, projects, cache={"directory": "/proc/nowhere"}))
    assert code == 1
    assert "store_unreachable" in one(rows, "projects.GONE", "failed")
    assert "there is no datom/.metadata/manifest.json" in one(rows, "projects.EMPTY", "failed")
    assert "manifest_unreadable" in one(rows, "projects.DAMAGED", "failed")
    assert "cannot be written" in one(rows, "cache.directory", "failed")
    assert one(rows, "projects.STUDY_001", "ok")


def test_check_fetches_the_repositories_that_projects_are_written_to(tmp_path: Path) -> None:
    repository = clone_governance(tmp_path / "organisation")
    projects = {
        "STUDY_001": {**BASIC["STUDY_001"], "repo": str(repository)},
        "STUDY_002": {**BASIC["STUDY_001"], "repo": str(tmp_path / "nowhere.git")},
    }
    code, rows = check(write_config(tmp_path, projects))
    assert code == 1
    assert re.fullmatch(r'branch "main" at [0-9a-f]{12}', one(rows, "projects.STUDY_001.repo", "ok"))
    assert "store_unreachable" in one(rows, "projects.STUDY_002.repo", "failed")


def test_check_warns_of_data_from_the_future(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(FIXTURES / "store-basic" / "storage" / "study-001", store)
    manifest = store / "datom" / ".metadata" / "manifest.json"
    manifest.write_text(
        re.sub(r'"updated_at":\s*"[^"]+"', '"updated_at": "2999-01-01T00:00:00Z"', manifest.read_text())
    )
    code, rows = check(write_config(tmp_path, {"STUDY_001": {"data": store.as_uri()}}))
    assert code == 0
    assert "check the clocks" in one(rows, "projects.STUDY_001", "warning")


def test_the_log_says_at_start_what_is_wrong_and_the_rest_is_served(tmp_path: Path) -> None:
    config = write_config(tmp_path, {**BASIC, "GONE": {"data": "file:///nowhere/at/all"}}, auth={"secret": "env:WEAK"})
    with running(config, WEAK="hunter2") as server:
        await_condition(lambda: "start checks: 2 problems" in server.log, 20, "the checks are done")
        assert "auth.secret: weak: 7 bytes" in server.log
        assert "project GONE: store_unreachable" in server.log
        assert server.connect("STUDY_001").tables()


def test_token_show_says_what_a_token_is(tmp_path: Path) -> None:
    config = write_config(tmp_path, BASIC)
    token = Tokens(SECRET).create(Principal("ann", Role.READER, frozenset({"B", "A"})), dt.timedelta(days=1))
    (tmp_path / "token").write_text(token + "\n")
    done = run_command(NAME, "token", "show", "--config", str(config), str(tmp_path / "token"), home=tmp_path)
    assert done.returncode == 0, done.stderr
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    facts = Tokens(SECRET).facts(token)
    assert told == {
        "id": facts.id,
        "principal": "ann",
        "role": "reader",
        "projects": "A, B",
        "made": f"{facts.made:%Y-%m-%dT%H:%M:%SZ}",
        "expires": f"{facts.expires:%Y-%m-%dT%H:%M:%SZ}",
    }
    (tmp_path / "token").write_text("something else")
    foreign = run_command(NAME, "token", "show", "--config", str(config), str(tmp_path / "token"), home=tmp_path)
    assert "the token is malformed" in refused(foreign)


def test_check_warns_of_a_weak_secret_and_of_listening_without_tls(tmp_path: Path) -> None:
    config = write_config(tmp_path, BASIC, server={"listen": "grpc://0.0.0.0:0"}, auth={"secret": "env:WEAK"})
    code, rows = check(config, WEAK="hunter2")
    assert code == 0
    assert "weak: 7 bytes" in one(rows, "auth.secret", "warning")
    assert "unencrypted" in one(rows, "server.listen", "warning")
    assert "hunter2" not in str(rows)


def test_check_warns_of_queries_that_may_take_more_memory_than_there_is(tmp_path: Path) -> None:
    code, rows = check(write_config(tmp_path, BASIC, sql={"memory_bytes": "1TB", "max_concurrent": 300}))
    assert code == 0
    assert "300 queries at once may take 300000.0 GB" in one(rows, "sql.memory_bytes", "warning")


def test_check_looks_at_the_certificate_and_its_key(tmp_path: Path) -> None:
    certificate(tmp_path, "mine")
    certificate(tmp_path, "other")
    for key, state, code in (("mine.key", "ok", 0), ("other.key", "failed", 1)):
        tls = {"listen": "grpc+tls://127.0.0.1:0", "certificate": "mine.pem", "key": key}
        found, rows = check(write_config(tmp_path, BASIC, server=tls))
        assert found == code
        assert one(rows, "server.certificate", state)


def test_check_tells_of_governance_and_of_places_data_has_left(tmp_path: Path) -> None:
    repository = clone_governance(tmp_path / "organisation")
    projects = {"STUDY_009": {"region": "us-east-1"}}
    code, rows = check(write_config(tmp_path, projects, governance={"repo": str(repository)}))
    assert code == 1
    assert one(rows, "governance.repo", "ok").endswith("governance.git: 2 projects")
    moves = [row[2] for row in rows if row[0] == "projects.STUDY_002" and "moved from" in row[2]]
    assert len(moves) == 1
    assert "2026-06-01T00:00:00Z" in moves[0]
    assert "2027-01-01T00:00:00Z" in moves[0]
    assert "does not register it" in one(rows, "projects.STUDY_009", "failed")


def test_check_names_a_governance_repository_that_cannot_be_reached(tmp_path: Path) -> None:
    code, rows = check(write_config(tmp_path, BASIC, governance={"repo": "nowhere.git"}))
    assert code == 1
    assert "there is no such folder" in one(rows, "governance.repo", "failed")
    assert one(rows, "projects.STUDY_001", "ok")


def test_check_warns_of_governed_data_that_the_settings_place(tmp_path: Path) -> None:
    marked = {"MINI": {"data": (FIXTURES / "bad" / "68-governance-marker" / "storage").as_uri()}}
    code, rows = check(write_config(tmp_path, marked))
    assert code == 0
    assert "a governance repository rules this project" in one(rows, "projects.MINI", "warning")


def test_check_warns_of_settings_that_place_data_elsewhere_than_governance(tmp_path: Path) -> None:
    repository = clone_governance(tmp_path / "organisation")
    code, rows = check(write_config(tmp_path, BASIC, governance={"repo": str(repository)}))
    assert code == 0
    assert "leave data out to follow it" in one(rows, "projects.STUDY_001", "warning")
    assert "store-basic" in one(rows, "projects.STUDY_001", "ok")


def test_serve_listens_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    with running(write_config(tmp_path, BASIC)) as server:
        assert server.url.startswith("grpc://127.0.0.1:")
        assert not server.url.endswith(":0")
        assert server.connect("STUDY_001").tables()
        assert server.stop() == 0


def test_serve_ends_well_on_ctrl_c(tmp_path: Path) -> None:
    with running(write_config(tmp_path, BASIC)) as server:
        os.kill(server.pid, signal.SIGINT)
        assert server._process.wait(20) == 0


def test_sighup_shows_a_new_governed_project(tmp_path: Path) -> None:
    repository = clone_governance(tmp_path / "organisation")
    with running(write_config(tmp_path, {}, governance={"repo": str(repository)})) as server:
        connection = server.connect()
        assert [project.name for project in connection.projects()] == ["STUDY_001", "STUDY_002"]
        folder = tmp_path / "organisation" / "work" / "projects" / "STUDY_003"
        folder.mkdir()
        (folder / "ref.json").write_text('{"current": {"type": "local", "root": "/data/3"}}')
        git("add", "--all", cwd=folder)
        git("commit", "--quiet", "--message", "Register project STUDY_003", cwd=folder)
        git("push", "--quiet", str(repository), "HEAD:main", cwd=folder)
        os.kill(server.pid, signal.SIGHUP)
        await_condition(lambda: len(connection.projects()) == 3, 8, "the new project is listed")


def test_a_project_that_cannot_be_reached_is_named_by_readiness_and_stops_nobody_else(tmp_path: Path) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = write_config(
        tmp_path,
        {**BASIC, "GONE": {"data": "file:///nowhere/at/all"}},
        server={"management": f"127.0.0.1:{port}"},
    )
    with running(config) as server, closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as probe:
        probe.request("GET", "/readyz")
        answer = probe.getresponse()
        assert answer.status == 200
        assert "GONE" in answer.read().decode()
        assert server.connect("STUDY_001").tables()


def test_a_taken_address_is_one_line(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for server in ({"listen": f"grpc://{address}"}, {"management": address}, {"health": address}):
            config = write_config(tmp_path, BASIC, server=server)
            line = refused(run_command(NAME, "serve", "--config", str(config), home=tmp_path))
            assert line.startswith("error: ")
            assert "another process" in line
