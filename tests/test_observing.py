"""What the server tells of itself: it is documented, it is true, and it gives nothing away."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.flight as fl
import pytest
import yaml  # type: ignore[import-untyped]

import datom_flight
from support.adbc import adbc
from support.collector import Collector, collector
from support.management import ManagementPort
from support.server import SECRET, Server, await_condition, running, write_config
from support.writable import Place, empty_place, put

ROOT = Path(__file__).parent.parent
METRICS_PAGE = ROOT / "docs" / "metrics.md"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))

PROJECT = "STUDY_OBSERVED"
LITERAL = "planted-literal-4711"
VALUE = "planted-value-0815"
BAD_TOKEN = "planted.token." + "x" * 40
DM = pa.table({"USUBJID": ["01-001", VALUE], "AGE": [71, 64]})


@dataclass(frozen=True, slots=True)
class Busy:
    """A server that has had much to do.

    Attributes:
        log: all it wrote.
        traces: what it sent to its collector of spans.
        tokens: that were used.
        refused: the errors its callers got.
    """

    server: Server
    port: ManagementPort
    traces: Collector
    tokens: list[str]
    refused: list[datom_flight.DatomError]

    @property
    def log(self) -> str:
        """All it wrote to stderr so far."""
        return self.server.log


@pytest.fixture(scope="module", params=["human", "json"])
def busy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    folder = tmp_path_factory.mktemp("observed")
    port = ManagementPort.free()
    place = empty_place(folder / "place", PROJECT)
    with collector() as traces:
        config = write_config(
            folder,
            {PROJECT: place.settings},
            server={"management": port.address},
            log={"format": request.param},
            tracing={"endpoint": traces.url},
        )
        yield from busy_server(config, port, traces, place)


def busy_server(config: Path, port: ManagementPort, traces: Collector, place: Place) -> Iterator[Busy]:
    with running(config, OTEL_BSP_SCHEDULE_DELAY="100") as server:
        developer, reader = server.token("developer", PROJECT, principal="dora"), server.token()
        busy = Busy(server, port, traces, [developer, reader], [])
        keep_busy(busy, developer, reader)
        damage(place.objects, "vs")
        refused(busy, lambda: server.connect(PROJECT).read("vs"))
        yield busy


def keep_busy(busy: Busy, developer: str, reader: str) -> None:
    server = busy.server
    with server.connect(PROJECT, token=developer) as conn:
        conn.write("dm", DM)
        conn.write("dm", DM.slice(0, 1), message=f"without {LITERAL}")
        conn.write("ae", DM)
        conn.write("vs", DM.slice(1))
        refused(busy, lambda: conn.write("dm", DM, expected="0" * 64))
        refused(busy, lambda: conn.write("dm", pa.table({VALUE: pa.array([None, None])})))
    with server.connect(PROJECT, token=reader) as conn:
        version = conn.history("dm")[1].version
        conn.read("dm", version, where=f"USUBJID = '{LITERAL}'")
        list(conn.scan("dm", columns=["AGE"], limit=1))
        conn.sql(f"SELECT count(*) FROM dm WHERE USUBJID <> '{LITERAL}'")
        conn.sql("SELECT count(*) FROM dm JOIN ae USING (USUBJID) WHERE dm.USUBJID <> ?", [LITERAL])
        conn.tables(), conn.summary(), conn.projects(), conn.validate("dm")
        for query in (
            f"SELECT '{LITERAL}' FROM",
            f"SELECT CAST('{LITERAL}' AS INTEGER) FROM dm",
            f'SELECT "{LITERAL}"',
        ):
            refused(busy, lambda query=query: conn.sql(query))
        for where in (f"NOBODY = '{LITERAL}'", f"AGE = '{LITERAL}'", f"lower('{LITERAL}"):
            refused(busy, lambda where=where: conn.read("dm", where=where))
        refused(busy, lambda: conn.read("dm", limit=-1))
        refused(busy, lambda: conn.read("nothing"))
    with (
        adbc(server, developer, autocommit=True, headers={"x-datom-project": PROJECT}) as driver,
        driver.cursor() as cursor,
    ):
        cursor.execute(f"SELECT count(*) FROM dm WHERE USUBJID <> '{LITERAL}'")
        cursor.fetch_arrow_table()
        cursor.execute("SELECT count(*) FROM dm WHERE USUBJID <> ?", (LITERAL,))
        cursor.fetch_arrow_table()
        cursor.adbc_ingest("ex", DM, mode="create")
        for query in (f"DELETE FROM dm WHERE USUBJID = '{LITERAL}'", f"SELECT '{LITERAL}' +"):
            with pytest.raises(Exception, match=r"(?i)sql_error|unsupported"):
                cursor.execute(query)
    for token in (BAD_TOKEN, reader[:-4] + "AAAA"):
        busy.tokens.append(token)
        refused(busy, lambda token=token: server.connect(PROJECT, token=token).read("dm"))
    with server.raw() as client:
        client.authenticate_basic_token("ann", reader)
        with pytest.raises(fl.FlightUnauthenticatedError):
            client.authenticate_basic_token("ann", BAD_TOKEN)
        options = server.call_options(reader)
        for ticket in (b'{"project": "' + LITERAL.encode(), LITERAL.encode(), b'{"project": "X\\n1", "table": "dm"}'):
            with pytest.raises(fl.FlightError):
                client.do_get(fl.Ticket(ticket), options).read_all()
        for action in (LITERAL, "datom.tables"):
            with pytest.raises((fl.FlightError, NotImplementedError, pa.ArrowNotImplementedError)):
                list(client.do_action(fl.Action(action, f'{{"project": "{LITERAL}"'.encode()), options))
        with pytest.raises((fl.FlightError, pa.ArrowException)):
            put(server, fl.FlightDescriptor.for_command(LITERAL.encode()), DM, developer)


def refused(busy: Busy, call: object) -> None:
    assert callable(call)
    with pytest.raises(datom_flight.DatomError) as caught:
        call()
    busy.refused.append(caught.value)


def damage(objects: Path, table: str) -> None:
    """Put other bytes in the place of those of `table`."""
    for payload in (objects / table).glob("*.parquet"):
        payload.write_bytes(VALUE.encode() * 100)


def test_nothing_that_callers_sent_or_that_is_stored_is_told(busy: Busy) -> None:
    told = busy.log + "".join(busy.port.get(path)[1] for path in ("/metrics", "/readyz", "/healthz"))
    calls = len(re.findall(r"INFO access|\"logger\":\"access\"", told))
    await_condition(lambda: len(busy.traces.spans) >= calls > 30, 20, "spans arrive")
    told += "".join(map(str, busy.traces.requests))
    assert told.count("\n") > 200
    for secret in (LITERAL, VALUE, SECRET, *busy.tokens, *(token.rpartition(".")[2] for token in busy.tokens)):
        assert secret not in told


def test_every_refusal_names_a_request_that_the_log_has(busy: Busy) -> None:
    asked = [error for error in busy.refused if error.request_id is not None]
    assert len(asked) > 8
    for error in asked:
        (line,) = [line for line in busy.log.splitlines() if f"{error.request_id}" in line]
        assert error.code in line


def test_the_keys_of_the_log_are_those_documented(busy: Busy) -> None:
    if not busy.log.startswith("{"):
        assert re.search(
            rf"INFO access [0-9a-f]{{16}} ann do_get {PROJECT}/dm@[0-9a-f]{{64}} ok 1 rows \d+ bytes \d+\.\dms$",
            busy.log,
            re.M,
        )
        return
    lines = [json.loads(line) for line in busy.log.splitlines()]
    keys = {key for line in lines if line["logger"] == "access" for key in line}
    section = METRICS_PAGE.read_text().partition("## The access log")[2].partition("\n## ")[0]
    documented = {name for row in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert keys | {"trace"} == documented
    (write,) = [
        line for line in lines if line.get("verb") == "do_put" and line["code"] == "ok" and line["table"] == "ae"
    ]
    assert (write["principal"], write["project"], write["rows"]) == ("dora", PROJECT, DM.num_rows)
    assert len(write["version"]) == 64


def documented_metrics() -> dict[str, tuple[str, set[str]]]:
    rows = re.findall(r"^\| `(datom_flight_\w+)` \| (\w+) \| ([^|]*)\|", METRICS_PAGE.read_text(), re.M)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_the_metrics_are_those_documented(busy: Busy) -> None:
    documented = documented_metrics()
    there = busy.port.metrics()
    assert there.keys() == documented.keys()
    for name, family in there.items():
        kind, labels = documented[name]
        assert family.type == kind, name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == labels, name
        assert family.documentation


def test_metrics_count_what_was_asked(busy: Busy) -> None:
    value = busy.port.value
    requests = "datom_flight_requests_total"
    assert value(requests, verb="do_put", code="ok", project=PROJECT) == 5
    assert value(requests, code="unauthenticated") == 3
    assert value(requests, code="integrity_mismatch", project=PROJECT) == 1
    assert value("datom_flight_verification_failures_total", source="storage") >= 1
    assert value("datom_flight_rows_total", verb="do_put", project=PROJECT) == 4 * DM.num_rows + 2
    assert value("datom_flight_rows_total", verb="do_get", project=PROJECT) >= 3
    assert value("datom_flight_first_batch_seconds_count", verb="do_get") >= 3
    assert value("datom_flight_cache_misses_total", cache="memory") >= 1
    assert value("datom_flight_storage_call_seconds_count", operation="put_file", code="ok") == 5
    assert value("datom_flight_git_call_seconds_count", operation="push", code="ok") == 5
    assert value("datom_flight_mirror_lag_seconds", project=PROJECT) < 60
    assert value("datom_flight_ready") == 1
    assert value("datom_flight_process_resident_memory_bytes") > 10**7


def test_names_that_callers_make_up_make_no_labels(busy: Busy) -> None:
    projects = {sample.labels.get("project") for family in busy.port.metrics().values() for sample in family.samples}
    assert projects - {None, ""} == {PROJECT}


def test_the_id_of_a_request_comes_in_the_trailers(busy: Busy) -> None:
    asked = fl.FlightDescriptor.for_path(PROJECT, "dm").serialize()
    metadata = [("authorization", f"Bearer {busy.tokens[1]}"), ("x-request-id", "mine-1")]
    with grpc.insecure_channel(busy.server.url.removeprefix("grpc://")) as channel:
        _, call = channel.unary_unary("/arrow.flight.protocol.FlightService/GetFlightInfo").with_call(
            asked, metadata=metadata, timeout=30
        )
        assert ("x-request-id", "mine-1") in [tuple(item) for item in call.trailing_metadata()]
        assert ("x-request-id", "mine-1") in [tuple(item) for item in call.initial_metadata()]
    assert "mine-1" in busy.log


def test_the_server_s_own_calls_are_not_told(busy: Busy) -> None:
    assert "list_actions" not in busy.log
    assert busy.port.value("datom_flight_requests_total", verb="list_actions") == 0


def expressions(file: Path) -> Iterator[str]:
    """Every PromQL expression of an alert file or a dashboard."""
    if file == ALERTS:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from (rule["expr"] for rule in group["rules"])
    else:
        dashboard = json.loads(file.read_text())
        yield from (target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ()))
        yield from (variable["definition"] for variable in dashboard["templating"]["list"])


@pytest.mark.parametrize("file", [ALERTS, *DASHBOARDS], ids=lambda file: file.name)
def test_what_dashboards_and_alerts_name_is_there(file: Path) -> None:
    documented = documented_metrics()
    samples = {name: name for name in documented} | {
        f"{name}_{part}": name
        for name, (kind, _) in documented.items()
        for part in {"histogram": ("bucket", "sum", "count"), "summary": ("sum", "count")}.get(kind, ())
    }
    found = 0
    for expression in expressions(file):
        for name, labels in re.findall(r"(datom_flight_\w+)(?:\{([^}]*)\})?", expression):
            assert name in samples, expression
            known = documented[samples[name]][1] | {"instance", "le"}
            assert set(re.findall(r'(\w+)\s*(?:=|!=|=~|!~)\s*"', labels)) <= known, expression
            found += 1
        for labels in re.findall(r"\bby \(([^)]*)\)", expression):
            known = {"instance", "le"}.union(
                *(documented[samples[name]][1] for name in re.findall(r"datom_flight_\w+", expression))
            )
            assert set(re.split(r",\s*", labels)) <= known, expression
    assert found > 10


def test_every_metric_of_ours_is_on_a_dashboard() -> None:
    shown = " ".join(expression for file in DASHBOARDS for expression in expressions(file))
    for name in documented_metrics():
        assert name in shown or "virtual_memory" in name, name
