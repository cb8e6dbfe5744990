"""The Flight service: each verb, bounded."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pyarrow as pa
import pyarrow.flight as fl

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.messages import ACTIONS, encode_object

from ..auth.base import Authenticator
from .actions import Actions
from .boundary import Boundary, bounded
from .compression import row_stream_of
from .middleware import REQUEST, Ended, NoHandshake, RequestFactory, request_of
from .rates import Rates
from .reads import Reads
from .sql.service import ACTIONS as SQL_ACTIONS
from .sql.service import FlightSql
from .writes import Writes


class DatomFlightServer(fl.FlightServerBase):  # type: ignore[misc]
    """Answers Flight calls from the moment it is made: make it last.

    Args:
        location: ``grpc://host:port`` or ``grpc+tls://host:port``; port 0 takes a free one, see ``port``.
        certificate: PEM chain and key, for TLS.
        ended: told of every call that ended, as `RequestFactory` says.
    """

    def __init__(
        self,
        location: str,
        certificate: tuple[bytes, bytes] | None = None,
        *,
        authenticator: Authenticator,
        rates: Rates,
        reads: Reads,
        actions: Actions,
        writes: Writes,
        sql: FlightSql,
        ended: Ended,
    ) -> None:
        self._reads = reads
        self._actions = actions
        self._writes = writes
        self._sql = sql
        super().__init__(
            location,
            auth_handler=NoHandshake(),
            middleware={REQUEST: RequestFactory(authenticator, rates, sql.sessions, ended)},
            tls_certificates=[certificate] if certificate else None,
        )

    def list_flights(self, context: fl.ServerCallContext, criteria: bytes) -> Iterator[fl.FlightInfo]:
        """See `Reads.listing`."""
        request = request_of(context)
        return bounded(self._reads.listing(request, criteria), request.id)

    def get_flight_info(self, context: fl.ServerCallContext, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        """See `Reads.info` and `FlightSql.info`."""
        request = request_of(context)
        with Boundary(request.id):
            if _is_sql(self._sql, descriptor):
                return self._sql.info(request, descriptor, context.add_header)
            return self._reads.info(request, descriptor)

    def get_schema(self, context: fl.ServerCallContext, descriptor: fl.FlightDescriptor) -> fl.SchemaResult:
        """See `Reads.schema` and `FlightSql.schema`."""
        request = request_of(context)
        with Boundary(request.id):
            answers = self._sql if _is_sql(self._sql, descriptor) else self._reads
            return fl.SchemaResult(answers.schema(request, descriptor))

    def do_get(self, context: fl.ServerCallContext, ticket: fl.Ticket) -> fl.FlightDataStream:
        """See `Reads.stream` and `FlightSql.stream`."""
        request = request_of(context)
        with Boundary(request.id):
            answers = self._sql if self._sql.handles_rows(ticket.ticket) else self._reads
            schema, batches = answers.stream(request, ticket.ticket)
            return row_stream_of(schema, bounded(batches, request.id), request.codec)

    def do_put(
        self,
        context: fl.ServerCallContext,
        descriptor: fl.FlightDescriptor,
        reader: fl.MetadataRecordBatchReader,
        writer: fl.FlightMetadataWriter,
    ) -> None:
        """See `FlightSql.put`, and `Writes.put`, which is answered by the receipt as JSON."""
        request = request_of(context)
        with Boundary(request.id):
            if self._sql.handles_descriptor(descriptor):
                self._sql.put(request, descriptor, reader, writer)
                return
            receipt = self._writes.put(request, descriptor, reader)
            writer.write(pa.py_buffer(encode_object(receipt.to_object())))

    def do_exchange(
        self,
        context: fl.ServerCallContext,
        descriptor: fl.FlightDescriptor,
        reader: fl.MetadataRecordBatchReader,
        writer: fl.MetadataRecordBatchWriter,
    ) -> None:
        """Refuse: nothing is exchanged."""
        with Boundary(request_of(context).id):
            raise InvalidRequestError("this server does not exchange", code="unsupported")

    def do_action(self, context: fl.ServerCallContext, action: fl.Action) -> Generator[bytes, None, None]:
        """See `Actions.run` and `FlightSql.action`."""
        request = request_of(context)
        body = action.body.to_pybytes() if action.body else b""
        if self._sql.handles_action(action.type):
            return bounded(self._sql.action(request, action.type, body, context.add_header), request.id)
        return bounded(self._actions.run(request, action.type, body), request.id)

    def list_actions(self, context: fl.ServerCallContext) -> list[tuple[str, str]]:
        """The actions and what each gives."""
        return [*ACTIONS.items(), *SQL_ACTIONS.items()]


def _is_sql(sql: FlightSql, descriptor: fl.FlightDescriptor) -> bool:
    return descriptor.descriptor_type == fl.DescriptorType.CMD and sql.handles_rows(descriptor.command)
