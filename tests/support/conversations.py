"""Conversations of a release's clients with its server: recorded as they pass a proxy, and held with other servers.

``PYTHONPATH=tests python -m support.conversations tests/data/conversations/VERSION`` records one, with what that
release leaves in its cache. It is done once for each release, before it is made.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as dbapi
import grpc
import pyarrow as pa
import pyarrow.flight as fl
from adbc_driver_flightsql import DatabaseOptions

import datom_flight
from datom_flight_server.auth.tokens import Tokens
from datom_flight_server.model import Principal, Role

from .expected import STORES
from .s3 import S3Server, serving_s3
from .server import SECRET, running, write_config

_FOR_EVER = timedelta(days=36_500)
_NOT_ANSWERED_TWICE = ("token", "expires")
_TRANSPORT = ("grpc-", "user-agent", "content-type", "te", ":")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call.

    Attributes:
        method: gRPC's name of it.
        headers: that the client sent.
        requests: the messages that it sent, in base64.
        status: how it ended: gRPC's name and, of a failure, our code.
        answer: what the server's messages say, see `meaning`.
    """

    method: str
    headers: Sequence[tuple[str, str]]
    requests: Sequence[str]
    status: str
    answer: Any


def projects(s3: S3Server) -> dict[str, dict[str, str]]:
    """The fixture stores, in buckets: what is answered of them holds no path of this machine."""
    for store in STORES:
        s3.upload(store.root, store.name)
    return {store.project: s3.settings(store.name, store.prefix) for store in STORES}


class Recorder(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes calls on to the server at `address`, and keeps them."""

    def __init__(self, address: str) -> None:
        self.exchanges: list[Exchange] = []
        self._channel = grpc.insecure_channel(address)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """See `grpc.GenericRpcHandler`."""
        method = details.method

        def passed_on(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            headers = [(key, value) for key, value in context.invocation_metadata() if not key.startswith(_TRANSPORT)]
            sent: list[bytes] = []
            answers: list[bytes] = []
            call = self._channel.stream_stream(method)(_noted(requests, sent), metadata=headers)
            with suppress(grpc.RpcError):
                context.send_initial_metadata(call.initial_metadata())
                for answer in call:
                    answers.append(answer)
                    yield answer
            context.set_trailing_metadata(call.trailing_metadata())
            texts = [(key, value) for key, value in headers if isinstance(value, str)]
            requests_text = [base64.b64encode(message).decode() for message in sent]
            answer = meaning(method, sent, answers)
            self.exchanges.append(Exchange(method, texts, requests_text, _status(call), answer))
            if call.code() is not grpc.StatusCode.OK:
                context.abort(call.code(), call.details())

        return grpc.stream_stream_rpc_method_handler(passed_on)

    def close(self) -> None:
        self._channel.close()


def hold(address: str, exchange: Exchange) -> tuple[str, Any]:
    """The status and the answer of the same call to the server at `address`."""
    messages = [base64.b64decode(message) for message in exchange.requests]
    headers = [(key, value) for key, value in exchange.headers]
    answers: list[bytes] = []
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(exchange.method)(iter(messages), metadata=headers, timeout=60)
        with suppress(grpc.RpcError):
            answers.extend(call)
        return _status(call), meaning(exchange.method, messages, answers)


def agrees(recorded: Any, now: Any) -> bool:
    """Whether `now` says all that was `recorded`; it may say more by other keys."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        return all(key in now and agrees(value, now[key]) for key, value in recorded.items())
    if isinstance(recorded, list) and isinstance(now, list):
        return len(recorded) == len(now) and all(map(agrees, recorded, now))
    return bool(recorded == now)


def meaning(method: str, requests: Sequence[bytes], messages: Sequence[bytes]) -> Any:
    """What the answers to a call say, whatever they look like on the wire."""
    match method.rpartition("/")[2]:
        case "DoGet":
            rows = _rows(messages)
            # the server's release is in them
            return {"schema": rows["schema"]} if b"CommandGetSqlInfo" in requests[0] else rows
        case "GetFlightInfo" | "ListFlights":
            return [_info(fl.FlightInfo.deserialize(message)) for message in messages]
        case "GetSchema":
            return [_schema(pa.ipc.read_schema(pa.py_buffer(_fields(message)[1]))) for message in messages]
        case "DoAction":
            return [_object(_fields(message).get(1, b"")) for message in messages]
        case _:
            return len(messages)


def read(path: Path) -> list[Exchange]:
    """The conversation that was recorded in `path`."""
    return [Exchange(**line) for line in map(json.loads, (path / "calls.jsonl").read_text().splitlines())]


def _noted(messages: Iterable[bytes], kept: list[bytes]) -> Iterator[bytes]:
    for message in messages:
        kept.append(message)
        yield message


def _status(call: grpc.Call) -> str:
    if call.code() is grpc.StatusCode.OK:
        return "OK"
    return f"{call.code().name} {call.details().partition(':')[0]}"


def _rows(messages: Sequence[bytes]) -> Any:
    parts = [_fields(message) for message in messages]
    ends = [_object(part[3]) for part in parts if part.get(3)]
    if not any(part.get(2) for part in parts):
        return {"end": ends}
    with pa.ipc.open_stream(b"".join(_encapsulated(part) for part in parts if part.get(2))) as reader:
        table = reader.read_all()
    rows = json.dumps(table.to_pylist(), default=str, sort_keys=True)
    digest = hashlib.sha256(rows.encode()).hexdigest()
    return {"schema": _schema(table.schema), "rows": table.num_rows, "sha256": digest, "end": ends}


def _encapsulated(part: Mapping[int, bytes]) -> bytes:
    header = part[2] + bytes(-len(part[2]) % 8)
    return b"\xff\xff\xff\xff" + len(header).to_bytes(4, "little") + header + part.get(1000, b"")


def _info(info: fl.FlightInfo) -> Any:
    facts = _object(bytes(info.app_metadata)) if info.app_metadata else None
    return {"schema": info.schema and _schema(info.schema), "records": info.total_records, "facts": facts}


def _schema(schema: pa.Schema) -> Any:
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items() if b"datom." in key}
    return {"fields": [f"{field.name}: {field.type}, {field.nullable}" for field in schema], "metadata": metadata}


def _object(data: bytes) -> Any:
    try:
        found = json.loads(data)
    except ValueError:
        return "bytes"
    if isinstance(found, dict):
        return {key: "…" if key in _NOT_ANSWERED_TWICE else value for key, value in found.items()}
    return found


def _fields(message: bytes) -> dict[int, bytes]:
    """The fields of a protobuf message that hold bytes, by their numbers."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        size, at = _varint(message, at)
        if tag & 7 == 2:
            found[tag >> 3] = message[at : at + size]
            at += size
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


@contextmanager
def _recording(address: str) -> Iterator[tuple[str, Recorder]]:
    recorder = Recorder(address)
    server = grpc.server(ThreadPoolExecutor(16), handlers=[recorder])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}", recorder
    finally:
        server.stop(None).wait()
        recorder.close()


def _talk(url: str) -> None:
    tokens = Tokens(SECRET)
    everything = tokens.create(Principal("dora", Role.DEVELOPER), _FOR_EVER)
    narrow = tokens.create(Principal("ann", Role.READER, frozenset({"STUDY_001"})), _FOR_EVER)
    with datom_flight.connect(url, "STUDY_001", token=everything) as conn:
        _use_the_library(conn)
    with datom_flight.connect(url, "STUDY_001", token=narrow) as conn:
        conn.projects()
        conn.read("dm")
        with suppress(datom_flight.DatomError):
            conn.read("no_such_table")
        with suppress(datom_flight.DatomError):
            conn.sql('SELECT * FROM "SUBMISSION".dm')
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {everything}"}
    for autocommit in (True, False):
        with closing(dbapi.connect(url, db_kwargs=options, autocommit=autocommit)) as connection:
            _use_the_driver(connection)
    _use_plain_flight(url, everything)


def _use_the_library(conn: datom_flight.Connection) -> None:
    conn.whoami()
    conn.projects()
    conn.tables()
    conn.summary()
    versions = [version.version for version in conn.history("dm")]
    conn.metadata("dm")
    conn.schema("dm")
    conn.read("dm")
    conn.read("dm", versions[-1])
    conn.read("dm", versions[0][:12], columns=["USUBJID", "AGE"], where="AGE >= 50", limit=3)
    conn.read("all_types")
    conn.scan("lb").read_all()
    conn.parents("dm_lb")
    conn.lineage("dm_lb")
    conn.validate("dm")
    conn.sql("SELECT SEX, count(*) AS n FROM dm WHERE AGE > ? GROUP BY SEX ORDER BY SEX", [40])
    conn.sql(f"SELECT * FROM dm AT (VERSION => '{versions[-1]}') LIMIT 2")
    pin = conn.pin(["dm", "lb"])
    conn.read("dm", pin=pin)
    conn.sql("SELECT max(AGE) AS oldest FROM dm", pin=pin)


def _use_the_driver(connection: Any) -> None:
    connection.adbc_get_info()
    connection.adbc_get_objects(depth="all").read_all()
    connection.adbc_get_table_schema("dm", db_schema_filter="STUDY_001")
    with connection.cursor() as cursor:
        cursor.execute('SELECT USUBJID, AGE FROM "STUDY_001".dm ORDER BY USUBJID')
        cursor.fetch_arrow_table()
        cursor.execute('SELECT count(*) AS n FROM "STUDY_001".dm WHERE AGE > ?', (50,))
        cursor.fetch_arrow_table()
        cursor.execute('SELECT d.USUBJID, l.* FROM "STUDY_001".dm d JOIN "STUDY_001".lb l USING (USUBJID) LIMIT 5')
        cursor.fetch_arrow_table()


def _use_plain_flight(url: str, token: str) -> None:
    with fl.FlightClient(url) as client:
        header = client.authenticate_basic_token("anybody", token)
        options = fl.FlightCallOptions(headers=[header])
        list(client.do_action(fl.Action("datom.session", b'{"role": "reader"}'), options))
        list(client.list_flights(options=options))
        info = client.get_flight_info(fl.FlightDescriptor.for_path("STUDY_001", "dm"), options)
        for endpoint in info.endpoints:
            client.do_get(endpoint.ticket, options).read_all()
        for body in (
            {"project": "STUDY_001", "table": "lb", "columns": ["USUBJID"], "limit": 2},
            {"project": "STUDY_001", "table": "dm", "as_of": "2999-12-31"},
            {"project": "STUDY_001", "sql": "SELECT count(*) AS n FROM ae"},
        ):
            client.do_get(fl.Ticket(json.dumps(body)), options).read_all()
        client.get_schema(fl.FlightDescriptor.for_path("STUDY_001", "lb"), options)


def record(folder: Path) -> None:
    """Hold a conversation with the server of this release, and keep it in `folder`, with the server's cache."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch, serving_s3(Path(scratch) / "s3") as s3:
        config = write_config(Path(scratch), projects(s3))
        with running(config) as server, _recording(server.url.partition("://")[2]) as (url, recorder):
            _talk(url)
            lines = [json.dumps(asdict(exchange), ensure_ascii=False) for exchange in recorder.exchanges]
        (folder / "calls.jsonl").write_text("\n".join(lines) + "\n")
        shutil.copytree(Path(scratch) / "cache", folder / "cache", ignore=shutil.ignore_patterns("queries", "*.lock"))


if __name__ == "__main__":
    record(Path(sys.argv[1]))
