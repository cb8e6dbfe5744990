"""A project is begun by a command, in an empty place, and written to at once."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from support.git import git
from support.s3 import S3Server
from support.server import run_command, running, write_config


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("datom-flight-server", *arguments, home=home)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    """The settings of a project that is not there yet, its remote empty."""
    git("init", "--quiet", "--bare", "--initial-branch=main", "remote.git", cwd=tmp_path)
    settings: dict[str, object] = {"repo": str(tmp_path / "remote.git")}
    if request.param == "folder":
        return {**settings, "data": f"file://{tmp_path}/data/study"}
    server: S3Server = request.getfixturevalue("s3")
    bucket = f"begin-{uuid.uuid4().hex[:12]}"
    server.bucket(bucket)
    return {**settings, **server.settings(bucket, "a/prefix")}


def test_a_begun_project_is_empty_valid_and_takes_tables(tmp_path: Path, place: dict[str, object]) -> None:
    config = write_config(tmp_path / "server", {"STUDY": place})
    begun = command(tmp_path, "init", "--config", str(config), "STUDY")
    assert begun.returncode == 0, begun.stderr
    assert git("log", "--format=%s", "main", cwd=tmp_path / "remote.git").strip() == "Initialize datom repository"
    with running(config) as server, server.connect("STUDY", token=server.token(role="developer")) as conn:
        assert list(conn.tables()) == []
        assert (conn.summary().tables, conn.summary().versions) == (0, 0)
        receipt = conn.write("dm", pa.table({"USUBJID": ["1", "2"]}))
        assert receipt.action == "full"
        assert conn.read("dm", version=receipt.version).num_rows == 2
        assert [finding for finding in conn.validate() if not finding.ok] == []


def test_an_occupied_place_is_refused_and_left_alone(tmp_path: Path, place: dict[str, object]) -> None:
    config = write_config(tmp_path / "server", {"STUDY": place})
    assert command(tmp_path, "init", "--config", str(config), "STUDY").returncode == 0
    head = git("rev-parse", "main", cwd=tmp_path / "remote.git")
    again = command(tmp_path, "init", "--config", str(config), "STUDY")
    assert again.returncode == 1
    assert "is not empty" in again.stderr
    assert git("rev-parse", "main", cwd=tmp_path / "remote.git") == head


def test_a_repository_with_commits_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    git("init", "--quiet", "--bare", "--initial-branch=main", "remote.git", cwd=tmp_path)
    git("clone", "--quiet", "remote.git", "work", cwd=tmp_path)
    (tmp_path / "work" / "README").write_text("somebody's")
    git("add", "--all", cwd=tmp_path / "work")
    git("commit", "--quiet", "--message", "Mine", cwd=tmp_path / "work")
    git("push", "--quiet", "origin", "HEAD:main", cwd=tmp_path / "work")
    project = {"repo": str(tmp_path / "remote.git"), "data": f"file://{tmp_path}/data"}
    config = write_config(tmp_path / "server", {"STUDY": project})
    refused = command(tmp_path, "init", "--config", str(config), "STUDY")
    assert refused.returncode == 1
    assert "has commits already" in refused.stderr
    assert list((tmp_path / "data").rglob("*")) == []


@pytest.mark.parametrize("name", ["OTHER", "../x"])
def test_a_project_the_settings_do_not_name_is_refused(tmp_path: Path, name: str) -> None:
    config = write_config(tmp_path / "server", {"STUDY": {"data": f"file://{tmp_path}/data"}})
    refused = command(tmp_path, "init", "--config", str(config), name)
    assert refused.returncode == 1
    assert f'no project "{name}"' in refused.stderr


def test_repair_finishes_what_the_storage_lost(tmp_path: Path) -> None:
    git("init", "--quiet", "--bare", "--initial-branch=main", "remote.git", cwd=tmp_path)
    place = {"repo": str(tmp_path / "remote.git"), "data": f"file://{tmp_path}/data/study"}
    config = write_config(tmp_path / "server", {"STUDY": place})
    assert command(tmp_path, "init", "--config", str(config), "STUDY").returncode == 0
    with running(config) as server, server.connect("STUDY", token=server.token(role="developer")) as conn:
        version = conn.write("dm", pa.table({"x": [1]})).version
    documents = tmp_path / "data" / "study" / "datom" / "dm" / ".metadata"
    (documents / "version_history.json").write_text("damaged")
    (documents / f"{version}.json").unlink()
    repaired = command(tmp_path, "repair", "--config", str(config))
    assert repaired.returncode == 0, repaired.stderr
    assert [line.split(" ")[1] for line in repaired.stdout.splitlines()] == [
        f"dm/.metadata/{version}.json",
        "dm/.metadata/version_history.json",
    ]
    assert command(tmp_path, "repair", "--config", str(config)).stdout == ""
    with running(config) as server, server.connect("STUDY", token=server.token(role="developer")) as conn:
        assert all(finding.ok for finding in conn.validate())
