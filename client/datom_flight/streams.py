"""The rows of one ticket: checked to their end record, and taken up again where the stream broke."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.flight as fl

from .calls import STREAM_SECONDS, Calls
from .failures import TRANSPORT_ERRORS, to_datom_error
from .plans import Part
from .protocol.errors import DatomError, IntegrityError, InternalError, UnavailableError
from .protocol.messages import EndRecord
from .replicas import Replica

PULL_BYTES = 8 * 1024 * 1024
"""What a pull gathers, and at most one batch more."""

_FIRST_PULL_BYTES = 64 * 1024


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
        part: Part,
        *,
        version: str | None,
        data_sha: str | None = None,
        schema: pa.Schema | None = None,
        is_repeatable: bool = True,
    ) -> None:
        self.schema = schema
        self.received = 0
        self._calls = calls
        self._ticket = fl.Ticket(part.ticket)
        self._locations = part.locations
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
        """The next batches, some MiB of them, none of them empty; an empty list after the last, checked, row.

        The first come as soon as there are any.

        Raises:
            UnavailableError: ``truncated`` when the stream keeps ending early; ``timeout``, ``unavailable``, ….
            IntegrityError: ``integrity_mismatch`` when the rows are of another version than asked for.
        """
        if self._ended:
            return []
        if not self._is_repeatable:
            return self._try()
        return self._calls.retried(
            self._try,
            lambda: self.received > self._received_before,
            servers=len(self._locations) + 1,
            seconds=STREAM_SECONDS,
        )

    def close(self) -> None:
        """Cancel the call, if one is under way. `pull` is refused from then on; safe from any thread."""
        self._closed = True
        self._drop()

    def _try(self) -> list[pa.RecordBatch]:
        under_way = self._replica if self._reader is not None or self._failure is not None else None
        return self._calls.attempt(self._pull, STREAM_SECONDS, under_way or self._calls.replicas.near(self._locations))

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
        size, enough = 0, PULL_BYTES if self.received else _FIRST_PULL_BYTES
        while size < enough and not self._ended:
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
                size += batch.get_total_buffer_size()
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
