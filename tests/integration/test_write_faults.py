"""Writes that meet a busy storage, a remote that is away, a full disk, an expired token or a client that is gone."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl
import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.auth.tokens import LEEWAY, Tokens
from datom_flight_server.model import Principal, Role
from support.answers import code_of
from support.faulty import Fault, FaultyProxy, faulty_proxy
from support.git_http import GitServer
from support.s3 import S3Server
from support.same import assert_same
from support.server import SECRET, Server, await_condition, clean_environment, run_command, running, write_config
from support.writable import Place, command, empty_place, git_over_http, put, refusal

PROJECT = "STUDY_FAULTS"
FIRST = pa.table({"x": [1, 2, 3]})
SECOND = pa.table({"x": [4, 5, 6]})
LARGE = pa.table({"noise": np.random.default_rng(1).random(400_000)})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return empty_place(tmp_path / "place", PROJECT)


@pytest.fixture
def server(place: Place, tmp_path: Path) -> Iterator[Server]:
    with running(write_config(tmp_path / "server", {PROJECT: place.settings})) as server:
        yield server


@pytest.fixture
def developer(server: Server) -> str:
    return server.token("developer")


def spooled(server: Server) -> list[Path]:
    """What is being written, or was left behind."""
    return list((server.config.parent / "cache" / "spool").iterdir())


@contextmanager
def unchanged(server: Server, place: Place) -> Iterator[None]:
    """Around what must change no byte, leave nothing behind, and leave the server alive."""
    before = place.state
    yield
    await_condition(lambda: spooled(server) == [], 10, "the spool is empty")
    assert place.state == before
    assert place.unfinished() == []
    assert server.alive


# The storage.


@pytest.fixture
def s3_place(s3: S3Server, tmp_path: Path) -> Place:
    return empty_place(tmp_path / "place", PROJECT, s3)


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3.url) as proxy:
        yield proxy


@pytest.fixture
def behind_proxy(s3_place: Place, proxy: FaultyProxy, tmp_path: Path) -> Iterator[Server]:
    settings = s3_place.settings | {"endpoint": proxy.url}
    with running(write_config(tmp_path / "server", {PROJECT: settings})) as server:
        yield server


@pytest.mark.parametrize("table", [FIRST, LARGE], ids=["small", "in parts"])
@pytest.mark.parametrize(
    "fault", [Fault(on="PUT", status=503), Fault(on="PUT", reset_at=20)], ids=["unavailable", "reset"]
)
def test_an_object_that_cannot_be_stored_is_no_version(
    behind_proxy: Server, s3_place: Place, proxy: FaultyProxy, fault: Fault, table: pa.Table
) -> None:
    developer = behind_proxy.token("developer")
    put(behind_proxy, command(PROJECT, "t"), SECOND, developer)
    with unchanged(behind_proxy, s3_place):
        proxy.inject(fault)
        assert refusal(behind_proxy, command(PROJECT, "t"), table, developer) == "store_unreachable"
        proxy.heal()
    assert put(behind_proxy, command(PROJECT, "t"), table, developer)["action"] == "full"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="PUT", status=503, times=2),
        Fault(on="PUT", reset_at=20, times=2),
        Fault(on="PUT", cut_after=0, times=1),
    ],
    ids=["unavailable", "reset", "answer lost"],
)
def test_a_storage_that_recovers_in_time_is_not_noticed(
    behind_proxy: Server, s3_place: Place, proxy: FaultyProxy, fault: Fault
) -> None:
    proxy.inject(fault)
    receipt = put(behind_proxy, command(PROJECT, "t"), FIRST, behind_proxy.token("developer"))
    assert receipt["action"] == "full"
    with behind_proxy.connect(PROJECT) as conn:
        assert_same(conn.read("t"), FIRST)
        assert all(finding.ok for finding in conn.validate())


def test_a_version_that_cannot_be_mirrored_is_pending_until_it_is_repaired(
    behind_proxy: Server, s3_place: Place, proxy: FaultyProxy
) -> None:
    developer = behind_proxy.token("developer")
    first = put(behind_proxy, command(PROJECT, "t"), FIRST, developer)
    proxy.inject(Fault(on="/.metadata/", status=503))
    with pytest.raises(fl.FlightError) as pending:
        put(behind_proxy, command(PROJECT, "t"), SECOND, developer)
    proxy.heal()
    assert code_of(pending.value) == "mirror_pending"
    error = DatomError.from_json(pending.value.extra_info)
    assert error is not None
    assert s3_place.head == error.fields["commit"]
    assert s3_place.document("t")["data_sha"] == first["data_sha"]
    repaired = run_command(
        "datom-flight-server", "repair", "--config", str(behind_proxy.config), home=behind_proxy.config.parent
    )
    assert repaired.returncode == 0, repaired.stderr
    with behind_proxy.connect(PROJECT, token=developer) as conn:
        assert conn.history("t")[0].version == error.fields["version"]
        assert_same(conn.read("t"), SECOND)
        assert all(finding.ok for finding in conn.validate())
        assert conn.write("t", SECOND).action == "none"


# The remote.


@pytest.fixture
def git(tmp_path: Path) -> Iterator[GitServer]:
    with git_over_http(tmp_path / "place") as git:
        yield git


@pytest.fixture
def http_place(git: GitServer, tmp_path: Path) -> Place:
    return empty_place(tmp_path / "place", PROJECT, git_url=git.url)


@pytest.fixture
def with_git(http_place: Place, tmp_path: Path) -> Iterator[Server]:
    with running(write_config(tmp_path / "server", {PROJECT: http_place.settings})) as server:
        yield server


def test_a_remote_that_is_down_refuses_the_write_and_no_read(tmp_path: Path) -> None:
    with git_over_http(tmp_path / "place") as git:
        place = empty_place(tmp_path / "place", PROJECT, git_url=git.url)
        server = Server(write_config(tmp_path / "server", {PROJECT: place.settings}))
        developer = server.token("developer")
        put(server, command(PROJECT, "t"), FIRST, developer)
    try:
        with unchanged(server, place):
            assert refusal(server, command(PROJECT, "t"), SECOND, developer) == "store_unreachable"
            with server.connect(PROJECT) as conn:
                assert_same(conn.read("t"), FIRST)
    finally:
        server.stop()


def test_a_remote_that_fails_between_fetch_and_push_gets_no_version(
    with_git: Server, http_place: Place, git: GitServer
) -> None:
    developer = with_git.token("developer")
    put(with_git, command(PROJECT, "t"), FIRST, developer)
    before = http_place.state
    # the object is there, and nothing refers to it
    git.read_only = True
    assert refusal(with_git, command(PROJECT, "t"), SECOND, developer) == "access_denied"
    orphan = [path for path in http_place.state if path not in before]
    assert [Path(path).suffix for path in orphan] == [".parquet"]
    assert {path: sha for path, sha in http_place.state.items() if path not in orphan} == before
    assert spooled(with_git) == []
    git.read_only = False
    with with_git.connect(PROJECT, token=developer) as conn:
        assert len(conn.history("t")) == 1
        assert conn.write("t", SECOND).action == "full"
        assert all(finding.ok for finding in conn.validate())


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on="/info/refs?service=git-upload-pack", status=503, times=2),
        Fault(on="/git-upload-pack", cut_after=10, reset=True, times=1),
        Fault(on="/info/refs?service=git-receive-pack", status=503, times=2),
        Fault(on="/git-receive-pack", reset_at=0, times=2),
        Fault(on="/git-receive-pack", cut_after=10, times=1),
    ],
    ids=["fetch", "fetch cut off", "push", "push cut off", "answer to a push cut off"],
)
def test_a_remote_that_recovers_in_time_is_not_noticed(git: GitServer, tmp_path: Path, fault: Fault) -> None:
    with faulty_proxy(git.url) as proxy:
        place = empty_place(tmp_path / "place", PROJECT, git_url=proxy.url)
        with running(write_config(tmp_path / "server", {PROJECT: place.settings})) as server:
            proxy.inject(fault)
            receipt = put(server, command(PROJECT, "t"), FIRST, server.token("developer"))
            assert receipt["commit"] == place.head
            assert fault.on in "".join(proxy.requests)
            assert len(place.commits()) == 2
            with server.connect(PROJECT) as conn:
                assert_same(conn.read("t"), FIRST)
                assert all(finding.ok for finding in conn.validate())


def test_a_push_whose_answer_is_lost_is_acknowledged_all_the_same(
    with_git: Server, http_place: Place, git: GitServer
) -> None:
    developer = with_git.token("developer")
    git.forgets_answers = True
    for table in (FIRST, SECOND):
        receipt = put(with_git, command(PROJECT, "t"), table, developer)
        assert receipt["commit"] == http_place.head
    assert len(http_place.commits()) == 3
    with with_git.connect(PROJECT) as conn:
        assert [entry.commit for entry in conn.history("t")] == http_place.commits()[:2]
        assert all(finding.ok for finding in conn.validate())


# The disk.


def test_a_full_disk_of_the_server_leaves_nothing_behind(server: Server, place: Place, developer: str) -> None:
    put(server, command(PROJECT, "t"), FIRST, developer)
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    with unchanged(server, place):
        # to the server a limit of its files is like a full disk
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1_000_000, hard))
        assert refusal(server, command(PROJECT, "t"), LARGE, developer) == "overloaded"
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert put(server, command(PROJECT, "t"), LARGE, developer)["action"] == "full"


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 1 MB at `folder`; skips where none may be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("file systems may not be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root may mount")
def test_a_full_storage_keeps_the_versions_it_has(tmp_path: Path) -> None:
    (tmp_path / "place" / f"{PROJECT}-storage").mkdir(parents=True)
    with small_disk(tmp_path / "place" / f"{PROJECT}-storage"):
        place = empty_place(tmp_path / "place", PROJECT)
        with running(write_config(tmp_path / "server", {PROJECT: place.settings})) as server:
            developer = server.token("developer")
            put(server, command(PROJECT, "t"), FIRST, developer)
            with unchanged(server, place):
                assert refusal(server, command(PROJECT, "t"), LARGE, developer) == "unavailable"
            with server.connect(PROJECT, token=developer) as conn:
                assert_same(conn.read("t"), FIRST)
                assert conn.write("t", SECOND).action == "full"


# The caller.


def two_parts() -> tuple[pa.RecordBatch, pa.RecordBatch]:
    first, second = SECOND.to_batches()[0].slice(0, 2), SECOND.to_batches()[0].slice(2)
    return first, second


def finish(writer: fl.FlightStreamWriter, answers: fl.FlightMetadataReader, last: pa.RecordBatch | None = None) -> None:
    """Send the `last` rows and learn how the write ended."""
    if last is not None:
        writer.write_batch(last)
    writer.done_writing()
    answers.read()
    # raises what the server answered
    writer.close()


def test_a_token_that_expires_while_the_rows_come_writes_nothing(server: Server, place: Place) -> None:
    lifetime = timedelta(seconds=2)
    token = Tokens(SECRET).create(Principal("ann", Role.DEVELOPER), lifetime)
    expired = time.time() + (lifetime + LEEWAY).total_seconds() + 1
    first, second = two_parts()
    with unchanged(server, place), server.raw() as client:
        writer, answers = client.do_put(command(PROJECT, "t"), first.schema, server.call_options(token))
        writer.write_batch(first)
        await_condition(lambda: spooled(server), 10, "the rows arrive")
        await_condition(lambda: time.time() > expired, 20, "the token has expired")
        with pytest.raises(fl.FlightUnauthenticatedError) as refused:
            finish(writer, answers, second)
        assert code_of(refused.value) == "unauthenticated"


CLIENT = """
import sys
import pyarrow as pa, pyarrow.flight as fl
url, token, command = sys.argv[1:]
table = pa.table({"x": list(range(1000))})
options = fl.FlightCallOptions(headers=[(b"authorization", b"Bearer " + token.encode())])
writer, answers = fl.FlightClient(url).do_put(fl.FlightDescriptor.for_command(command), table.schema, options)
for _ in range(5):
    writer.write_table(table)
print("sent", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end_record", [True, False])
def test_a_client_that_is_killed_half_way_writes_nothing(
    server: Server, place: Place, developer: str, end_record: bool
) -> None:
    asked = command(PROJECT, "t", end_record=end_record).command.decode()
    with unchanged(server, place):
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, server.url, developer, asked],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(server.config.parent),
        )
        with client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"sent\n"
            await_condition(lambda: spooled(server), 10, "the rows arrive")
            client.kill()
        await_condition(lambda: "do_put STUDY_FAULTS/t cancelled" in server.log, 10, "the server notices")


def test_a_stream_that_is_closed_before_its_end_record_writes_nothing(
    server: Server, place: Place, developer: str
) -> None:
    with unchanged(server, place), server.raw() as client:
        descriptor = command(PROJECT, "t", end_record=True)
        writer, answers = client.do_put(descriptor, SECOND.schema, server.call_options(developer))
        writer.write_table(SECOND)
        with pytest.raises(fl.FlightError) as refused:
            finish(writer, answers)
        assert code_of(refused.value) == "truncated"


def test_a_call_whose_deadline_passes_half_way_writes_nothing(server: Server, place: Place, developer: str) -> None:
    with unchanged(server, place), server.raw() as client:
        writer, answers = client.do_put(command(PROJECT, "t"), SECOND.schema, server.call_options(developer, seconds=2))
        writer.write_table(SECOND)
        # the first returns when the deadline has passed
        assert answers.read() is None
        with pytest.raises(fl.FlightTimedOutError):
            writer.close()
        await_condition(lambda: "do_put STUDY_FAULTS/t cancelled" in server.log, 10, "the server notices")


# The server's own end.


def test_a_write_under_way_ends_before_a_server_that_is_asked_to_stop(tmp_path: Path) -> None:
    place = empty_place(tmp_path / "place", PROJECT)
    grace = {"shutdown_grace_seconds": 30}
    with running(write_config(tmp_path / "server", {PROJECT: place.settings}, server=grace)) as server:
        developer = server.token("developer")
        first, second = two_parts()
        with server.raw() as client:
            writer, answers = client.do_put(command(PROJECT, "t"), first.schema, server.call_options(developer))
            writer.write_batch(first)
            await_condition(lambda: spooled(server), 10, "the rows arrive")
            os.kill(server.pid, signal.SIGTERM)

            def refused() -> bool:
                with pytest.raises(fl.FlightError) as caught:
                    put(server, command(PROJECT, "u", end_record=True), [second.slice(0, 0)], developer)
                return code_of(caught.value) == "unavailable"

            await_condition(refused, 10, "new writes are refused")
            writer.write_batch(second)
            writer.done_writing()
            assert json.loads(bytes(answers.read()))["action"] == "full"
        assert server.ended() == 0


# The limits.


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Place]]:
    folder = tmp_path_factory.mktemp("narrow")
    place = empty_place(folder / "place", PROJECT)
    writes = {"max_bytes": "1MB", "max_rows": 10_000, "max_seconds": 3, "max_concurrent": 2}
    with running(write_config(folder / "server", {PROJECT: place.settings}, writes=writes)) as server:
        yield server, place


def refused_by(error: BaseException) -> tuple[str, object]:
    """The code, and the limit that it names."""
    found = DatomError.from_json(getattr(error, "extra_info", b""))
    assert found is not None, error
    assert str(found.fields["value"]).partition(".")[0] in found.message
    return found.code, found.fields["limit"]


@pytest.mark.parametrize(
    ("table", "limit"),
    [
        (pa.table({"x": ["a" * 200] * 9_999}), "writes.max_bytes"),
        (pa.table({"x": pa.array([1] * 10_001, pa.int8())}), "writes.max_rows"),
    ],
    ids=["bytes", "rows"],
)
def test_a_table_that_is_too_large_names_the_limit(narrow: tuple[Server, Place], table: pa.Table, limit: str) -> None:
    server, place = narrow
    with unchanged(server, place), pytest.raises(fl.FlightError) as refused:
        put(server, command(PROJECT, "t"), table, server.token("developer"))
    assert refused_by(refused.value) == ("too_large", limit)


def test_a_write_that_takes_too_long_names_the_limit(narrow: tuple[Server, Place]) -> None:
    server, place = narrow
    first, second = two_parts()
    with unchanged(server, place), server.raw() as client:
        writer, answers = client.do_put(
            command(PROJECT, "t"), first.schema, server.call_options(server.token("developer"))
        )
        writer.write_batch(first)
        await_condition(lambda: spooled(server), 10, "the rows arrive")
        late = time.monotonic() + 4
        await_condition(lambda: time.monotonic() > late, 10, "it is late")
        with pytest.raises(fl.FlightTimedOutError) as refused:
            finish(writer, answers, second)
    assert refused_by(refused.value) == ("timeout", "writes.max_seconds")


def test_more_writes_at_once_than_allowed_name_the_limit(narrow: tuple[Server, Place]) -> None:
    server, place = narrow
    options = server.call_options(server.token("developer"))
    with unchanged(server, place), server.raw() as client:
        open_writes = []
        for number in range(2):
            writer, answers = client.do_put(command(PROJECT, f"t{number}", end_record=True), SECOND.schema, options)
            writer.write_table(SECOND)
            open_writes.append((writer, answers))
        await_condition(lambda: len(spooled(server)) == 2, 10, "both have begun")
        with pytest.raises(fl.FlightUnavailableError) as refused:
            put(server, command(PROJECT, "t"), SECOND, server.token("developer"))
        assert refused_by(refused.value) == ("overloaded", "writes.max_concurrent")
        for writer, answers in open_writes:
            with pytest.raises(fl.FlightError, match="truncated"):
                finish(writer, answers)
    assert put(server, command(PROJECT, "t"), SECOND, server.token("developer"))["action"] == "full"
