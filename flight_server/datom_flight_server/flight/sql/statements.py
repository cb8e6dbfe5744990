"""Queries: from their text to a plan, from a plan to tickets, from a ticket to a stream."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, cast

import pyarrow as pa
import pyarrow.flight as fl

from datom_flight.protocol.errors import VersionError
from datom_flight.protocol.messages import decode_object, encode_object

from ...calls import Subject
from ...sql.resolving import Pinned
from ...sql.statements import Plan, Statements
from ..admission import Streams
from ..middleware import Request
from ..reads import Reads
from ..session import Session
from ..streams import row_stream
from . import flight_sql_pb2 as messages
from .asking import Asked, query_of
from .catalog import SqlCatalog
from .handles import Handles
from .messages import packed
from .prepared import Prepared
from .transactions import instant_of


class SqlStatements:
    """Answers what is asked of queries, prepared or not."""

    def __init__(self, statements: Statements, catalog: SqlCatalog, reads: Reads, streams: Streams) -> None:
        self._statements = statements
        self._catalog = catalog
        self._reads = reads
        self._streams = streams
        self._plans = Handles(Plan.from_bytes)

    def expect(self) -> None:
        """See `Statements.expect`."""
        self._statements.expect()

    def prepare(self, request: Request, query: str, transaction: bytes | None) -> Prepared:
        """`query` with what the transaction and the session settle; nothing of it is looked at yet."""
        began = Session() if transaction is None else Session(began=instant_of(transaction))
        return Prepared(query, began.over(request.session))

    def plan(self, request: Request, asked: Asked) -> Plan:
        """The plan of a query, under the caller's rights; raises as the planner does."""
        request.call.action = "sql"
        query = query_of(asked, request.session)
        session = query.session
        try:
            plan = self._statements.plan(
                request.principal,
                query.text,
                project=self._catalog.project_of(request.principal, session),
                as_of=session.instant,
                pins=query.pins,
                parameters=query.parameters,
                is_cancelled=request.is_cancelled,
            )
        except VersionError as error:
            if session.began and not session.as_of:
                error.hint = f"the transaction reads as of {session.began}: commit to see later versions; {error.hint}"
            raise
        pins = plan.pins
        _note(request, pins)
        query.check(plan.parameter_names, pins)
        return plan

    def info(self, request: Request, descriptor: fl.FlightDescriptor, asked: Asked) -> fl.FlightInfo:
        """The tickets of a query's rows: of the versions that are resolved now, whenever they are used."""
        plan = self.plan(request, asked)
        pins = {"pins": [pin.to_object() for pin in plan.pins]}
        if plan.simple is not None:
            read = self._reads.info_of(request, plan.simple, descriptor)
            return fl.FlightInfo(
                plan.schema,
                descriptor,
                read.endpoints,
                total_records=read.total_records,
                total_bytes=read.total_bytes,
                ordered=True,
                app_metadata=encode_object(decode_object(bytes(read.app_metadata), "app_metadata") | pins),
            )
        ticket = packed(messages.TicketStatementQuery(statement_handle=self._plans.give(plan)))
        return fl.FlightInfo(
            plan.schema,
            descriptor,
            [fl.FlightEndpoint(ticket, [])],
            ordered=True,
            app_metadata=encode_object(pins),
        )

    def answer(self, request: Request, asked: Asked) -> tuple[pa.Schema, Iterator[Any]]:
        """The rows of a query that is asked and answered in one call."""
        plan = self.plan(request, asked)
        return plan.schema, self._rows(request, plan)

    def stream(self, request: Request, handle: bytes) -> tuple[pa.Schema, Iterator[Any]]:
        """The rows of a ticket's query."""
        plan = self._plans.take(handle)
        _note(request, plan.pins)
        return plan.schema, self._rows(request, plan)

    def _rows(self, request: Request, plan: Plan) -> Iterator[Any]:
        rows = cast(
            "Generator[pa.RecordBatch, None, None]", self._statements.run(request.principal, plan, request.is_cancelled)
        )
        with closing(rows) as batches:
            yield from row_stream(plan.schema, batches, self._streams.running(request))


def _note(request: Request, pins: Sequence[Pinned]) -> None:
    request.call.action = "sql"
    request.call.subjects = [Subject(pin.project, pin.table, pin.version) for pin in pins]
