"""A small server of the wire protocol over tables in memory, which misbehaves when told to.

It exists for what the real server never does: streams that break, lie or stall. It knows no roles, no storage
and no SQL.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from datom_flight.identity import data_sha
from datom_flight.protocol.errors import (
    AuthenticationError,
    ConflictError,
    DatomError,
    NotFoundError,
    UnavailableError,
    VersionError,
)
from datom_flight.protocol.listings import PACKED, RESULTS_HEADER, pack
from datom_flight.protocol.messages import EndRecord, ReadRequest, decode_object, encode_object
from datom_flight.protocol.writes import WriteEnd, WriteReceipt, WriteRequest

BATCH_ROWS = 10


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of one table, as the server holds it."""

    version: str
    data_sha: str
    rows: pa.Table
    day: str


@dataclass
class Faults:
    """What goes wrong, once for each element; the next call takes the next element.

    Attributes:
        refusals: raised by any call, before anything else.
        break_after: batches after which a stream ends in ``unavailable``; None is a stream that does not break.
        cut_after: likewise, the stream ending as if it were whole, without an end record.
        ends: what to make of a stream's end record.
        stall_after: batches after which a stream waits until `release` is set.
        hold_streams: whether streams wait for `release` before they begin.
        refuse_after: batches of a write after which the second of the pair is raised.
        lose_receipt: writes whose receipt is not sent: how such a call ends, None being as if all were well.
    """

    refusals: list[Exception] = field(default_factory=list)
    break_after: list[int | None] = field(default_factory=list)
    cut_after: list[int | None] = field(default_factory=list)
    stall_after: list[int | None] = field(default_factory=list)
    hold_streams: bool = False
    ends: list[Callable[[EndRecord], EndRecord]] = field(default_factory=list)
    refuse_after: list[tuple[int, DatomError]] = field(default_factory=list)
    lose_receipt: list[DatomError | None] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)


class _Headers(fl.ServerMiddleware):  # type: ignore[misc]
    def __init__(self, authorization: str | None, takes_packed: bool) -> None:
        self.authorization = authorization
        self.takes_packed = takes_packed


class _HeadersFactory(fl.ServerMiddlewareFactory):  # type: ignore[misc]
    def start_call(self, info: fl.CallInfo, headers: dict[str, list[str]]) -> _Headers:
        return _Headers(next(iter(headers.get("authorization", [])), None), headers.get(RESULTS_HEADER) == [PACKED])


class WireServer(fl.FlightServerBase):  # type: ignore[misc]
    """Serves `put` tables on a free port of 127.0.0.1; a context manager.

    Attributes:
        faults: what to do wrong.
        calls: method, and what it was about, of every call so far.
        tokens: the tokens that are valid, with the principal each names; empty lets everybody in.
        whoami: what ``datom.whoami`` answers besides the principal.
        answers: fixed results of other actions.
        packs: whether it gives listings packed to who takes that; older servers do not.
        warnings: attached to every `FlightInfo`.
        cancelled: set when a client gave up a stream before its end.
        writes: the request of every write that came whole, and its batches.
        largest: bytes of the largest batch written.
        results: of queries, by their text; every other stream of one has its rows the other way round.
        pins: that queries are said to be computed from.
        locations: named for each of the streams of a table, in turn.
        sent: bytes of all batches of streams so far.
    """

    def __init__(
        self, location: str = "grpc://127.0.0.1:0", streams: int = 1, batch_rows: int = BATCH_ROWS, **options: Any
    ) -> None:
        self.faults = Faults()
        self.calls: list[tuple[str, Any]] = []
        self.tokens: dict[str, str] = {}
        self.whoami: dict[str, Any] = {"role": "reader", "projects": ["STUDY_001"]}
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.packs = True
        self.sessions = 0
        self.session_seconds: str | None = None
        self.warnings: list[str] = []
        self.cancelled = threading.Event()
        self.writes: list[tuple[WriteRequest, list[pa.RecordBatch]]] = []
        self.largest = 0
        self.results: dict[str, pa.Table] = {}
        self.pins: list[dict[str, str]] = []
        self.locations: list[list[str]] = [[]]
        self.sent = 0
        self._lock = threading.Lock()
        self._reversed = False
        self._streams = streams
        self._batch_rows = batch_rows
        self._tables: dict[tuple[str, str], list[StoredVersion]] = {}
        super().__init__(location, middleware={"headers": _HeadersFactory()}, **options)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"grpc://127.0.0.1:{self.port}"

    def put(self, name: str, rows: pa.Table, project: str = "STUDY_001", day: str = "2026-01-01") -> StoredVersion:
        """Make `rows` the current version of a table, from `day` on."""
        history = self._tables.setdefault((project, name), [])
        sha = data_sha(rows) if rows.num_rows else hashlib.sha256(name.encode()).hexdigest()
        version = hashlib.sha256(f"{sha} {len(history)}".encode()).hexdigest()
        stored = StoredVersion(version, sha, rows, day)
        history.append(stored)
        return stored

    def forget(self, name: str, project: str = "STUDY_001") -> None:
        """Lose a table."""
        del self._tables[project, name]

    def shutdown(self) -> None:
        """Stop; streams that stall are released."""
        self.faults.release.set()
        super().shutdown()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.wait()

    # Flight.

    def get_flight_info(self, context: fl.ServerCallContext, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        return self._answer(context, "GetFlightInfo", descriptor.command, self._info)

    def do_get(self, context: fl.ServerCallContext, ticket: fl.Ticket) -> fl.GeneratorStream:
        return self._answer(context, "DoGet", ticket.ticket, self._stream)

    def do_action(self, context: fl.ServerCallContext, action: fl.Action) -> list[fl.Result]:
        answer = self._answer(
            context, action.type, action.body.to_pybytes(), lambda body: self._act(context, action.type, body)
        )
        packs = self.packs and context.get_middleware("headers").takes_packed
        return [fl.Result(result) for result in (pack(answer) if packs else map(encode_object, answer))]

    def do_put(
        self,
        context: fl.ServerCallContext,
        descriptor: fl.FlightDescriptor,
        reader: fl.MetadataRecordBatchReader,
        writer: fl.FlightMetadataWriter,
    ) -> None:
        receipt = self._answer(
            context, "DoPut", descriptor.command, lambda body: self._write(descriptor.command, reader)
        )
        if self.faults.lose_receipt:
            lost = self.faults.lose_receipt.pop(0)
            if lost is not None:
                raise on_the_wire(lost)
            return
        writer.write(encode_object(receipt.to_object()))

    def _answer(
        self, context: fl.ServerCallContext, method: str, data: bytes, respond: Callable[[dict[str, Any]], Any]
    ) -> Any:
        try:
            body = decode_object(data, method)
            self.calls.append((method, body))
            if self.faults.refusals:
                raise self.faults.refusals.pop(0)
            self._principal(context)
            return respond(body)
        except DatomError as error:
            failure = on_the_wire(error)
        raise failure

    def _principal(self, context: fl.ServerCallContext) -> str:
        if not self.tokens:
            return "somebody"
        token = (context.get_middleware("headers").authorization or "").removeprefix("Bearer ")
        if token not in self.tokens:
            raise AuthenticationError("the token is not valid", request_id="r-1")
        return self.tokens[token]

    def _act(self, context: fl.ServerCallContext, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        if name == "datom.whoami":
            return [{"principal": self._principal(context), **self.whoami}]
        if name == "datom.session":
            self.sessions += 1
            token = f"session-{self.sessions}"
            self.tokens[token] = f"{self._principal(context)} as {body['role']}"
            return [{"token": token, "expires": self.session_seconds}]
        if name == "datom.tables" and name not in self.answers:
            return [
                {"name": table, "kind": "table", "version": versions[-1].version}
                for (project, table), versions in self._tables.items()
                if project == body["project"]
            ]
        if name in self.answers:
            return self.answers[name]
        raise DatomError.of("unsupported", f'no action "{name}"')

    def _write(self, command: bytes, reader: fl.MetadataRecordBatchReader) -> WriteReceipt:
        request = WriteRequest.from_json(command)
        refuse_after, refusal = self.faults.refuse_after.pop(0) if self.faults.refuse_after else (None, None)
        stall_after = self.faults.stall_after.pop(0) if self.faults.stall_after else None
        batches: list[pa.RecordBatch] = []
        end = None
        for chunk in reader:
            if chunk.data.num_rows:
                batches.append(chunk.data)
                self.largest = max(self.largest, pa.ipc.get_record_batch_size(chunk.data))
            end = chunk.app_metadata and WriteEnd.from_json(chunk.app_metadata.to_pybytes())
            if len(batches) == refuse_after and refusal is not None:
                raise refusal
            if len(batches) == stall_after:
                self.faults.release.wait()
        if end != WriteEnd(sum(batch.num_rows for batch in batches)):
            self.cancelled.set()
            raise UnavailableError("the rows ended before their end record", code="truncated")
        self.writes.append((request, batches))
        history = self._tables.get((request.project, request.table), [])
        current = history[-1].version if history else ""
        if request.expected not in (None, current):
            raise ConflictError("somebody else wrote first", fields={"current": current})
        rows = pa.Table.from_batches(batches, reader.schema).unify_dictionaries()
        if history and data_sha(rows) == history[-1].data_sha:
            stored, commit, action = history[-1], None, "none"
        else:
            stored, commit, action = self.put(request.table, rows, request.project), "c" * 40, "full"
        return WriteReceipt(request.table, stored.version, stored.data_sha, stored.data_sha[::-1], commit, action)

    def _resolve(self, request: ReadRequest) -> StoredVersion:
        history = self._tables.get((request.project, request.table))
        if not history:
            raise NotFoundError(f'no table "{request.table}" in project "{request.project}"')
        if request.as_of is not None:
            history = [stored for stored in history if stored.day <= request.as_of]
            if not history:
                raise VersionError(f'"{request.table}" had no version on {request.as_of}')
        if request.version is None:
            return history[-1]
        found = [stored for stored in history if stored.version.startswith(request.version)]
        if len(found) != 1:
            raise VersionError(f'no version "{request.version}" of "{request.table}"')
        return found[0]

    def _schema(self, request: ReadRequest, stored: StoredVersion) -> pa.Schema:
        told = {"project": request.project, "table": request.table}
        told |= {"version": stored.version, "data_sha": stored.data_sha}
        return stored.rows.schema.with_metadata({f"datom.{key}": value for key, value in told.items()})

    def _computed(self, body: dict[str, Any]) -> pa.Table:
        if body["sql"] not in self.results:
            raise DatomError.of("sql_error", "there is no such result")
        return self.results[body["sql"]].replace_schema_metadata({"datom.pins": json.dumps(self.pins)})

    def _info(self, body: dict[str, Any]) -> fl.FlightInfo:
        if "sql" in body:
            pins = encode_object({"pins": self.pins, "warnings": self.warnings})
            descriptor, endpoint = fl.FlightDescriptor.for_command(b""), fl.FlightEndpoint(encode_object(body), [])
            return fl.FlightInfo(self._computed(body).schema, descriptor, [endpoint], -1, -1, True, pins)
        request = ReadRequest.from_object(body)
        stored = self._resolve(request)
        told: dict[str, Any] = {"project": request.project, "table": request.table, "version": stored.version}
        told |= {"rows": stored.rows.num_rows, "warnings": self.warnings}
        told |= {"data_sha": stored.data_sha, "parquet_sha": stored.data_sha[::-1]}
        tickets = [
            ReadRequest(request.project, request.table, stored.version, row_groups=(part, part + 1)).to_json()
            for part in range(self._streams)
        ]
        return fl.FlightInfo(
            self._schema(request, stored),
            fl.FlightDescriptor.for_command(b""),
            [
                fl.FlightEndpoint(ticket, locations)
                for ticket, locations in zip(tickets, itertools.cycle(self.locations), strict=False)
            ],
            stored.rows.num_rows,
            -1,
            True,
            json.dumps(told).encode(),
        )

    def _stream(self, body: dict[str, Any]) -> fl.GeneratorStream:
        if self.faults.hold_streams:
            self.faults.release.wait()
        if "sql" in body:
            rows = self._computed(body)
            if self._reversed:
                rows = rows.take(list(range(rows.num_rows))[::-1])
            self._reversed = not self._reversed
            return self._faulty(rows, rows.schema, EndRecord(rows.num_rows, None, ""))
        request = ReadRequest.from_object(body)
        stored = self._resolve(request)
        rows = stored.rows
        if request.row_groups is not None:
            part, share = request.row_groups[0], -(-rows.num_rows // self._streams)
            rows = rows.slice(part * share, share)
        schema = self._schema(request, stored)
        return self._faulty(rows, schema, EndRecord(rows.num_rows, stored.version, stored.data_sha))

    def _faulty(self, rows: pa.Table, schema: pa.Schema, end: EndRecord) -> fl.GeneratorStream:
        if self.faults.ends:
            end = self.faults.ends.pop(0)(end)
        plan = [
            faults.pop(0) if faults else None
            for faults in (self.faults.break_after, self.faults.cut_after, self.faults.stall_after)
        ]
        return fl.GeneratorStream(schema, self._batches(rows.cast(schema), schema, end, *plan))

    def _batches(
        self,
        rows: pa.Table,
        schema: pa.Schema,
        end: EndRecord,
        break_after: int | None,
        cut_after: int | None,
        stall_after: int | None,
    ) -> Iterator[Any]:
        try:
            sent = -1
            for sent, batch in enumerate(rows.to_batches(self._batch_rows)):
                if sent == break_after:
                    raise fl.FlightUnavailableError("the server is stopping")
                if sent == cut_after:
                    return
                if sent == stall_after:
                    self.faults.release.wait()
                with self._lock:
                    self.sent += batch.nbytes
                yield pa.RecordBatchReader.from_batches(schema, [batch])
            if break_after == sent + 1:
                raise fl.FlightUnavailableError("the server is stopping")
            if cut_after != sent + 1:
                empty = pa.RecordBatch.from_pylist([], schema=schema)
                yield (
                    pa.RecordBatchReader.from_batches(schema, [empty]) if not rows.num_rows else (empty, end.to_json())
                )
                if not rows.num_rows:
                    yield empty, end.to_json()
        except GeneratorExit:
            self.cancelled.set()
            raise


def on_the_wire(error: DatomError) -> Exception:
    """`error` as Flight carries it."""
    kinds = {
        "unauthenticated": fl.FlightUnauthenticatedError,
        "permission_denied": fl.FlightUnauthorizedError,
        "timeout": fl.FlightTimedOutError,
        "cancelled": fl.FlightCancelledError,
        "internal": fl.FlightInternalError,
    }
    if error.code == "unsupported":
        return NotImplementedError(f"unsupported: {error.message}")
    other = fl.FlightUnavailableError if error.retryable else fl.FlightServerError
    kind: type[fl.FlightError] = kinds.get(error.code, other)
    failure: Exception = kind(str(error), error.to_json())
    return failure
