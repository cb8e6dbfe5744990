"""Reading rows: every stream checked to its end record, and taken up again where it broke."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.flight as fl

from .calls import STREAM_SECONDS, Calls, concurrently
from .failures import TRANSPORT_ERRORS, to_datom_error
from .plans import Plan
from .protocol.errors import DatomError, IntegrityError, InternalError, UnavailableError
from .protocol.messages import EndRecord, ReadRequest
from .replicas import Replica

CONCURRENT_STREAMS = 2

_PULL_BYTES = 8 * 1024 * 1024


class TicketStream:
    """The rows of one ticket. A stream that breaks is asked for again, and the rows received are skipped.

    That takes a ticket whose streams have the same rows in the same order each time, as those that name a full version
    do. Another is tried but once: whoever pulls may try again as long as no rows were received.

    Attributes:
        schema: of the rows, once `pull` was called; before that, what was expected, if anything.
        received: rows given so far.
    """

    def __init__(
        self,
        calls: Calls,
        ticket: bytes,
        *,
        version: str | None,
        data_sha: str | None = None,
        schema: pa.Schema | None = None,
        is_repeatable: bool = True,
    ) -> None:
        self.schema = schema
        self.received = 0
        self._calls = calls
        self._ticket = fl.Ticket(ticket)
        self._version = version
        self._data_sha = data_sha
        self._is_repeatable = is_repeatable
        self._reader: fl.FlightStreamReader | None = None
        self._replica: Replica | None = None
        self._skip = 0
        self._received_before = 0
        self._failure: DatomError | None = None
        self._ended = False
        self._closed = False

    def pull(self) -> list[pa.RecordBatch]:
        """The next batches, a few MiB of them, none of them empty; an empty list after the last, checked, row.

        Raises:
            UnavailableError: ``truncated`` when the stream keeps ending early; ``timeout``, ``unavailable``, ….
            IntegrityError: ``integrity_mismatch`` when the rows are of another version than asked for.
        """
        if self._ended:
            return []
        if not self._is_repeatable:
            return self._try()
        return self._calls.retried(self._try, progressed=lambda: self.received > self._received_before)

    def close(self) -> None:
        """Cancel the call, if one is under way. `pull` is refused from then on; safe from any thread."""
        self._closed = True
        self._drop()

    def _try(self) -> list[pa.RecordBatch]:
        under_way = self._replica if self._reader is not None or self._failure is not None else None
        return self._calls.attempt(self._pull, STREAM_SECONDS, under_way)

    def _pull(self, replica: Replica, options: fl.FlightCallOptions) -> list[pa.RecordBatch]:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        batches: list[pa.RecordBatch] = []
        try:
            self._collect(replica, options, batches)
        except DatomError as error:
            failure = error
        except TRANSPORT_ERRORS as error:
            failure = to_datom_error(error, replica.url)
        else:
            return batches
        self._drop()
        if not batches:
            raise failure
        # The rows that did arrive are good; what stopped them is told at the next pull, if it then still matters.
        self._failure = failure
        return batches

    def _collect(self, replica: Replica, options: fl.FlightCallOptions, batches: list[pa.RecordBatch]) -> None:
        size = 0
        while size < _PULL_BYTES and not self._ended:
            if self._closed:
                raise UnavailableError("the read was abandoned", code="cancelled")
            reader = self._reader or self._open(replica, options)
            try:
                chunk = reader.read_chunk()
            except StopIteration:
                raise UnavailableError(
                    f"the stream ended after {self.received} rows without its end record", code="truncated"
                ) from None
            end = EndRecord.from_json(bytes(chunk.app_metadata)) if chunk.app_metadata is not None else None
            if end is not None:
                self._finish(reader, end)
            elif (batch := self._unseen(chunk.data)) is not None:
                batches.append(batch)
                size += batch.nbytes
                self.received += batch.num_rows

    def _open(self, replica: Replica, options: fl.FlightCallOptions) -> fl.FlightStreamReader:
        self._received_before = self._skip = self.received
        reader = replica.client.do_get(self._ticket, options)
        self._reader, self._replica = reader, replica
        if self.schema is not None and not reader.schema.equals(self.schema):
            raise InternalError(
                "the stream's columns are not those announced for it", hint="tell whoever runs the server"
            )
        self.schema = reader.schema
        return reader

    def _unseen(self, batch: pa.RecordBatch | None) -> pa.RecordBatch | None:
        """The part of `batch` that earlier streams of this ticket have not given."""
        if batch is None or batch.num_rows <= self._skip:
            self._skip -= batch.num_rows if batch is not None else 0
            return None
        skipped, self._skip = self._skip, 0
        return batch.slice(skipped) if skipped else batch

    def _finish(self, reader: fl.FlightStreamReader, end: EndRecord) -> None:
        if end.rows != self.received:
            raise UnavailableError(
                f"the stream had {self.received} rows where its end record says {end.rows}", code="truncated"
            )
        expected = (self._version or end.version, self._data_sha or end.data_sha)
        if (end.version, end.data_sha) != expected:
            raise IntegrityError(
                f'the rows are of version "{end.version}" (data "{end.data_sha}"), '
                f'not of "{expected[0]}" (data "{expected[1]}")',
                hint="nothing of them was used; tell whoever runs the server",
            )
        try:
            reader.read_chunk()
        except StopIteration:
            self._ended, self._reader = True, None
        else:
            raise InternalError("the stream went on after its end record", hint="tell whoever runs the server")

    def _drop(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()


def iterate(calls: Calls, plan: Plan) -> Iterator[pa.RecordBatch]:
    """The rows of `plan`, batch by batch as they arrive; leaving the iteration early cancels the call.

    Raises:
        DatomError: as `TicketStream.pull`; batches given before it are the plan's rows, in order.
    """
    rows = 0
    for ticket in plan.tickets:
        stream = _stream(calls, plan, ticket)
        try:
            batches = stream.pull() if plan.is_repeatable else calls.retried(stream.pull)
            while batches:
                yield from batches
                batches = stream.pull()
        finally:
            stream.close()
        rows += stream.received
    _check_total(plan, rows)


def read_table(calls: Calls, plan: Plan) -> pa.Table:
    """The rows of `plan` as one table: all of them, checked, or an error as of `TicketStream.pull`.

    A few streams run side by side; a dictionary column has one dictionary.
    """
    return _read(calls, plan) if plan.is_repeatable else calls.retried(lambda: _read(calls, plan))


def _read(calls: Calls, plan: Plan) -> pa.Table:
    streams = [_stream(calls, plan, ticket) for ticket in plan.tickets]
    try:
        parts = concurrently(_drain, streams, CONCURRENT_STREAMS) if len(streams) > 1 else [*map(_drain, streams)]
    except BaseException:
        for stream in streams:
            stream.close()
        raise
    _check_total(plan, sum(stream.received for stream in streams))
    return _table([batch for part in parts for batch in part], plan.schema)


def read_ticket(calls: Calls, request: ReadRequest, data_sha: str | None) -> pa.Table | None:
    """The rows of a request that names a full version, in one round trip: the request is the ticket.

    None when the table is too long for one call's deadline; `read_table` can then still read it in parts.
    """
    stream = TicketStream(calls, request.to_json(), version=request.version, data_sha=data_sha)
    try:
        batches = _drain(stream)
    except DatomError as error:
        if error.code == "timeout" and stream.received:
            return None
        raise
    finally:
        stream.close()
    return _table(batches, stream.schema)


def _stream(calls: Calls, plan: Plan, ticket: bytes) -> TicketStream:
    return TicketStream(
        calls,
        ticket,
        version=plan.version,
        data_sha=plan.data_sha,
        schema=plan.schema,
        is_repeatable=plan.is_repeatable,
    )


def _drain(stream: TicketStream) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = []
    while pulled := stream.pull():
        batches += pulled
    return batches


def _table(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches(batches, schema=schema).unify_dictionaries()


def _check_total(plan: Plan, rows: int) -> None:
    if plan.rows is not None and rows != plan.rows:
        raise UnavailableError(f"{rows} rows came where {plan.rows} were announced", code="truncated")
