"""What goes wrong between a bare clone and its remote, and in the clone itself."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from datom_flight.protocol.errors import DatomError, InvalidRequestError
from datom_flight_server.metadata.bare import BareRepository
from datom_flight_server.metadata.git import Author
from support.expected import FIXTURES
from support.git import git
from support.git_http import GitServer, git_server
from support.tls import write_certificate

TOKEN = "ghp_of_the_tests"
ANN = Author("Ann Lee", "ann@example.org")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GRACE_SECONDS = 5  # what a busy machine may add to a deadline

Open = Callable[..., BareRepository]


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A bare repository that R wrote."""
    served = tmp_path / "served"
    served.mkdir()
    git("clone", "--quiet", "--bare", str(FIXTURES / "store-basic" / "repo.bundle"), "data.git", cwd=served)
    return served / "data.git"


@pytest.fixture
def server(remote: Path) -> Iterator[GitServer]:
    with git_server(remote.parent, TOKEN) as server:
        yield server


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens repositories whose clones are in one directory, and closes them in the end."""
    repositories: list[BareRepository] = []

    def opened(url: object, token: str | None = None, branch: str = "main") -> BareRepository:
        repositories.append(BareRepository(str(url), token, branch, tmp_path / "clones"))
        return repositories[-1]

    yield opened
    for repository in repositories:
        repository.close()


@pytest.fixture
def repository(server: GitServer, opened: Open) -> BareRepository:
    """A clone whose remote wants a token."""
    return opened(f"{server.url}/data.git", TOKEN)


@contextmanager
def refused(code: str, *says: str, within_seconds: float = 60) -> Iterator[None]:
    """The block is refused with `code`, in words that give nothing away."""
    started = time.monotonic()
    with pytest.raises(DatomError) as caught:
        yield
    assert caught.value.code == code, (caught.value, caught.value.__cause__)
    assert time.monotonic() - started < within_seconds + GRACE_SECONDS
    text = caught.value.to_json().decode()
    for words in says:
        assert words in text
    for private in (TOKEN, "wrong-token", "/tmp", "127.0.0.1", "http:"):
        assert private not in text


def made(repository: BareRepository, message: str = "Update dm") -> str:
    """A commit on top of the remote's tip, not pushed yet."""
    return repository.commit(repository.fetch(), {"dm/metadata.json": b"{}\n"}, message, ANN, NOON)


def tip_of(remote: Path) -> str:
    return git("rev-parse", "main", cwd=remote).strip()


def add_hook(remote: Path, name: str, script: str) -> None:
    hook = remote / "hooks" / name
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)


# Credentials


@pytest.mark.parametrize(
    ("token", "says"), [("wrong-token", "refuses the credentials"), (None, "asks for a token, and none is set")]
)
def test_a_refused_token_is_told(server: GitServer, opened: Open, token: str | None, says: str) -> None:
    with refused("access_denied", says):
        opened(f"{server.url}/data.git", token).fetch()
    assert len(server.authorizations) <= 1


def test_a_token_refused_at_the_push_is_told(remote: Path, server: GitServer, repository: BareRepository) -> None:
    before = tip_of(remote)
    commit = made(repository)
    server.read_only = True
    with refused("access_denied", "refuses the credentials", "403"):
        repository.push(commit)
    assert tip_of(remote) == before
    assert not repository.contains(commit)


def test_a_token_is_not_sent_to_another_host(remote: Path, server: GitServer, repository: BareRepository) -> None:
    with git_server(remote.parent, TOKEN) as other:
        server.redirect_to = other.url
        with refused("access_denied", "sends to another host"):
            repository.fetch()
        assert other.authorizations == []


def test_a_repository_that_is_not_there_is_told(server: GitServer, opened: Open) -> None:
    with refused("store_unreachable", "no such repository"):
        opened(f"{server.url}/nope.git", TOKEN).fetch()


# Refusals of a push


@pytest.mark.parametrize("hook", ["pre-receive", "update"])
def test_a_protected_branch_is_told_in_the_remotes_words(
    remote: Path, server: GitServer, repository: BareRepository, hook: str
) -> None:
    add_hook(remote, hook, "echo 'GH006: Protected branch update failed for refs/heads/main.' >&2; exit 1")
    before = tip_of(remote)
    commit = made(repository)
    with refused("access_denied", "hook declined", "GH006: Protected branch update failed", "may be protected"):
        repository.push(commit)
    assert tip_of(remote) == before
    assert repository.fetch() == before


def test_a_branch_that_moves_during_the_push_is_a_conflict(
    remote: Path, server: GitServer, repository: BareRepository
) -> None:
    before = tip_of(remote)
    parent = git("rev-parse", "main~1", cwd=remote).strip()
    commit = made(repository)
    server.before_push = lambda: git("update-ref", "refs/heads/main", parent, before, cwd=remote)
    with refused("conflict", "moved on"):
        repository.push(commit)
    assert tip_of(remote) == parent


def test_a_branch_that_is_being_moved_is_a_conflict(
    remote: Path, server: GitServer, repository: BareRepository, opened: Open
) -> None:
    for each in (repository, opened(remote)):
        commit = made(each)
        lock = remote / "refs" / "heads" / "main.lock"
        lock.touch()
        with refused("conflict"):
            each.push(commit)
        lock.unlink()
        each.push(commit)


def test_a_lock_that_was_left_in_a_folder_is_told(remote: Path, opened: Open) -> None:
    repository = opened(remote)
    commit = made(repository)
    lock = remote / "refs" / "heads" / "main.lock"
    lock.touch()
    hour_ago = time.time() - 3600
    os.utime(lock, (hour_ago, hour_ago))
    with refused("store_unreachable", "refs/heads/main.lock", "remove it"):
        repository.push(commit)


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from datom_flight_server.metadata.bare import BareRepository
from datom_flight_server.metadata.git import Author
repository = BareRepository(sys.argv[1], None, "main", Path(sys.argv[2]))
number = 0
while True:
    files = {"dm/metadata.json": b"%d" % number}
    made = repository.commit(repository.fetch(), files, "Update dm", Author("Ann", "a@x"), datetime.now(UTC))
    repository.push(made)
    print(made, flush=True)
    number += 1
"""


def test_servers_killed_while_they_push_lose_nothing_and_block_nobody(tmp_path: Path, remote: Path) -> None:
    told: list[str] = []
    for round_ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(remote), str(tmp_path / "clones")], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(1 + round_):
                told.append(writer.stdout.readline().strip())
            writer.send_signal(signal.SIGKILL)
            told.extend(writer.stdout.read().split())
    assert all(told)
    assert set(told) <= set(git("rev-list", "main", cwd=remote).split())
    assert git("fsck", "--strict", "--no-dangling", cwd=remote) == ""
    assert sorted(path.name for path in (tmp_path / "clones").iterdir()) == ["0.git", "0.lock"]


@pytest.mark.parametrize("written", [True, False])
def test_the_lock_of_a_server_killed_while_it_moved_the_branch_is_removed(
    remote: Path, opened: Open, written: bool
) -> None:
    repository = opened(remote)
    commit = made(repository)
    (remote / "datom-flight.lock").write_text(commit)
    (remote / "refs" / "heads" / "main.lock").write_text(f"{commit}\n" if written else "")
    repository.push(commit)
    assert tip_of(remote) == commit
    assert (remote / "datom-flight.lock").read_bytes() == b""


def test_the_lock_of_another_git_is_left_alone(remote: Path, opened: Open) -> None:
    repository = opened(remote)
    commit = made(repository)
    (remote / "datom-flight.lock").write_text(commit)
    lock = remote / "refs" / "heads" / "main.lock"
    lock.write_text(f"{tip_of(remote)}\n")
    with refused("conflict"):
        repository.push(commit)
    assert lock.exists()


def test_a_server_that_hangs_while_it_moves_a_branch_holds_others_up_for_seconds(remote: Path, opened: Open) -> None:
    repository = opened(remote)
    commit = made(repository)
    with (remote / "datom-flight.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with refused("conflict", within_seconds=5):
            repository.push(commit)
    repository.push(commit)


def test_a_commit_that_does_not_descend_from_the_tip_is_refused(
    remote: Path, repository: BareRepository, opened: Open
) -> None:
    before = tip_of(remote)
    for each in (repository, opened(remote)):
        each.fetch()
        unrelated = each.commit(None, {"a": b""}, "Update a", ANN, NOON)
        with refused("conflict"):
            each.push(unrelated)
    assert tip_of(remote) == before


@pytest.mark.parametrize("hook", ["pre-receive", "post-receive"])
def test_hooks_of_a_folder_are_not_passed_over(remote: Path, opened: Open, hook: str) -> None:
    add_hook(remote, hook, "exit 0")
    repository = opened(remote)
    commit = made(repository)
    with refused("unsupported", hook, "ssh or https"):
        repository.push(commit)
    assert tip_of(remote) != commit


def test_a_working_copy_is_not_pushed_to(tmp_path: Path, remote: Path, opened: Open) -> None:
    git("clone", "--quiet", str(remote), "work", cwd=tmp_path)
    repository = opened(tmp_path / "work")
    commit = made(repository)
    with refused("unsupported", "not a bare repository", "git clone --bare"):
        repository.push(commit)
    assert tip_of(tmp_path / "work") != commit


# Remotes that are gone, silent, or die


def test_a_remote_that_is_gone_is_unreachable_and_used_again_when_it_is_back(
    remote: Path, opened: Open, tmp_path: Path
) -> None:
    repository = opened(remote)
    commit = made(repository)
    hidden = remote.rename(tmp_path / "hidden")
    for call in (repository.fetch, lambda: repository.push(commit)):
        with refused("store_unreachable", "no such folder"):
            call()
    hidden.rename(remote)
    repository.push(commit)
    assert repository.fetch() == commit == tip_of(remote)


def test_a_port_where_nobody_listens_is_unreachable(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with refused("store_unreachable", "cannot be connected to"):
        opened(f"http://127.0.0.1:{port}/data.git", TOKEN).fetch()
    with refused("store_unreachable", "host is not known"):
        opened("https://git.invalid/data.git", TOKEN).fetch()


def test_a_remote_with_a_certificate_of_its_own_making_is_not_trusted(opened: Open, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_certificate(tmp_path / "tls"))

    def greet(listening: socket.socket) -> None:
        with suppress(OSError), listening.accept()[0] as connection:
            context.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:
        greeting = threads.submit(greet, listening)
        with refused("store_unreachable", "certificate is not valid", "known_hosts"):
            opened(f"https://127.0.0.1:{listening.getsockname()[1]}/data.git", TOKEN).fetch()
        greeting.result(10)


@pytest.mark.parametrize(("status", "code"), [("500 Error", "store_unreachable"), ("429 Slow", "store_unreachable")])
def test_a_failing_remote_is_unreachable(server: GitServer, repository: BareRepository, status: str, code: str) -> None:
    commit = made(repository)
    server.failing = status
    for call in (repository.fetch, lambda: repository.push(commit)):
        with refused(code, status.split()[0]):
            call()


def test_a_silent_remote_times_out(server: GitServer, repository: BareRepository) -> None:
    commit = made(repository)
    server.answering.clear()
    with refused("timeout", "timed out", within_seconds=12):
        repository.fetch()
    server.answering.set()
    repository.push(commit)


def test_a_push_whose_answer_was_lost_is_found_to_be_done(
    remote: Path, server: GitServer, repository: BareRepository
) -> None:
    commit = made(repository)
    server.forgets_answers = True
    with refused("store_unreachable"):
        repository.push(commit)
    server.forgets_answers = False
    assert not repository.contains(commit)
    assert repository.fetch() == commit == tip_of(remote)
    assert repository.contains(commit)


def test_a_lost_push_is_found_also_under_what_others_pushed_since(
    remote: Path, server: GitServer, repository: BareRepository, opened: Open
) -> None:
    commit = made(repository)
    server.forgets_answers = True
    with refused("store_unreachable"):
        repository.push(commit)
    server.forgets_answers = False
    other = opened(remote)
    later = made(other, "later")
    other.push(later)
    assert repository.fetch() == later
    assert repository.contains(commit)


# The clone


def test_two_at_once_take_two_clones_and_later_ones_use_them_again(tmp_path: Path, remote: Path, opened: Open) -> None:
    first, second = opened(remote), opened(remote)
    assert first.fetch() == second.fetch()
    first.close()
    second.close()
    third = opened(remote)
    assert third.fetch() == tip_of(remote)
    clones = tmp_path / "clones"
    assert sorted(path.name for path in clones.iterdir()) == ["0.git", "0.lock", "1.git", "1.lock"]
    # closed is not spent
    assert first.fetch() == tip_of(remote)


HOLDER = """
import sys
from pathlib import Path
from datom_flight_server.metadata.bare import BareRepository
repository = BareRepository(sys.argv[1], None, "main", Path(sys.argv[2]))
repository.fetch()
print("holding", flush=True)
sys.stdin.read()
"""


def test_the_clone_of_a_killed_process_is_free_again(tmp_path: Path, remote: Path, opened: Open) -> None:
    clones = tmp_path / "clones"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(remote), str(clones)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holding\n"
        assert opened(remote).fetch() == tip_of(remote)
        assert (clones / "1.git").exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait(30)
    for name in ("refs/datom/tip.lock", "packed-refs.lock", "config.lock", "HEAD.lock"):
        (clones / "0.git" / name).touch()
    (clones / "0.git" / "objects" / "pack" / "pack_git2_0f0f0f").write_bytes(b"PACK")
    repository = opened(remote)
    commit = made(repository)
    repository.push(commit)
    assert repository.fetch() == commit
    assert not (clones / "2.git").exists()


def damage_pack(clone: Path) -> None:
    for pack in clone.glob("objects/pack/*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes()[:100])


def put_file_in_place(clone: Path) -> None:
    shutil.rmtree(clone)
    clone.write_text("")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "packs cut off": damage_pack,
    "objects gone": lambda clone: shutil.rmtree(clone / "objects"),
    "packs gone": lambda clone: shutil.rmtree(clone / "objects" / "pack"),
    "tip empty": lambda clone: (clone / "refs" / "datom" / "tip").write_text(""),
    "tip bogus": lambda clone: (clone / "refs" / "datom" / "tip").write_text("1" * 40 + "\n"),
    "configuration garbled": lambda clone: (clone / "config").write_text("[[["),
    "head empty": lambda clone: (clone / "HEAD").write_text(""),
    "head gone": lambda clone: (clone / "HEAD").unlink(),
    "a file in its place": put_file_in_place,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("moved", [True, False], ids=["moved", "unmoved"])
def test_a_damaged_clone_is_made_anew(
    tmp_path: Path, remote: Path, opened: Open, damage: Callable[[Path], object], moved: bool
) -> None:
    first = opened(remote)
    assert first.fetch() == tip_of(remote)
    first.close()
    damage(tmp_path / "clones" / "0.git")
    if moved:
        git("update-ref", "refs/heads/main", "main~1", cwd=remote)
    repository = opened(remote)
    tip = repository.fetch()
    assert tip == tip_of(remote)
    assert repository.read(tip, ".datom/manifest.json")
    assert len(list(repository.changes(tip, ".datom/manifest.json"))) > 20
    repository.push(made(repository))


def test_damage_found_while_reading_is_told_and_mended_by_the_next_fetch(
    tmp_path: Path, remote: Path, opened: Open
) -> None:
    first = opened(remote)
    tip = first.fetch()
    assert tip is not None
    first.close()
    damage_pack(tmp_path / "clones" / "0.git")
    for call in (
        lambda each: each.read(tip, ".datom/manifest.json"),
        lambda each: list(each.changes(tip, ".datom/manifest.json")),
        lambda each: each.commit(tip, {"a": b""}, "Update a", ANN, NOON),
    ):
        repository = opened(remote)
        with refused("store_unreachable", "was damaged, and is fetched again"):
            call(repository)
        assert repository.fetch() == tip
        call(repository)
        repository.close()
        damage_pack(tmp_path / "clones" / "0.git")


def test_a_clone_of_many_packs_is_made_anew(tmp_path: Path, remote: Path, opened: Open) -> None:
    repository = opened(remote)
    tip = repository.fetch()
    packs = tmp_path / "clones" / "0.git" / "objects" / "pack"
    for number in range(120):
        (packs / f"pack-{number:040x}.pack").touch()
    assert repository.fetch() == tip
    assert len(list(packs.glob("*.pack"))) == 1


# Authors


@pytest.mark.parametrize(
    ("name", "email"),
    [
        ("", "a@x"),
        (" ", "a@x"),
        ("Ann", ""),
        ("Ann <x>", "a@x"),
        ("Ann", "a@x>"),
        ("Ann\nparent 0", "a@x"),
        ("\0", "x"),
    ],
)
def test_an_author_whom_git_cannot_name_is_refused(name: str, email: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Author(name, email)
    assert caught.value.code == "invalid_argument"
