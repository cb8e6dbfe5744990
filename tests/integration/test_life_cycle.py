"""A server from start to end: settings read again, certificates and tokens renewed under way, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl
import pytest

from datom_flight import AuthenticationError, DatomError
from support.server import Server, Table, await_condition, running, write_config
from support.stores import write_store
from support.tls import write_certificate

ROWS = 4_000_000
TICKET = fl.Ticket(json.dumps({"project": "STUDY_001", "table": "lb"}))
OF_ITS_OWN = [("grpc.use_local_subchannel_pool", 1)]
"""Clients of one process would share a connection otherwise."""

DM = pa.table({"USUBJID": ["01-001", "01-002"], "AGE": [64, 71]})
Project = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    store = tmp_path_factory.mktemp("life") / "store"
    write_store(store, {"lb": [pa.table({"X": np.arange(ROWS)})], "dm": [DM]}, row_group_size=ROWS)
    return {"STUDY_001": {"data": f"file://{store}"}}


def renew(
    server: Server, project: Project, sections: Mapping[str, Table] = MappingProxyType({}), more: str = ""
) -> None:
    """Write other settings, `more` at their end, and wait until the server has read them."""
    before = server.log.count("settings were read again")
    path = write_config(server.config.parent, project, **sections)
    path.write_text(path.read_text() + more)
    os.kill(server.pid, signal.SIGHUP)
    await_condition(lambda: server.log.count("settings were read again") > before, 20, "settings are read again")


def begun(url: str, options: fl.FlightCallOptions, certificate: bytes | None = None) -> fl.FlightStreamReader:
    """A stream, on a connection of its own, with most of its rows still to come."""
    trust = {} if certificate is None else {"tls_root_certs": certificate}
    reader = fl.FlightClient(url, generic_options=OF_ITS_OWN, **trust).do_get(TICKET, options)
    assert reader.read_chunk().data.num_rows < ROWS // 2
    return reader


def test_a_new_certificate_is_served_while_streams_under_the_old_one_go_on(project: Project, tmp_path: Path) -> None:
    tls = {"listen": "grpc+tls://127.0.0.1:0", "certificate": "server.crt", "key": "server.key"}
    old = write_certificate(tmp_path)[0].read_bytes()
    with (
        running(write_config(tmp_path, project, server=tls), tls_root_certs=old) as server,
        server.connect("STUDY_001") as connection,
    ):
        assert connection.read("dm").equals(DM)
        reader = begun(server.url, server.call_options(), old)
        new = write_certificate(tmp_path)[0].read_bytes()
        renew(server, project, {"server": tls})
        with server.connect("STUDY_001", tls_root_certs=new) as newcomer:
            assert newcomer.read("dm").equals(DM)
        with pytest.raises(DatomError, match="not from a known authority"):
            server.connect("STUDY_001", tls_root_certs=old)
        # what was fetched before counts, too
        assert reader.read_all().num_rows > ROWS // 2
        assert server.stop() == 0
    assert "cut" not in server.log


def test_a_certificate_that_does_not_fit_its_key_changes_nothing(project: Project, tmp_path: Path) -> None:
    tls = {"listen": "grpc+tls://127.0.0.1:0", "certificate": "server.crt", "key": "server.key"}
    certificate, key = write_certificate(tmp_path)
    good = key.read_bytes()
    with running(write_config(tmp_path, project, server=tls), tls_root_certs=certificate.read_bytes()) as server:
        write_certificate(tmp_path / "other")
        key.write_bytes((tmp_path / "other" / "server.key").read_bytes())
        os.kill(server.pid, signal.SIGHUP)
        await_condition(lambda: "certificate and key do not go together" in server.log, 20, "the log says so")
        with server.connect("STUDY_001") as connection:
            assert connection.read("dm").equals(DM)
        key.write_bytes(good)


def test_no_connection_is_lost_to_callers_while_a_certificate_is_renewed(project: Project, tmp_path: Path) -> None:
    tls = {"listen": "grpc+tls://127.0.0.1:0", "certificate": "server.crt", "key": "server.key"}
    certificates = [write_certificate(tmp_path / name)[0].read_bytes() for name in ("old", "new")]

    def use(name: str) -> None:
        for file in ("server.crt", "server.key"):
            (tmp_path / file).write_bytes((tmp_path / name / file).read_bytes())

    use("old")
    with running(write_config(tmp_path, project, server=tls), tls_root_certs=b"".join(certificates)) as server:
        token, done, right = server.token(), threading.Event(), [0]

        def reads() -> None:
            while not done.is_set():
                with server.connect("STUDY_001", token=token) as connection:
                    assert connection.read("dm").equals(DM)
                right[0] += 1

        reading = threading.Thread(target=reads)
        reading.start()
        for name in ("new", "old", "new"):
            await_condition(partial(_beyond, right, right[0] + 3), 30, "clients come and go")
            use(name)
            renew(server, project, {"server": tls})
        done.set()
        reading.join(30)
        assert right[0] > 9


def test_a_token_that_is_taken_back_ends_its_stream_and_no_other(project: Project, tmp_path: Path) -> None:
    with running(write_config(tmp_path, project)) as server:
        ann, bob = server.token(principal="ann"), server.token(principal="bob")
        readers = [begun(server.url, server.call_options(token)) for token in (ann, bob)]
        session = server.connect("STUDY_001", token=ann, role="reader")
        renew(server, project, more="[auth.revoked_before]\nann = 2100-01-01T00:00:00Z\n")
        with pytest.raises(AuthenticationError, match="taken back"):
            server.connect("STUDY_001", token=ann)
        with pytest.raises(AuthenticationError, match="taken back"):
            session.read("dm")
        with pytest.raises((fl.FlightUnauthenticatedError, fl.FlightUnavailableError)):
            readers[0].read_all()
        assert readers[1].read_all().num_rows > ROWS // 2


def test_limits_and_projects_hold_from_then_on_and_what_takes_a_restart_is_named(
    project: Project, tmp_path: Path
) -> None:
    with running(write_config(tmp_path, project)) as server, server.connect() as connection:
        more = {**project, "STUDY_002": project["STUDY_001"]}
        changes: dict[str, Table] = {
            "limits": {"max_rows": 1},
            "cache": {"memory_bytes": "100MB"},
            "sql": {"threads": 1},
        }
        renew(server, more, changes)
        assert [each.name for each in connection.projects()] == ["STUDY_001", "STUDY_002"]
        with pytest.raises(DatomError) as refused, server.connect("STUDY_002") as newcomer:
            newcomer.read("dm")
        assert refused.value.code == "too_large"
        assert "these take a restart: cache.memory_bytes, sql.threads" in server.log


def test_settings_that_cannot_be_used_change_nothing(project: Project, tmp_path: Path) -> None:
    config = write_config(tmp_path, project)
    with running(config) as server, server.connect("STUDY_001") as connection:
        config.write_text(config.read_text().replace("[auth]", "[auhT]"))
        os.kill(server.pid, signal.SIGHUP)
        await_condition(lambda: "settings stay as they were" in server.log, 20, "the log says so")
        assert "auhT" in server.log
        assert connection.read("dm").equals(DM)


def test_a_running_stream_ends_by_itself_while_new_ones_are_refused(project: Project, tmp_path: Path) -> None:
    with running(write_config(tmp_path, project, server={"shutdown_grace_seconds": 60})) as server:
        options = server.call_options()
        reader = begun(server.url, options)
        newcomer = fl.FlightClient(server.url, generic_options=OF_ITS_OWN)
        os.kill(server.pid, signal.SIGTERM)
        await_condition(lambda: _refusal(newcomer, options) == "unavailable", 20, "new streams are refused")
        assert reader.read_all().num_rows > ROWS // 2
        newcomer.close()
        assert server.ended() == 0
        assert "were cut" not in server.log


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_though_a_reader_stalls(
    project: Project, tmp_path: Path, second: signal.Signals
) -> None:
    with running(write_config(tmp_path, project, server={"shutdown_grace_seconds": 600})) as server:
        options = server.call_options()
        reader = begun(server.url, options)
        newcomer = fl.FlightClient(server.url, generic_options=OF_ITS_OWN)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        await_condition(lambda: _refusal(newcomer, options) == "unavailable", 20, "it is stopping")
        os.kill(server.pid, second)
        assert server.ended() == 128 + second
        assert time.monotonic() - began < 60
        newcomer.close()
        del reader


def _beyond(count: list[int], number: int) -> bool:
    return count[0] > number


def _refusal(client: fl.FlightClient, options: fl.FlightCallOptions) -> str | None:
    reader = client.do_get(TICKET, options)
    try:
        reader.read_chunk()
        reader.cancel()
    except fl.FlightError as error:
        return str(json.loads(error.extra_info)["code"]) if error.extra_info else None
    return None
