"""Flight SQL, as one thing the Flight service can ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.queries import SqlRequest, is_query

from ...auth.base import Policy
from ...sql.statements import Statements
from ...versions.payloads import Payloads
from ...versions.projects import Projects
from ..admission import Streams
from ..middleware import Request
from ..reads import Reads
from ..session import Session, Sessions
from ..writes import Writes
from . import flight_pb2 as flight_messages
from . import flight_sql_pb2 as messages
from . import transactions
from .catalog import SqlCatalog
from .handles import Handles
from .ingest import Ingest
from .messages import packed, parsed, schema_bytes, sql_name, unpacked, unsupported
from .metadata import Metadata
from .options import options_of, with_options
from .prepared import Prepared
from .statements import SqlStatements

AddHeader = Callable[[str, str], None]

ACTIONS: Mapping[str, str] = {
    "CreatePreparedStatement": "Flight SQL: a handle for a query, with its schema",
    "ClosePreparedStatement": "Flight SQL: nothing is held, so nothing happens",
    "BeginTransaction": "Flight SQL: an instant as of which statements read",
    "EndTransaction": "Flight SQL: nothing is held, so nothing happens",
    "CancelFlightInfo": "Flight: always not cancellable; cancel the stream instead",
    "CancelQuery": "Flight SQL: always not cancellable; cancel the stream instead",
    "SetSessionOptions": "Flight: schema (a project), datom.as_of (a date or time), catalog",
    "GetSessionOptions": "Flight: the session's options",
    "CloseSession": "Flight: nothing is held, so nothing happens",
}


class FlightSql:
    """Answers the commands, tickets and actions of Flight SQL, and queries in JSON.

    Attributes:
        sessions: of all connections.
    """

    def __init__(
        self,
        projects: Projects,
        policy: Policy,
        payloads: Payloads,
        statements: Statements,
        reads: Reads,
        writes: Writes,
        streams: Streams,
        clock: transactions.Clock = transactions.now,
    ) -> None:
        self.sessions = Sessions()
        self._catalog = SqlCatalog(projects, policy, payloads)
        self._metadata = Metadata(self._catalog)
        self._statements = SqlStatements(statements, self._catalog, reads, streams)
        self._ingest = Ingest(self._catalog, projects, payloads, writes)
        self._prepared = Handles(Prepared.from_bytes)
        self._streams = streams
        self._clock = clock
        self._actions: Mapping[str, Callable[[Request, bytes, AddHeader], bytes | None]] = {
            "CreatePreparedStatement": self._create_prepared,
            "ClosePreparedStatement": lambda request, body, add_header: None,
            "BeginTransaction": self._begin,
            "EndTransaction": self._end,
            "CancelFlightInfo": self._cancel,
            "CancelQuery": self._cancel_query,
            "SetSessionOptions": self._set_options,
            "GetSessionOptions": self._get_options,
            "CloseSession": self._close_session,
        }

    def handles_descriptor(self, descriptor: fl.FlightDescriptor) -> bool:
        """Whether `descriptor` is a command of Flight SQL, known here or not."""
        return descriptor.descriptor_type == fl.DescriptorType.CMD and sql_name(descriptor.command) is not None

    def handles_rows(self, command: bytes) -> bool:
        """Whether a descriptor's command, or a ticket, is one of Flight SQL's or a query in JSON.

        Tickets of plain reads are neither: they are tickets like any other's.
        """
        return sql_name(command) is not None or is_query(command)

    def handles_action(self, name: str) -> bool:
        """Whether `name` is an action of `ACTIONS`."""
        return name in self._actions

    def info(self, request: Request, descriptor: fl.FlightDescriptor, add_header: AddHeader) -> fl.FlightInfo:
        """The schema and tickets of what a command asks for; `add_header` puts a header into the answer."""
        if is_query(descriptor.command):
            return self._statements.info(request, descriptor, SqlRequest.from_json(descriptor.command, "descriptor"))
        name = _name(descriptor.command)
        # drivers ask for this when they connect
        if name == "CommandGetSqlInfo":
            self._statements.expect()
        # they never miss what this call answers
        if request.is_behind or (name == "CommandGetSqlInfo" and request.carried.connection is None):
            self._settle(request, request.carried.session, add_header)
        if self._metadata.handles(name):
            schema = self._metadata.answer(request, name, descriptor.command).schema
            return fl.FlightInfo(schema, descriptor, [fl.FlightEndpoint(descriptor.command, [])], ordered=True)
        return self._statements.info(request, descriptor, self._query(request, name, descriptor.command))

    def schema(self, request: Request, descriptor: fl.FlightDescriptor) -> pa.Schema:
        """The schema of what a command asks for."""
        if is_query(descriptor.command):
            return self._statements.plan(request, SqlRequest.from_json(descriptor.command, "descriptor")).schema
        name = _name(descriptor.command)
        if self._metadata.handles(name):
            return self._metadata.answer(request, name, descriptor.command).schema
        return self._statements.plan(request, self._query(request, name, descriptor.command)).schema

    def stream(self, request: Request, ticket: bytes) -> tuple[pa.Schema, Iterator[Any]]:
        """The rows of a ticket: their schema, and what a `GeneratorStream` of it sends."""
        if is_query(ticket):
            return self._statements.answer(request, SqlRequest.from_json(ticket, "ticket"))
        name = _name(ticket)
        if self._metadata.handles(name):
            schema, find = self._metadata.answer(request, name, ticket)
            return schema, self._one_batch(request, find)
        if name == "TicketStatementQuery":
            return self._statements.stream(request, unpacked(ticket, messages.TicketStatementQuery).statement_handle)
        raise unsupported(name)

    def put(
        self,
        request: Request,
        descriptor: fl.FlightDescriptor,
        reader: fl.MetadataRecordBatchReader,
        writer: fl.FlightMetadataWriter,
    ) -> None:
        """Bind parameters, or ingest rows; what would change anything else is refused."""
        name, command = _name(descriptor.command), descriptor.command
        if name == "CommandStatementIngest":
            request.call.action = name
            rows = self._ingest.put(request, unpacked(command, messages.CommandStatementIngest), reader)
            answer = messages.DoPutUpdateResult(record_count=rows).SerializeToString()
        elif name == "CommandPreparedStatementQuery":
            request.call.action = name
            handle = unpacked(command, messages.CommandPreparedStatementQuery).prepared_statement_handle
            bound = self._prepared.give(self._prepared.take(handle).bound(reader))
            answer = messages.DoPutPreparedStatementResult(prepared_statement_handle=bound).SerializeToString()
        elif name in ("CommandStatementUpdate", "CommandPreparedStatementUpdate"):
            request.call.action = name
            raise InvalidRequestError(
                "nothing is changed by SQL: this server is read-only",
                code="sql_error",
                hint="run a SELECT as a query, one row of parameters at a time; write tables by ingest",
            )
        else:
            raise unsupported(name)
        writer.write(pa.py_buffer(answer))

    def action(self, request: Request, name: str, body: bytes, add_header: AddHeader) -> Iterator[bytes]:
        """The results of the action `name`.

        Args:
            add_header: puts a header into the answer; works until the first result has been given.
        """
        request.call.action = name
        result = self._actions[name](request, body, add_header)
        if result is not None:
            yield result

    def _query(self, request: Request, name: str, command: bytes) -> Prepared:
        if name == "CommandStatementQuery":
            asked = unpacked(command, messages.CommandStatementQuery)
            return self._statements.prepare(request, asked.query, _transaction(asked))
        if name == "CommandPreparedStatementQuery":
            handle = unpacked(command, messages.CommandPreparedStatementQuery).prepared_statement_handle
            return self._prepared.take(handle)
        raise unsupported(name)

    def _one_batch(self, request: Request, find: Callable[[], pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with self._streams.running(request) as stream:
            batch = find()
            stream.wait()
            yield batch

    def _create_prepared(self, request: Request, body: bytes, add_header: AddHeader) -> bytes:
        asked = unpacked(body, messages.ActionCreatePreparedStatementRequest)
        prepared = self._statements.prepare(request, asked.query, _transaction(asked))
        plan = self._statements.plan(request, prepared)
        return packed(
            messages.ActionCreatePreparedStatementResult(
                prepared_statement_handle=self._prepared.give(prepared),
                dataset_schema=schema_bytes(plan.schema),
                parameter_schema=schema_bytes(plan.parameter_schema),
                is_update=False,
            )
        )

    def _begin(self, request: Request, body: bytes, add_header: AddHeader) -> bytes:
        transaction, instant = transactions.begin(self._clock)
        self._settle(request, replace(request.carried.session, began=instant), add_header)
        return packed(messages.ActionBeginTransactionResult(transaction_id=transaction))

    def _end(self, request: Request, body: bytes, add_header: AddHeader) -> None:
        transactions.end(unpacked(body, messages.ActionEndTransactionRequest))
        self._settle(request, replace(request.carried.session, began=""), add_header)

    def _cancel(self, request: Request, body: bytes, add_header: AddHeader) -> bytes:
        parsed(body, flight_messages.CancelFlightInfoRequest)
        return flight_messages.CancelFlightInfoResult(
            status=flight_messages.CANCEL_STATUS_NOT_CANCELLABLE
        ).SerializeToString()

    def _cancel_query(self, request: Request, body: bytes, add_header: AddHeader) -> bytes:
        unpacked(body, messages.ActionCancelQueryRequest)
        return packed(
            messages.ActionCancelQueryResult(result=messages.ActionCancelQueryResult.CANCEL_RESULT_NOT_CANCELLABLE)
        )

    def _set_options(self, request: Request, body: bytes, add_header: AddHeader) -> bytes:
        asked = parsed(body, flight_messages.SetSessionOptionsRequest)
        project_of = partial(self._catalog.project_of, request.principal)
        session, result = with_options(request.carried.session, asked, project_of)
        self._settle(request, session, add_header)
        return result.SerializeToString()

    def _get_options(self, request: Request, body: bytes, add_header: AddHeader) -> bytes:
        project_of = partial(self._catalog.project_of, request.principal)
        return options_of(request.session, project_of).SerializeToString()

    def _close_session(self, request: Request, body: bytes, add_header: AddHeader) -> bytes:
        closed = flight_messages.CloseSessionResult.CLOSED
        return flight_messages.CloseSessionResult(status=closed).SerializeToString()

    def _settle(self, request: Request, session: Session, add_header: AddHeader) -> None:
        """Have the driver send `session` with all its calls from now on, behind the token it came with."""
        settled = self.sessions.settle(request.principal.name, request.carried, session)
        add_header("authorization", f"Bearer {settled.behind(request.bearer)}")


def _name(data: bytes) -> str:
    name = sql_name(data)
    if name is None:
        raise InvalidRequestError("this is not a message of Flight SQL")
    return name


def _transaction(
    asked: messages.CommandStatementQuery | messages.ActionCreatePreparedStatementRequest,
) -> bytes | None:
    return asked.transaction_id if asked.HasField("transaction_id") else None
