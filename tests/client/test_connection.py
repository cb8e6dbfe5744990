"""Connecting: who one is, where to, and what is said when it fails."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.flight as fl
import pytest

import datom_flight
from datom_flight import Connection, DatomError, DatomWarning, Version
from support.rows import rows
from support.tls import write_certificate
from support.wire_server import WireServer


def refusal(call: Any, *arguments: Any, **options: Any) -> DatomError:
    with pytest.raises(DatomError) as caught:
        call(*arguments, **options)
    return caught.value


# Who, and in which project


def test_a_connection_says_where_it_is_and_as_whom_but_never_the_token(server: WireServer) -> None:
    server.tokens["top-secret"] = "ann"
    with datom_flight.connect(server.url, "STUDY_001", token="top-secret") as conn:
        assert (conn.project, conn.role, conn.principal, conn.url) == ("STUDY_001", "reader", "ann", server.url)
        assert (
            str(conn)
            == repr(conn)
            == (
                "-- datom connection\n"
                "* Project:   STUDY_001\n"
                "* Role:      reader\n"
                f"* Endpoint:  {server.url}\n"
                "* Principal: ann"
            )
        )
    assert [method for method, _ in server.calls] == ["datom.whoami"], "connecting is one round trip"


def test_a_bad_token_is_unauthenticated_at_connect(server: WireServer) -> None:
    server.tokens["good"] = "ann"
    error = refusal(datom_flight.connect, server.url, token="bad")
    assert isinstance(error, datom_flight.AuthenticationError)
    assert (error.code, error.request_id) == ("unauthenticated", "r-1")
    assert "datom-flight login" in error.hint
    assert error.__context__ is None, "Flight's own error is not kept alive"


def test_the_environment_gives_url_project_and_token(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.tokens["t"] = "ann"
    monkeypatch.setenv("DATOM_FLIGHT_URL", server.url)
    monkeypatch.setenv("DATOM_FLIGHT_PROJECT", "STUDY_009")
    monkeypatch.setenv("DATOM_FLIGHT_TOKEN", "t")
    with datom_flight.connect() as conn:
        assert (conn.url, conn.project, conn.principal) == (server.url, "STUDY_009", "ann")


def test_without_a_url_it_says_how_to_give_one() -> None:
    assert "DATOM_FLIGHT_URL" in refusal(datom_flight.connect).hint


@pytest.mark.parametrize("told", [True, False])
def test_the_only_visible_project_is_taken(server: WireServer, told: bool) -> None:
    server.whoami["projects"] = ["ONLY"] if told else None
    server.answers["datom.projects"] = [{"name": "ONLY"}]
    with datom_flight.connect(server.url, token="") as conn:
        assert conn.project == "ONLY"


def test_with_several_projects_one_must_be_named(server: WireServer) -> None:
    server.whoami["projects"] = ["B", "A"]
    with datom_flight.connect(server.url, token="") as conn:
        assert conn.project is None
        assert "* Project:   -" in str(conn)
        for call in (conn.tables, conn.summary, conn.validate, conn.pin):
            assert refusal(call).code == "invalid_argument"
        error = refusal(conn.read, "dm")
        assert '"A", "B"' in error.message
        assert "project=" in error.hint


def test_a_narrower_role_works_with_a_session_token(server: WireServer) -> None:
    server.tokens["t"] = "ann"
    with datom_flight.connect(server.url, token="t", role="reader") as conn:
        assert conn.principal == "ann as reader"
        assert server.sessions == 1
        del server.tokens["session-1"]
        assert conn.whoami().principal == "ann as reader", "an expired session is renewed once"
        assert server.sessions == 2
        server.tokens.clear()
        server.tokens["other"] = "bob"
        assert refusal(conn.whoami).code == "unauthenticated"


def test_an_unknown_role_is_refused_before_any_call() -> None:
    assert 'role "owner"' in refusal(datom_flight.connect, "grpc://127.0.0.1:1", role="owner").message


@pytest.mark.parametrize("timeout", [0, -1, True, "5"])
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    assert refusal(datom_flight.connect, "grpc://127.0.0.1:1", timeout=timeout).code == "invalid_argument"


def test_a_closed_connection_says_so(server: WireServer) -> None:
    with datom_flight.connect(server.url, token="") as conn:
        assert isinstance(conn.flight, fl.FlightClient)
    assert "closed" in refusal(conn.whoami).message
    assert "closed" in refusal(lambda: conn.flight).message


# When it fails


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that is bound and does not listen: connecting to it is refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_server_that_is_not_there_is_unavailable_with_what_to_check(free_port: int) -> None:
    error = refusal(datom_flight.connect, f"grpc://127.0.0.1:{free_port}", token="")
    assert error.code == "unavailable"
    assert f"grpc://127.0.0.1:{free_port}" in error.message
    assert "Connection refused" in error.message
    assert "check the address and port" in error.hint


def test_a_host_that_does_not_exist_is_unavailable() -> None:
    error = refusal(datom_flight.connect, "grpc://no-such-host.invalid:1", token="", timeout=5)
    assert error.code in ("unavailable", "timeout")


def test_a_server_that_says_nothing_times_out() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"grpc://127.0.0.1:{mute.getsockname()[1]}"
        error = refusal(datom_flight.connect, url, token="", timeout=0.3)
    assert error.code == "timeout"
    assert url in error.message


def test_another_replica_answers_when_one_does_not(server: WireServer, free_port: int) -> None:
    server.put("dm", rows(5))
    with datom_flight.connect(f"grpc://127.0.0.1:{free_port},{server.url}", token="") as conn:
        assert conn.read("dm").num_rows == 5


def test_a_replica_that_goes_away_is_left_for_another() -> None:
    with WireServer() as first, WireServer() as second:
        for server in (first, second):
            server.put("dm", rows(25))
        with datom_flight.connect(f"{first.url},{second.url}", token="") as conn:
            assert conn.read("dm").num_rows == 25
            assert not second.calls
            first.shutdown()
            assert conn.read("dm").num_rows == 25
            assert second.calls


def test_a_call_that_a_server_drops_as_it_stops_is_made_again(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(5))
    server.faults.refusals = [fl.FlightCancelledError("dropped")] * 2
    assert conn.read("dm").num_rows == 5
    assert server.faults.refusals == []


def test_a_call_that_the_server_does_not_know_is_unsupported(conn: Connection) -> None:
    error = refusal(conn.summary)
    assert (error.code, error.message) == ("unsupported", 'no action "datom.summary"')


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (fl.FlightInternalError("x"), "internal"),
        (fl.FlightServerError("x", b"not json"), "internal"),
        (fl.FlightUnauthorizedError("x"), "permission_denied"),
        (fl.FlightUnauthenticatedError("x"), "unauthenticated"),
        (DatomError.of("permission_denied", "readers do not write", fields={"role": "reader"}), "permission_denied"),
        (fl.FlightServerError("x", b'{"code": "a_newer_code", "message": "m", "hint": "h"}'), "a_newer_code"),
    ],
)
def test_every_failure_is_a_datom_error_with_its_code(
    server: WireServer, conn: Connection, raised: Exception, code: str
) -> None:
    server.faults.refusals = [raised]
    error = refusal(conn.history, "dm")
    assert error.code == code
    assert error.__cause__ is None


@pytest.mark.parametrize("packs", [True, False])
def test_an_answer_that_is_not_understood_is_internal(server: WireServer, conn: Connection, packs: bool) -> None:
    server.packs = packs
    server.answers["datom.history"] = [{"data_sha": "x"}]
    assert '"version"' in refusal(conn.history, "dm").message
    server.answers["datom.history"] = [{"rows": [7]}]
    assert refusal(conn.history, "dm").code == "internal"
    server.answers["datom.summary"] = []
    assert refusal(conn.summary).code == "internal"


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_server(certificate: tuple[Path, Path]) -> Iterator[WireServer]:
    pair = (certificate[0].read_bytes(), certificate[1].read_bytes())
    with WireServer("grpc+tls://127.0.0.1:0", tls_certificates=[pair]) as server:
        yield server


@pytest.mark.parametrize("form", ["path", "text", "bytes"])
def test_the_authority_is_a_path_or_pem(tls_server: WireServer, certificate: tuple[Path, Path], form: str) -> None:
    path = certificate[0]
    given: Any = {"path": path, "text": path.read_text(), "bytes": path.read_bytes()}[form]
    with datom_flight.connect(f"grpc+tls://127.0.0.1:{tls_server.port}", token="", tls_root_certs=given) as conn:
        assert conn.role == "reader"


def test_tls_mistakes_say_what_to_do(
    tls_server: WireServer, server: WireServer, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    def hint(url: str, **options: Any) -> str:
        error = refusal(datom_flight.connect, url, token="", **options)
        assert error.code in ("unavailable", "invalid_argument")
        return error.hint

    port = tls_server.port
    assert "grpc+tls://" in hint(f"grpc://127.0.0.1:{port}")
    assert "tls_root_certs" in hint(f"grpc+tls://127.0.0.1:{port}")
    assert "does not speak TLS" in hint(f"grpc+tls://127.0.0.1:{server.port}", tls_root_certs=certificate[0])
    assert "BEGIN CERTIFICATE" in hint(f"grpc+tls://127.0.0.1:{port}", tls_root_certs=certificate[1])
    with pytest.raises(FileNotFoundError):
        datom_flight.connect(f"grpc+tls://127.0.0.1:{port}", token="", tls_root_certs=tmp_path / "missing.pem")


# Warnings and interruption


def test_a_governed_project_read_past_its_governance_warns_once_a_connection(
    server: WireServer, conn: Connection
) -> None:
    server.put("dm", rows(5))
    server.warnings = ["governance_attached"]
    with pytest.warns(DatomWarning, match='project "STUDY_001" is governed') as caught:
        conn.read("dm")
    assert caught[0].filename == __file__, "it points at the caller's own line"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conn.read("dm")
        conn.scan("dm").read_all()


INTERRUPTED = """
import datom_flight, _thread, sys
conn = datom_flight.connect(sys.argv[1], token="")
for batch in conn.scan("dm"):
    print("got", batch.num_rows, flush=True)
"""


def test_ctrl_c_ends_a_read_that_waits_for_the_server(server: WireServer) -> None:
    server.put("dm", rows(40))
    server.faults.stall_after = [1]
    program = [sys.executable, "-c", INTERRUPTED.replace("conn.scan", "conn.read") + "\n", server.url]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = threading.Event()
    for _ in range(600):
        if any(method == "DoGet" for method, _ in server.calls):
            break
        deadline.wait(0.05)
    process.send_signal(2)
    _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors


# Naming versions


def test_versions_can_be_named_in_one_way_only(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(5))
    pin = conn.pin()
    assert refusal(conn.read, "dm", "ab", as_of="2026-01-01").code == "invalid_argument"
    assert refusal(conn.read, "dm", "ab", pin=pin).code == "invalid_argument"
    assert refusal(conn.scan, "dm", as_of="2026-01-01", pin=pin).code == "invalid_argument"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("2026-01-15", "2026-01-15"),
        (date(2026, 1, 15), "2026-01-15"),
        (datetime(2026, 1, 15, 12), "2026-01-15T12:00:00+00:00"),
        (datetime(2026, 1, 15, 12, tzinfo=UTC), "2026-01-15T12:00:00+00:00"),
    ],
)
def test_as_of_takes_text_dates_and_times(server: WireServer, conn: Connection, given: Any, sent: str) -> None:
    server.put("dm", rows(5))
    conn.read("dm", as_of=given)
    assert [body["as_of"] for method, body in server.calls if method == "GetFlightInfo"] == [sent]


@pytest.mark.parametrize(
    "options",
    [
        {"as_of": "yesterday"},
        {"as_of": 5},
        {"columns": "AGE"},
        {"columns": []},
        {"columns": [1]},
        {"where": ""},
        {"limit": -1},
        {"limit": True},
        {"version": ""},
    ],
)
def test_arguments_of_the_wrong_form_are_refused_before_any_call(
    server: WireServer, conn: Connection, options: dict[str, Any]
) -> None:
    server.calls.clear()
    assert refusal(conn.read, "dm", **options).code == "invalid_argument"
    assert not server.calls


def test_a_path_in_a_name_is_refused_before_any_call(server: WireServer, conn: Connection) -> None:
    server.calls.clear()
    assert refusal(conn.read, "../dm").code == "invalid_name"
    assert not server.calls


def test_what_is_asked_for_is_what_is_sent(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(5))
    conn.read("dm", columns=("AGE", "USUBJID"), where="AGE > 3", limit=5)
    sent = next(body for method, body in server.calls if method == "GetFlightInfo")
    assert sent == {
        "project": "STUDY_001",
        "table": "dm",
        "columns": ["AGE", "USUBJID"],
        "where": "AGE > 3",
        "limit": 5,
    }


@pytest.mark.parametrize("packs", [True, False])
def test_history_is_typed_and_missing_values_are_none(server: WireServer, conn: Connection, packs: bool) -> None:
    server.packs = packs
    server.answers["datom.history"] = [
        {
            "version": "a" * 64,
            "data_sha": "b" * 64,
            "parquet_sha": None,
            "timestamp": "2026-11-23T05:47:09Z",
            "author": "Ann <ann@example.org>",
            "message": "March cut",
            "commit": None,
            "a key of a newer server": 1,
        }
    ]
    assert list(conn.history("dm", limit=1)) == [
        Version(
            version="a" * 64,
            data_sha="b" * 64,
            parquet_sha=None,
            timestamp=datetime(2026, 11, 23, 5, 47, 9, tzinfo=UTC),
            author="Ann <ann@example.org>",
            message="March cut",
            commit=None,
        )
    ]
    assert server.calls[-1] == ("datom.history", {"project": "STUDY_001", "table": "dm", "limit": 1})


def test_a_schema_comes_without_rows(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(5))
    schema = conn.schema("dm")
    assert schema.equals(rows(5).schema)
    assert schema.metadata[b"datom.table"] == b"dm"
    assert "DoGet" not in [method for method, _ in server.calls]


def test_parents_and_lineage_are_as_recorded_or_none(server: WireServer, conn: Connection) -> None:
    recorded = [{"source": "STUDY_001", "table": "dm", "version": "a" * 64, "data_sha": "b" * 64}]
    server.answers["datom.parents"] = [{"parents": recorded}]
    server.answers["datom.lineage"] = [{"lineage": None}]
    assert conn.parents("adsl") == recorded
    assert "source" in str(conn.parents("adsl"))
    assert conn.lineage("adsl") is None


def test_many_threads_can_share_a_connection(server: WireServer, conn: Connection) -> None:
    from concurrent.futures import ThreadPoolExecutor

    server.put("dm", rows(55))
    with ThreadPoolExecutor(16) as threads:
        counts = list(threads.map(lambda _: conn.read("dm").num_rows, range(64)))
    assert counts == [55] * 64


def test_after_a_deadline_only_another_replica_is_asked(server: WireServer) -> None:
    server.put("dm", rows(5))
    failure = DatomError.of("timeout", "the storage does not answer")
    with datom_flight.connect(server.url, token="") as conn:
        server.faults.refusals = [failure]
        assert refusal(conn.read, "dm").code == "timeout"
    # Two names of one server are two replicas to the client.
    with datom_flight.connect(f"{server.url},grpc://localhost:{server.port}", token="") as conn:
        server.faults.refusals = [failure]
        assert conn.read("dm").num_rows == 5


def test_a_server_that_takes_long_to_fail_is_not_asked_for_ever(
    server: WireServer, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datom_flight.retries.RETRY_SECONDS", 0.0)
    server.faults.refusals = [DatomError.of("store_unreachable", "the storage does not answer")] * 2
    assert refusal(conn.history, "dm").code == "store_unreachable"
    assert len(server.faults.refusals) == 1


def test_a_pin_warns_in_the_caller_s_own_thread(server: WireServer, conn: Connection) -> None:
    server.put("dm", rows(5))
    server.put("lb", rows(5))
    server.warnings = ["governance_attached"]
    with pytest.warns(DatomWarning) as caught:
        conn.pin()
    assert [found.filename for found in caught] == [__file__]
