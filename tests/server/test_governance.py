"""Projects from a governance repository: real git, by path and over HTTP."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datom_flight.protocol.errors import DatomError, NotFoundError, UnavailableError
from datom_flight_server.flight.session import Session
from datom_flight_server.governance.configured import ConfiguredProjects, project_source
from datom_flight_server.governance.repository import GovernanceRepository
from datom_flight_server.model import DataLocation, Project, S3Access
from datom_flight_server.settings import Settings
from support.catalogs import reader, sql_catalog_of
from support.expected import FIXTURES
from support.git import clone_governance, git
from support.git_http import git_server
from support.server import await_condition

TOKEN = "ghp_of_the_tests"
NEVER_SECONDS = 3600


class Organisation:
    """A governance repository, and a work tree from which an administrator changes it."""

    def __init__(self, folder: Path) -> None:
        self.repository = clone_governance(folder)
        self.work = folder / "work"
        git("remote", "set-url", "origin", str(self.repository), cwd=self.work)

    def register(self, name: str, reference: object) -> None:
        """Push `reference` (text as it is, anything else as JSON) as the ref.json of `name`."""
        folder = self.work / "projects" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ref.json").write_text(reference if isinstance(reference, str) else json.dumps(reference))
        self.push(f"Register project {name}")

    def push(self, message: str) -> None:
        git("add", "--all", cwd=self.work)
        git("commit", "--quiet", "--message", message, cwd=self.work)
        git("push", "--quiet", "--force", "origin", "HEAD:main", cwd=self.work)


def local(root: str) -> dict[str, object]:
    return {"current": {"type": "local", "root": root}, "previous": []}


Open = Callable[..., GovernanceRepository]


@pytest.fixture
def organisation(tmp_path: Path) -> Organisation:
    return Organisation(tmp_path / "organisation")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens sources that share one cache directory, and closes them in the end."""
    sources: list[GovernanceRepository] = []

    def opened(url: object, token: str | None = None, refresh_seconds: float = NEVER_SECONDS) -> GovernanceRepository:
        source = GovernanceRepository(str(url), token, tmp_path / "cache", refresh_seconds)
        sources.append(source)
        source.start()
        return source

    yield opened
    for source in sources:
        source.close()


def test_ref_json_says_where_the_data_is_and_was(organisation: Organisation, opened: Open) -> None:
    source = opened(organisation.repository)
    assert source.problems() == []
    assert sorted(source.projects()) == ["STUDY_001", "STUDY_002"]
    storage = FIXTURES / "gov" / "data-study-002"
    moved = source.find("STUDY_002")
    assert moved is not None
    assert moved.governed
    assert moved.location == DataLocation("local", str(storage / "storage-new"), "moved/s2")
    (previous,) = moved.previous
    assert previous.location == DataLocation("local", str(storage / "storage"))
    assert (previous.migrated_at, previous.sunset_at) == ("2026-06-01T00:00:00Z", "2027-01-01T00:00:00Z")


def test_a_bucket_has_a_region_and_perhaps_a_prefix(organisation: Organisation, opened: Open) -> None:
    place = {"type": "s3", "root": "bucket", "prefix": "/a/b/", "region": "eu-west-1"}
    organisation.register("STUDY_003", {"current": place})
    organisation.register("STUDY_004", {"current": {"type": "s3", "root": "bucket", "prefix": None}, "previous": None})
    source = opened(organisation.repository)
    found = source.find("STUDY_003")
    assert found == Project(
        "STUDY_003", DataLocation("s3", "bucket", "a/b"), access=S3Access(region="eu-west-1"), governed=True
    )
    assert source.projects()["STUDY_004"].location == DataLocation("s3", "bucket")


def test_a_new_project_is_found_at_once_by_name(organisation: Organisation, opened: Open) -> None:
    source = opened(organisation.repository)
    assert source.find("STUDY_003") is None
    organisation.register("STUDY_003", local("/data/3"))
    found = source.find("STUDY_003")
    assert found is not None
    assert found.location.root == "/data/3"


def test_a_new_project_is_queried_at_once(organisation: Organisation, opened: Open, tmp_path: Path) -> None:
    catalog = sql_catalog_of(opened(organisation.repository), tmp_path / "cache")
    with pytest.raises(NotFoundError):
        catalog.project_of(reader(), Session("STUDY_003"))
    organisation.register("STUDY_003", local("/data/3"))
    assert catalog.project_of(reader(), Session("STUDY_003")) == "STUDY_003"


def test_a_new_project_appears_by_itself(organisation: Organisation, opened: Open) -> None:
    source = opened(organisation.repository, refresh_seconds=0.1)
    organisation.register("STUDY_003", local("/data/3"))
    await_condition(lambda: "STUDY_003" in source.projects(), 15, "the new project is listed")


def test_a_refresh_is_made_when_asked_for(organisation: Organisation, opened: Open) -> None:
    source = opened(organisation.repository)
    organisation.register("STUDY_003", local("/data/3"))
    source.refresh()
    await_condition(lambda: "STUDY_003" in source.projects(), 15, "the new project is listed")


def test_a_project_that_moved_or_went_is_seen_so(organisation: Organisation, opened: Open) -> None:
    source = opened(organisation.repository)
    organisation.register("STUDY_001", local("/data/elsewhere"))
    git("rm", "--quiet", "-r", "projects/STUDY_002", cwd=organisation.work)
    organisation.push("Decommission STUDY_002")
    assert source.find("NO_SUCH") is None
    assert source.projects()["STUDY_001"].location.root == "/data/elsewhere"
    assert source.find("STUDY_002") is None


def test_a_rewritten_history_is_followed(organisation: Organisation, opened: Open) -> None:
    source = opened(organisation.repository)
    git("reset", "--quiet", "--hard", "HEAD~2", cwd=organisation.work)
    organisation.register("STUDY_009", local("/data/9"))
    assert source.find("STUDY_009") is not None


@pytest.mark.parametrize(
    ("reference", "code", "says"),
    [
        ("{", "document_unreadable", "is not JSON"),
        ("[" * 100_000, "document_unreadable", "is not JSON"),
        ("[]", "document_unreadable", "is not a JSON object"),
        ({}, "metadata_corrupt", '"current" of'),
        ({"current": []}, "metadata_corrupt", '"current" of'),
        ({"current": {"type": "gcs", "root": "x"}}, "metadata_corrupt", 'no type "local" or "s3"'),
        ({"current": {"type": "s3"}}, "metadata_corrupt", "has no root"),
        ({"current": {"type": "local", "root": "relative"}}, "metadata_corrupt", "not an absolute path"),
        ({"current": {"type": "s3", "root": "b", "prefix": 3}}, "metadata_corrupt", "prefix"),
        ({"current": {"type": "s3", "root": "b"}, "previous": {"x": 1}}, "metadata_corrupt", "is not a list"),
        ({"current": {"type": "s3", "root": "b"}, "previous": [1]}, "metadata_corrupt", "is not a record"),
    ],
)
def test_a_damaged_ref_json_disables_its_project_alone(
    organisation: Organisation, opened: Open, reference: object, code: str, says: str
) -> None:
    organisation.register("STUDY_003", reference)
    source = opened(organisation.repository)
    (problem,) = source.problems()
    assert 'project "STUDY_003"' in problem
    assert says in problem
    assert sorted(source.projects()) == ["STUDY_001", "STUDY_002"]
    for _ in range(2):
        with pytest.raises(DatomError) as caught:
            source.find("STUDY_003")
        assert caught.value.code == code
    organisation.register("STUDY_003", local("/data/3"))
    assert source.find("NO_SUCH") is None
    assert source.problems() == []
    assert source.find("STUDY_003") is not None


def test_what_is_no_project_is_left_out(organisation: Organisation, opened: Open) -> None:
    organisation.register("renv", local("/data/x"))
    (organisation.work / "projects" / "EMPTY").mkdir()
    (organisation.work / "projects" / "EMPTY" / "other.json").write_text("{}")
    (organisation.work / "projects" / "file").write_text("")
    organisation.push("Add what is no project")
    source = opened(organisation.repository)
    assert sorted(source.projects()) == ["STUDY_001", "STUDY_002"]
    assert source.problems() == ['governance: project name "renv" is reserved']


def test_any_default_branch_will_do(tmp_path: Path, organisation: Organisation, opened: Open) -> None:
    git("branch", "trunk", "main", cwd=organisation.repository)
    git("symbolic-ref", "HEAD", "refs/heads/trunk", cwd=organisation.repository)
    git("branch", "--delete", "--force", "main", cwd=organisation.repository)
    assert len(opened(organisation.repository).projects()) == 2
    # a bare repository made with another default than the branch pushed to it
    git("symbolic-ref", "HEAD", "refs/heads/master", cwd=organisation.repository)
    source = opened(f"file://{organisation.repository}")
    assert len(source.projects()) == 2


def test_an_empty_repository_is_a_problem(tmp_path: Path, opened: Open) -> None:
    git("init", "--quiet", "--bare", "empty.git", cwd=tmp_path)
    source = opened(tmp_path / "empty.git")
    assert source.projects() == {}
    assert "the remote is empty" in source.problems()[0]


def test_when_the_repository_goes_the_last_good_copy_serves(organisation: Organisation, opened: Open) -> None:
    source = opened(organisation.repository, refresh_seconds=0.1)
    hidden = organisation.repository.rename(organisation.repository.with_suffix(".hidden"))
    await_condition(source.problems, 15, "the problem is told")
    (problem,) = source.problems()
    assert "cannot be read since 2" in problem
    assert "there is no such folder" in problem
    assert "serving the last good copy" in problem
    assert source.find("STUDY_001") is not None
    with pytest.raises(UnavailableError) as caught:
        source.find("STUDY_003")
    assert caught.value.code == "store_unreachable"
    assert str(organisation.repository) not in str(caught.value)
    # a start without the repository serves what an earlier run left on disk
    again = opened(organisation.repository)
    assert sorted(again.projects()) == ["STUDY_001", "STUDY_002"]
    assert again.problems()
    hidden.rename(organisation.repository)
    await_condition(lambda: not source.problems(), 15, "the repository is back")


def test_without_any_copy_the_problem_says_that_nothing_is_known(tmp_path: Path, opened: Open) -> None:
    source = opened(tmp_path / "nowhere.git")
    assert "no project is known from it" in source.problems()[0]
    with pytest.raises(UnavailableError):
        source.find("STUDY_001")


def test_copies_of_two_repositories_are_kept_apart(tmp_path: Path, organisation: Organisation, opened: Open) -> None:
    opened(organisation.repository)
    assert opened(tmp_path / "nowhere.git").projects() == {}


def test_a_damaged_copy_is_made_anew(tmp_path: Path, organisation: Organisation, opened: Open) -> None:
    opened(organisation.repository).close()
    (copy,) = (tmp_path / "cache").iterdir()
    (copy / "HEAD").write_text("")
    assert len(opened(organisation.repository).projects()) == 2
    (copy / "refs" / "datom" / "head").write_text("1" * 40 + "\n")
    source = opened(organisation.repository, refresh_seconds=0.1)
    await_condition(lambda: len(source.projects()) == 2 and not source.problems(), 15, "the copy is whole again")


def test_a_lock_left_by_a_killed_process_is_removed(tmp_path: Path, organisation: Organisation, opened: Open) -> None:
    opened(organisation.repository).close()
    (copy,) = (tmp_path / "cache").iterdir()
    lock = copy / "refs" / "datom" / "head.lock"
    lock.touch()
    hour_ago = time.time() - 3600
    os.utime(lock, (hour_ago, hour_ago))
    organisation.register("STUDY_003", local("/data/3"))
    source = opened(organisation.repository)
    assert source.problems() == []
    assert source.find("STUDY_003") is not None


def test_one_fetch_serves_all_who_ask_at_the_same_time(organisation: Organisation, opened: Open) -> None:
    with git_server(organisation.repository.parent, TOKEN) as server:
        source = opened(f"{server.url}/governance.git", TOKEN)
        server.authorizations.clear()
        server.answering.clear()
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(source.find, f"STUDY_{number:03}") for number in range(100, 116)]
            server.answering.set()
            assert [answer.result(30) for answer in asked] == [None] * 16
        # those who came while a fetch was under way share the next
        assert 1 <= len(server.authorizations) <= 4


def test_https_takes_a_token(organisation: Organisation, opened: Open) -> None:
    with git_server(organisation.repository.parent, TOKEN) as server:
        source = opened(f"{server.url}/governance.git", TOKEN)
        assert source.problems() == []
        assert sorted(source.projects()) == ["STUDY_001", "STUDY_002"]
        organisation.register("STUDY_003", local("/data/3"))
        assert source.find("STUDY_003") is not None


@pytest.mark.parametrize(
    ("token", "says"),
    [("wrong-token", "refuses the credentials"), (None, "asks for a token, and none is set")],
)
def test_a_refused_token_is_told_and_not_repeated(
    organisation: Organisation, opened: Open, token: str | None, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with git_server(organisation.repository.parent, TOKEN) as server:
        source = opened(f"{server.url}/governance.git", token)
        assert says in source.problems()[0]
        assert says in caplog.text
        assert "wrong-token" not in source.problems()[0] + caplog.text
        assert len(server.authorizations) <= 1


def test_a_token_is_not_sent_to_another_host(organisation: Organisation, opened: Open) -> None:
    folder = organisation.repository.parent
    with git_server(folder, TOKEN) as server, git_server(folder, TOKEN) as other:
        server.redirect_to = other.url
        source = opened(f"{server.url}/governance.git", TOKEN)
        assert "sends to another host" in source.problems()[0]
        assert other.authorizations == []


def test_a_silent_remote_holds_nobody_for_long(organisation: Organisation, opened: Open, tmp_path: Path) -> None:
    with git_server(organisation.repository.parent, TOKEN) as server:
        url = f"{server.url}/governance.git"
        opened(url, TOKEN).close()
        server.answering.clear()
        started = time.monotonic()
        source = opened(url, TOKEN)
        assert "timed out" in source.problems()[0]
        assert source.find("STUDY_001") is not None
        assert time.monotonic() - started < 15


def test_closing_twice_or_unstarted_is_harmless(tmp_path: Path, organisation: Organisation) -> None:
    source = GovernanceRepository(str(organisation.repository), None, tmp_path / "cache")
    source.close()
    source.close()


def settings_of(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "server.toml"
    path.write_text('[auth]\nsecret = "env:S"\n[cache]\ndirectory = "cache"\n' + text)
    return Settings.load(path, {"S": "a signing secret", "KEY": "AKIA"})


def test_without_governance_the_settings_name_every_project(tmp_path: Path) -> None:
    source = project_source(settings_of(tmp_path, '[projects.B]\ndata = "file:///b"\n[projects.A]\ndata = "s3://a"\n'))
    source.start()
    assert list(source.projects()) == ["A", "B"]
    found = source.find("B")
    assert found == Project("B", DataLocation("local", "/b"))
    assert source.find("C") is None
    assert source.problems() == []
    source.refresh()
    source.close()


def test_settings_give_governed_projects_their_access_and_named_ones_their_data(
    tmp_path: Path, organisation: Organisation
) -> None:
    place = {"type": "s3", "root": "bucket", "region": "eu-west-1"}
    organisation.register("STUDY_003", {"current": place})
    organisation.register("STUDY_004", {"current": place})
    source = project_source(
        settings_of(
            tmp_path,
            f'[governance]\nrepo = "{organisation.repository}"\n'
            '[projects.STUDY_001]\ndata = "file:///mine"\n'
            '[projects.STUDY_003]\naccess_key = "env:KEY"\nsecret_key = "env:KEY"\n'
            '[projects.STUDY_004]\nregion = "us-east-1"\n'
            '[projects.STUDY_005]\ndata = "file:///five"\n',
        )
    )
    source.start()
    try:
        assert list(source.projects()) == [f"STUDY_00{number}" for number in range(1, 6)]
        mine = source.find("STUDY_001")
        assert mine == source.projects()["STUDY_001"] == Project("STUDY_001", DataLocation("local", "/mine"))
        reached = source.find("STUDY_003")
        assert reached is not None
        assert reached == source.projects()["STUDY_003"]
        assert reached.governed
        assert reached.access == S3Access("eu-west-1", None, "AKIA", "AKIA")
        region = source.find("STUDY_004")
        assert region is not None
        assert region.access.region == "us-east-1"
        assert source.find("STUDY_006") is None
    finally:
        source.close()


def test_a_named_project_is_found_while_governance_is_gone(tmp_path: Path) -> None:
    named = {"A": Project("A", DataLocation("local", "/a"))}
    governed = GovernanceRepository(str(tmp_path / "nowhere.git"), None, tmp_path / "cache")
    source = ConfiguredProjects(named, governed=governed)
    source.start()
    try:
        assert source.find("A") == named["A"]
        assert source.problems()
        with pytest.raises(UnavailableError):
            source.find("B")
    finally:
        source.close()
