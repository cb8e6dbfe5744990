"""Whatever is sent, the answer is a result or an error with a code, and the server stays well."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datom_flight.protocol.messages import ACTIONS
from support.answers import FLIGHT_ERRORS, assert_reveals_nothing, code_of
from support.server import Server, running, write_config
from support.stores import write_store

REQUESTS = 10_000
MAX_RSS_BYTES = 600 * 1024 * 1024

Call = Callable[[flight.FlightClient, flight.FlightCallOptions], Any]

TABLE = pa.table({"USUBJID": ["01-001", "01-002", "01-003"], "AGE": [71, 64, 58], "SEX": ["F", "M", "F"]})
CANARY = "nobody may read this file"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bad")
    write_store(folder / "store", {"dm": [TABLE]})
    (folder / "canary.csv").write_text(CANARY)
    with running(write_config(folder, {"STUDY_001": {"data": f"file://{folder / 'store'}"}})) as server:
        yield server


def answer(server: Server, call: Call, options: flight.FlightCallOptions | None = None) -> str | None:
    """The code of the refusal of `call`, or None when it gave a result."""
    with server.raw() as client:
        return _answer(server, client, call, options)


def _answer(
    server: Server, client: flight.FlightClient, call: Call, options: flight.FlightCallOptions | None = None
) -> str | None:
    try:
        result = call(client, options or server.call_options())
    except FLIGHT_ERRORS as error:
        return _checked_code(server, error)
    assert CANARY not in str(result)
    return None


def _checked_code(server: Server, error: Exception) -> str:
    code = code_of(error)
    details = getattr(error, "extra_info", None) or b""
    assert_reveals_nothing(f"{error} {details.decode()}", server)
    assert CANARY not in str(error)
    assert code != "internal", str(error)
    return code


# Requests. Each builder gives a call on a plain client.


def info(descriptor: flight.FlightDescriptor) -> Call:
    return lambda client, options: client.get_flight_info(descriptor, options).endpoints


def schema(descriptor: flight.FlightDescriptor) -> Call:
    return lambda client, options: client.get_schema(descriptor, options).schema


def rows(ticket: bytes) -> Call:
    return lambda client, options: client.do_get(flight.Ticket(ticket), options).read_all()


def action(kind: str, body: bytes) -> Call:
    return lambda client, options: [bytes(r.body) for r in client.do_action(flight.Action(kind, body), options)]


def flights(criteria: bytes) -> Call:
    return lambda client, options: list(client.list_flights(criteria, options))


def put(descriptor: flight.FlightDescriptor) -> Call:
    def call(client: flight.FlightClient, options: flight.FlightCallOptions) -> None:
        writer, reader = client.do_put(descriptor, TABLE.schema, options)
        with writer:
            writer.write_table(TABLE)
            writer.done_writing()
            reader.read()

    return call


def exchange(descriptor: flight.FlightDescriptor) -> Call:
    def call(client: flight.FlightClient, options: flight.FlightCallOptions) -> None:
        writer, reader = client.do_exchange(descriptor, options)
        with writer:
            writer.done_writing()
            reader.read_all()

    return call


def with_token(value: str) -> Call:
    options = flight.FlightCallOptions(timeout=30, headers=[(b"authorization", value.encode())])
    return lambda client, _: list(client.do_action(flight.Action("datom.whoami", b"{}"), options))


def with_header(name: str, value: str) -> Callable[[Server], Call]:
    def of(server: Server) -> Call:
        headers = [(b"authorization", f"Bearer {server.token()}".encode()), (name.encode(), value.encode())]
        options = flight.FlightCallOptions(timeout=30, headers=headers)
        return lambda client, _: list(client.do_action(flight.Action("datom.whoami", b"{}"), options))

    return of


def handshake(user: str, password: str) -> Call:
    return lambda client, _: client.authenticate_basic_token(user, password)


# What they are made of.

TRAVERSALS = (
    "../../etc/passwd", "/etc/passwd", "..", ".", "dm/../dm", "dm/.metadata/metadata.json", ".metadata", ".git",
    "..\\..\\x", "dm\0", "dm%2f..%2f", "//x", "s3://bucket/key", "file:///etc/passwd", "~root", "datom", "dm\n", " dm",
    "C:\\x", "dm\u202e", "a" * 129, "é", "", "-rf", "$(id)", "{}", "dm'--", 'dm"',
)  # fmt: skip
WHERES = (
    "AGE >= 65", "AGE", "1", "AGE >=", "AGE = (SELECT 1)", "EXISTS (SELECT * FROM dm)", "AGE IN (SELECT AGE FROM dm)",
    "read_csv('canary.csv') = 1", "read_text('canary.csv') IS NULL", "getenv('HOME') = ''", "AGE > 1; DROP TABLE dm",
    "AGE > 1 --", "/* */ true", "NOPE = 1", "AGE = 'x'", "sum(AGE) > 1", "row_number() OVER () = 1", "AGE > ?",
    "AGE > $1", "true", "NULL", "SEX LIKE '%'", "regexp_matches(SEX, '(a+)+$')", "AGE/0 > 1", "SEX = '''",
    "AGE BETWEEN 1 AND",
    "AGE > 1e999", "repeat('x', 1000000000) = ''", "USUBJID COLLATE nope = ''", "CAST(SEX AS INTEGER) = 1", "*",
    "columns('.*') = 1", "AGE > 1 UNION SELECT 1", "(((AGE > 1)))", "AGE > -9223372036854775809", "x'00' = SEX",
    "DATE '2026-13-45' = DATE '2026-01-01'", "AGE > 1) OR (1=1", "pg_sleep(10)", "range(1000000000) = []", "$$", "\x00",
)  # fmt: skip

names = st.one_of(st.just("STUDY_001"), st.just("dm"), st.sampled_from(TRAVERSALS), st.text(max_size=20))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**80), 2**80), st.floats(), names, st.sampled_from(WHERES)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
keys = st.sampled_from(
    ("project", "table", "version", "as_of", "columns", "where", "limit", "row_groups", "data_sha", "sql", "pattern",
     "role", "message", "metadata", "parents", "expected", "nope", "")
)  # fmt: skip
objects = st.one_of(
    st.dictionaries(keys, values, max_size=6),
    st.fixed_dictionaries(
        {"project": st.just("STUDY_001"), "table": st.just("dm")},
        optional={
            "version": values,
            "as_of": values,
            "columns": st.one_of(values, st.lists(st.sampled_from(("AGE", "SEX", "nope", "AGE.x", "")), max_size=4)),
            "where": st.one_of(values, st.sampled_from(WHERES), st.text(max_size=40)),
            "limit": values,
            "row_groups": st.one_of(values, st.lists(st.integers(-2, 5), min_size=2, max_size=2)),
            "data_sha": values,
        },
    ),
    st.fixed_dictionaries({"project": names, "table": names}, optional={"version": names}),
)
raw = st.one_of(
    objects.map(lambda body: json.dumps(body).encode()),
    objects.map(lambda body: json.dumps(body).encode()[:-1]),
    st.binary(max_size=200),
    # The beginning of a Flight SQL command, which is an `Any`.
    st.binary(max_size=40).map(lambda tail: b"\n\x3ctype.googleapis.com/arrow.flight.protocol.sql.Command" + tail),
    values.map(lambda value: json.dumps(value).encode()),
)
printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60)
descriptors = st.one_of(
    raw.map(flight.FlightDescriptor.for_command),
    st.lists(names, max_size=4).map(lambda parts: flight.FlightDescriptor.for_path(*parts)),
)
kinds = st.one_of(
    st.sampled_from(sorted(ACTIONS)), st.text(max_size=20), st.sampled_from(("CloseSession", "datom.write"))
)

calls = st.one_of(
    descriptors.map(info),
    descriptors.map(schema),
    raw.map(rows),
    st.builds(action, kinds, raw),
    raw.map(flights),
    descriptors.map(put),
    descriptors.map(exchange),
    st.builds(with_token, printable),
    st.builds(with_token, printable.map(lambda text: "Bearer " + text)),
    st.builds(with_token, printable.map(lambda text: "Basic " + text)),
    st.builds(handshake, printable, printable),
)


@pytest.mark.slow
def test_ten_thousand_wrong_requests_each_get_an_answer_with_a_code(server: Server) -> None:
    sent = 0
    with server.raw() as client:

        @settings(max_examples=REQUESTS, suppress_health_check=list(HealthCheck))
        @given(call=calls)
        def send(call: Call) -> None:
            nonlocal sent
            sent += 1
            _answer(server, client, call)

        send()
    assert sent >= REQUESTS
    assert_well(server)


def assert_well(server: Server) -> None:
    assert server.alive
    with server.connect("STUDY_001") as connection:
        assert connection.read("dm").equals(TABLE)
    assert server.rss_bytes < MAX_RSS_BYTES
    assert "Traceback" not in server.log


def read_request(**fields: Any) -> bytes:
    return json.dumps({"project": "STUDY_001", "table": "dm", **fields}).encode()


@pytest.mark.parametrize("name", TRAVERSALS)
def test_a_name_that_leads_elsewhere_is_refused_wherever_a_name_stands(server: Server, name: str) -> None:
    body = {"project": "STUDY_001", "table": name}
    refused = {"invalid_name", "invalid_argument", "not_found"}
    for_path = flight.FlightDescriptor.for_path
    for_command = flight.FlightDescriptor.for_command
    assert answer(server, info(for_path("STUDY_001", name))) in refused
    assert answer(server, info(for_path(name, "dm"))) in refused
    assert answer(server, info(for_command(json.dumps(body).encode()))) in refused
    assert answer(server, schema(for_path("STUDY_001", name))) in refused
    assert answer(server, rows(json.dumps(body).encode())) in refused
    assert answer(server, rows(json.dumps({"project": name, "table": "dm"}).encode())) in refused
    named = ("history", "metadata", "parents", "lineage", "set", "validate", "prefetch")
    for kind in (f"datom.{what}" for what in named):
        assert answer(server, action(kind, json.dumps(body).encode())) in refused
    several = {"project": "STUDY_001", "tables": ["dm", name]}
    assert answer(server, action("datom.prefetch", json.dumps(several).encode())) in refused
    assert answer(server, rows(read_request(version=name))) in {"version_not_found", "invalid_argument"}


@pytest.mark.parametrize(
    "where",
    [
        "AGE = (SELECT 1)",
        "EXISTS (SELECT * FROM dm)",
        "AGE IN (SELECT AGE FROM dm)",
        "read_csv('canary.csv') = 1",
        "read_text('canary.csv') IS NOT NULL",
        "getenv('HOME') <> ''",
        "AGE > 1; DROP TABLE dm",
        "NOPE = 1",
        "AGE",
        "AGE >=",
        "sum(AGE) > 1",
        "AGE > 1) OR (1=1",
    ],
)
def test_a_where_that_is_not_a_condition_on_the_columns_is_invalid(server: Server, where: str) -> None:
    descriptor = flight.FlightDescriptor.for_command(read_request(where=where))
    assert answer(server, info(descriptor)) == "invalid_argument"
    assert answer(server, rows(read_request(where=where))) == "invalid_argument"


def test_a_where_of_ten_thousand_terms_is_answered(server: Server) -> None:
    for word in (" OR ", " AND "):
        where = word.join(f"AGE = {n}" for n in range(10_000))
        assert answer(server, rows(read_request(where=where))) in {None, "too_large", "invalid_argument"}
    nested = "(" * 10_000 + "AGE = 1" + ")" * 10_000
    assert answer(server, rows(read_request(where=nested))) in {None, "too_large", "invalid_argument"}
    negated = "NOT " * 10_000 + "AGE = 1"
    assert answer(server, rows(read_request(where=negated))) in {None, "too_large", "invalid_argument"}
    assert_well(server)


def test_deeply_nested_json_is_refused(server: Server) -> None:
    for body in (b"[" * 200_000, b'{"a":' * 200_000, b'{"project":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        assert answer(server, info(flight.FlightDescriptor.for_command(body))) == "invalid_argument"
        assert answer(server, rows(body)) == "invalid_argument"
        assert answer(server, action("datom.tables", body)) == "invalid_argument"
        assert answer(server, flights(body)) == "invalid_argument"
    assert_well(server)


def test_huge_json_is_too_large(server: Server) -> None:
    body = read_request(version="a" * (5 * 1024 * 1024))
    assert answer(server, rows(body)) == "too_large"
    assert answer(server, info(flight.FlightDescriptor.for_command(body))) == "too_large"
    assert answer(server, action("datom.history", body)) == "too_large"
    assert_well(server)


def test_an_unknown_key_is_named(server: Server) -> None:
    for call in (
        rows(read_request(colums=["AGE"])),
        info(flight.FlightDescriptor.for_command(read_request(colums=["AGE"]))),
        action("datom.tables", b'{"project":"STUDY_001","colums":1}'),
        flights(b'{"colums":1}'),
    ):
        with server.raw() as client, pytest.raises(flight.FlightError, match='"colums"') as refusal:
            call(client, server.call_options())
        assert code_of(refusal.value) == "invalid_argument"


def test_an_unknown_action_is_refused(server: Server) -> None:
    assert answer(server, action("datom.nope", b"{}")) in {"unsupported", "invalid_argument"}


def test_odd_headers_do_no_harm(server: Server) -> None:
    for name, value in (("x-request-id", "a" * 5000), ("x-request-id", "../../x"), ("cookie", "a=b;"), ("x-y", "%00")):
        assert answer(server, with_header(name, value)(server)) is None


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Bearer x.y.z", "Basic", "Basic !!!", "bearer  ", "Digest x", "Bearer " + "a" * 7000],
)
def test_a_token_that_is_none_is_unauthenticated(server: Server, value: str) -> None:
    assert answer(server, with_token(value)) == "unauthenticated"


def test_a_token_signed_by_nobody_or_by_another_is_unauthenticated(server: Server, tmp_path: Path) -> None:
    head, claims, signature = server.token("admin").split(".")
    unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    for token in (f"{unsigned}.{claims}.", f"{head}.{claims}.{signature[::-1]}", f"{head}.{claims}."):
        assert answer(server, with_token(f"Bearer {token}")) == "unauthenticated"
