"""What every data repository does, wherever its remote is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from datom_flight.protocol.errors import ConflictError, InvalidRequestError
from datom_flight_server.metadata.bare import BareRepository
from datom_flight_server.metadata.git import Author, DataRepository
from support.expected import FIXTURES
from support.git import git
from support.git_http import git_server

TOKEN = "ghp_of_the_tests"
ANN = Author("Ann Lee", "ann@example.org")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Place:
    """A bare remote, and how to open it."""

    remote: Path
    open: Callable[[], DataRepository]

    def git(self, *arguments: str) -> str:
        """What git itself says of the remote."""
        return git(*arguments, cwd=self.remote)

    def log(self, form: str = "%s") -> list[str]:
        """The branch's commits, newest first, each in `form`."""
        return self.git("log", "--topo-order", f"--format={form}", "main").splitlines()


@pytest.fixture(params=["path", "file", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    served = tmp_path / "served folder"
    served.mkdir()
    remote = served / "data.git"
    git("init", "--quiet", "--bare", "--initial-branch", "main", "data.git", cwd=served)
    repositories: list[BareRepository] = []

    def open_at(url: str, token: str | None = None) -> DataRepository:
        repositories.append(BareRepository(url, token, "main", tmp_path / "clones"))
        return repositories[-1]

    with git_server(served, TOKEN) as server:
        opening: dict[str, Callable[[], DataRepository]] = {
            "path": lambda: open_at(str(remote)),
            "file": lambda: open_at(remote.as_uri()),
            "http": lambda: open_at(f"{server.url}/data.git", TOKEN),
        }
        yield Place(remote, opening[request.param])
        for repository in repositories:
            repository.close()


@pytest.fixture
def repository(place: Place) -> DataRepository:
    return place.open()


def write(repository: DataRepository, files: dict[str, bytes], message: str = "Update dm") -> str:
    """One commit on the remote's branch as it is now."""
    commit = repository.commit(repository.fetch(), files, message, ANN, NOON)
    repository.push(commit)
    return commit


def pushed(work: Path) -> bool:
    """Whether git could push from the work tree `work`."""
    try:
        git("push", "--quiet", "origin", "main", cwd=work)
    except AssertionError:
        return False
    return True


def test_an_empty_remote_has_no_commit(repository: DataRepository) -> None:
    assert repository.fetch() is None
    assert not repository.contains("1" * 40)


def test_the_first_push_makes_the_branch(place: Place, repository: DataRepository) -> None:
    commit = write(repository, {".datom/project.yaml": b"project_name: X\n"}, "Initialize datom repository")
    assert place.log("%H") == [commit]
    assert repository.fetch() == commit
    assert place.open().fetch() == commit


def test_a_commit_is_byte_for_byte_what_was_asked_for(place: Place, repository: DataRepository) -> None:
    parent = write(repository, {"dm/metadata.json": b"{}\n"})
    when = datetime(2026, 3, 1, 13, 30, 7, 999_999, tzinfo=timezone(timedelta(hours=1)))
    commit = repository.commit(parent, {"dm/metadata.json": b"[]"}, "Étude: dm\n\nzweite", Author("Åsa", "å@x"), when)
    repository.push(commit)
    tree = place.git("rev-parse", "main^{tree}").strip()
    seconds = int(datetime(2026, 3, 1, 12, 30, 7, tzinfo=UTC).timestamp())
    assert place.git("cat-file", "commit", "main") == (
        f"tree {tree}\nparent {parent}\nauthor Åsa <å@x> {seconds} +0000\n"
        f"committer datom-flight <datom-flight@localhost> {seconds} +0000\n\nÉtude: dm\n\nzweite"
    )
    assert place.git("ls-tree", "-r", "main").split("\t")[0].startswith("100644 blob ")


def test_a_message_may_be_empty(place: Place, repository: DataRepository) -> None:
    write(repository, {"a": b""}, "")
    assert place.git("cat-file", "commit", "main").endswith(" +0000\n\n")


def test_a_commit_keeps_the_files_it_does_not_name(place: Place, repository: DataRepository) -> None:
    write(repository, {"dm/metadata.json": b"1", "ex/metadata.json": b"2", ".datom/manifest.json": b"3"})
    write(repository, {"dm/metadata.json": b"11", "My table (v2)/metadata.json": b"4", "aux/metadata.json": b"5"})
    tip = repository.fetch()
    assert tip is not None
    read = {path: repository.read(tip, path) for path in place.git("ls-tree", "-rz", "--name-only", "main").split("\0")}
    read.pop("")
    assert read == {
        "dm/metadata.json": b"11",
        "ex/metadata.json": b"2",
        ".datom/manifest.json": b"3",
        "My table (v2)/metadata.json": b"4",
        "aux/metadata.json": b"5",
    }
    assert place.git("fsck", "--strict", "--no-dangling") == ""


def test_what_is_no_file_in_a_commit_is_none(repository: DataRepository) -> None:
    commit = write(repository, {"dm/metadata.json": b"{}"})
    for path in ("nope", "dm", "dm/nope", "dm/metadata.json/deeper"):
        assert repository.read(commit, path) is None
    earlier = write(repository, {"ex/metadata.json": b"{}"})
    assert repository.read(commit, "ex/metadata.json") is None
    assert repository.read(earlier, "ex/metadata.json") == b"{}"


def test_nobody_sees_a_commit_before_it_is_pushed(place: Place, repository: DataRepository) -> None:
    pushed = write(repository, {"a": b"1"})
    unpushed = repository.commit(pushed, {"a": b"2"}, "Update a", ANN, NOON)
    assert repository.read(unpushed, "a") == b"2"
    assert not repository.contains(unpushed)
    assert place.open().fetch() == pushed
    repository.push(unpushed)
    assert repository.contains(unpushed)
    assert place.log("%H") == [unpushed, pushed]


def test_several_commits_are_pushed_at_once(place: Place, repository: DataRepository) -> None:
    first = repository.commit(None, {"a": b"1"}, "one", ANN, NOON)
    second = repository.commit(first, {"b": b"2"}, "two", ANN, NOON)
    assert repository.fetch() is None
    repository.push(second)
    assert place.log() == ["two", "one"]
    assert place.git("fsck", "--strict", "--no-dangling") == ""


def test_of_two_that_write_at_once_the_second_is_told_and_may_write_again(
    place: Place, repository: DataRepository
) -> None:
    write(repository, {"a": b"1"}, "start")
    other = place.open()
    base = other.fetch()
    lost = other.commit(base, {"b": b"2"}, "other", ANN, NOON)
    write(repository, {"c": b"3"}, "mine")
    with pytest.raises(ConflictError) as caught:
        other.push(lost)
    assert caught.value.code == "conflict"
    assert place.log() == ["mine", "start"]
    assert not other.contains(lost)
    again = other.commit(other.fetch(), {"b": b"2"}, "other", ANN, NOON)
    other.push(again)
    assert place.log() == ["other", "mine", "start"]
    assert not other.contains(lost)


def test_of_two_that_begin_a_branch_at_once_the_second_is_told(place: Place, repository: DataRepository) -> None:
    other = place.open()
    assert repository.fetch() is None
    assert other.fetch() is None
    mine, theirs = (each.commit(None, {"a": b"1"}, name, ANN, NOON) for each, name in ((repository, "1"), (other, "2")))
    repository.push(mine)
    with pytest.raises(ConflictError):
        other.push(theirs)
    assert place.log("%H") == [mine]


def test_a_push_that_was_done_already_is_well(place: Place, repository: DataRepository) -> None:
    commit = write(repository, {"a": b"1"})
    repository.push(commit)
    assert place.log("%H") == [commit]


def test_many_writers_lose_nothing_and_keep_history_linear(place: Place) -> None:
    write(place.open(), {"a": b"0"}, "start")
    together = threading.Barrier(4)

    def work(number: int) -> None:
        repository = place.open()
        together.wait(30)
        for round_ in range(5):
            while True:
                commit = repository.commit(
                    repository.fetch(), {f"t{number}": b"%d" % round_}, f"{number} {round_}", ANN, NOON
                )
                try:
                    repository.push(commit)
                    break
                except ConflictError:
                    continue

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    log = place.log()
    assert sorted(log[:-1]) == sorted(f"{number} {round_}" for number in range(4) for round_ in range(5))
    assert place.git("rev-list", "--merges", "main") == ""
    assert place.git("fsck", "--strict", "--no-dangling") == ""


def test_a_plain_git_client_and_a_server_lose_nothing_of_each_other(place: Place, tmp_path: Path) -> None:
    repository = place.open()
    write(repository, {"a": b"0"}, "start")
    git("clone", "--quiet", str(place.remote), "work", cwd=tmp_path)
    work = tmp_path / "work"

    def engineer() -> None:
        for number in range(5):
            (work / "by-hand").write_text(str(number))
            git("add", "by-hand", cwd=work)
            git("commit", "--quiet", "--message", f"hand {number}", cwd=work)
            git("pull", "--quiet", "--rebase", cwd=work)
            while not pushed(work):
                git("pull", "--quiet", "--rebase", cwd=work)

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(engineer)
        for number in range(15):
            written = False
            while not written:
                with suppress(ConflictError):
                    write(repository, {"a": b"%d" % number}, f"server {number}")
                    written = True
        working.result(60)
    told = [f"hand {number}" for number in range(5)] + [f"server {number}" for number in range(15)]
    assert sorted(place.log()[:-1]) == sorted(told)
    assert place.git("rev-list", "--merges", "main") == ""
    assert place.git("fsck", "--strict", "--no-dangling") == ""


def test_what_others_push_is_fetched(place: Place, repository: DataRepository, tmp_path: Path) -> None:
    write(repository, {"a": b"1"})
    git("clone", "--quiet", str(place.remote), "work", cwd=tmp_path)
    (tmp_path / "work" / "a").write_bytes(b"by hand")
    git("commit", "--quiet", "--all", "--message", "Edit by hand", cwd=tmp_path / "work")
    git("push", "--quiet", "origin", "main", cwd=tmp_path / "work")
    tip = repository.fetch()
    assert tip == place.git("rev-parse", "main").strip()
    assert repository.read(tip, "a") == b"by hand"


def test_a_branch_that_was_rewritten_is_followed(place: Place, repository: DataRepository) -> None:
    first = write(repository, {"a": b"1"}, "first")
    second = write(repository, {"a": b"2"}, "second")
    place.git("update-ref", "refs/heads/main", first)
    with pytest.raises(ConflictError):
        repository.push(repository.commit(second, {"a": b"3"}, "third", ANN, NOON))
    assert repository.fetch() == first
    assert not repository.contains(second)
    assert repository.contains(first)


def test_a_branch_that_was_deleted_has_no_commit(place: Place, repository: DataRepository) -> None:
    commit = write(repository, {"a": b"1"})
    place.git("update-ref", "refs/heads/other", commit)
    place.git("update-ref", "-d", "refs/heads/main")
    with pytest.raises(ConflictError):
        repository.push(repository.commit(commit, {"a": b"2"}, "second", ANN, NOON))
    assert repository.fetch() is None
    assert not repository.contains(commit)


def test_ancestors_of_the_tip_are_contained_and_nothing_else(place: Place, repository: DataRepository) -> None:
    commits = [write(repository, {"a": b"%d" % number}) for number in range(3)]
    other = place.open()
    other.fetch()
    for each in (repository, other):
        assert [each.contains(commit) for commit in commits] == [True] * 3
        assert not each.contains("0" * 39 + "1")


def test_changes_are_the_commits_that_git_log_tells_of_the_path(
    place: Place, repository: DataRepository, tmp_path: Path
) -> None:
    write(repository, {"dm/h.json": b"1", "ex/h.json": b"1"}, "one")
    write(repository, {"ex/h.json": b"2"}, "two")
    write(repository, {"dm/h.json": b"3"}, "three")
    git("clone", "--quiet", str(place.remote), "work", cwd=tmp_path)
    work = tmp_path / "work"
    git("checkout", "--quiet", "-b", "side", "HEAD~1", cwd=work)
    (work / "lb").write_bytes(b"1")
    git("add", "lb", cwd=work)
    git("commit", "--quiet", "--message", "side", cwd=work)
    git("checkout", "--quiet", "main", cwd=work)
    git("merge", "--quiet", "--no-ff", "--message", "merge", "side", cwd=work)
    git("rm", "--quiet", "ex/h.json", cwd=work)
    git("commit", "--quiet", "--message", "remove", cwd=work)
    git("push", "--quiet", "origin", "main", cwd=work)
    tip = repository.fetch()
    assert tip is not None
    for path in ("dm/h.json", "ex/h.json", "lb", "never"):
        assert list(repository.changes(tip, path)) == place.git("log", "--format=%H", "main", "--", path).split()


@pytest.mark.parametrize("message", ["half a \ud800 pair", "a NUL \0 inside"])
def test_a_message_that_git_cannot_hold_is_refused(repository: DataRepository, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        repository.commit(None, {"a": b""}, message, ANN, NOON)
    assert caught.value.code == "invalid_argument"


def test_a_large_file_goes_there_and_back(place: Place, repository: DataRepository) -> None:
    text = b'{"version": "8a3b21cc"}\n' * 200_000
    commit = write(repository, {"dm/version_history.json": text})
    other = place.open()
    assert other.fetch() == commit
    assert other.read(commit, "dm/version_history.json") == text


@pytest.mark.parametrize("store", ["store-basic", "store-011"])
def test_work_that_r_began_is_continued(place: Place, repository: DataRepository, tmp_path: Path, store: str) -> None:
    git("clone", "--quiet", "--bare", str(FIXTURES / store / "repo.bundle"), "r.git", cwd=tmp_path)
    git("push", "--quiet", str(place.remote), "main", cwd=tmp_path / "r.git")
    before = place.log("%H")
    tip = repository.fetch()
    assert tip == before[0]
    for path in git("ls-tree", "-rz", "--name-only", "main", cwd=place.remote).split("\0"):
        if path.endswith("history.json"):
            assert list(repository.changes(tip, path)) == place.git("log", "--format=%H", "main", "--", path).split()
    commit = write(repository, {"dm/metadata.json": b"{}\n"})
    assert place.log("%H") == [commit, *before]
    assert place.git("diff-tree", "-r", "--name-only", "--no-commit-id", "main").split() == ["dm/metadata.json"]
    assert place.git("fsck", "--no-dangling") == ""
    with closing(BareRepository(str(place.remote), None, "main", tmp_path / "elsewhere")) as other:
        assert other.fetch() == commit
