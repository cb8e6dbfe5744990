"""Writing rows: sent batch by batch, closed by an end record, answered with a receipt."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from .calls import WRITE_SECONDS, Calls, decode_answer, encode_request
from .failures import TRANSPORT_ERRORS, to_datom_error
from .protocol.errors import ConflictError, DatomError, InvalidRequestError, UnavailableError
from .protocol.writes import WriteEnd, WriteRequest
from .replicas import Replica
from .results import WriteReceipt
from .sources import RowSource


def write_request(
    project: str, name: str, *, parents: Sequence[Mapping[str, Any] | str] | None = None, **options: Any
) -> WriteRequest:
    """The request that arguments of `Connection.write` make; `options` are other fields of it.

    Raises:
        InvalidRequestError: ``invalid_argument``, ``invalid_name``: one is not of its form.
    """
    body: dict[str, Any] = {"project": project, "table": name, **options, "end_record": True}
    if parents is not None:
        cited = [parents] if isinstance(parents, str) else parents
        body["parents"] = [_parent(parent, project) if isinstance(parent, str) else parent for parent in cited]
    return WriteRequest.from_json(encode_request(body, "the write"))


def _parent(text: str, project: str) -> dict[str, str]:
    place, _, version = text.rpartition("@")
    source, _, table = place.rpartition("/")
    if not table or not version:
        raise InvalidRequestError(
            f'parent "{text}" names no table and version', hint="write TABLE@VERSION, or PROJECT/TABLE@VERSION"
        )
    return {"source": source or project, "table": table, "version": version}


def upload(calls: Calls, request: WriteRequest, rows: RowSource) -> WriteReceipt:
    """Write `rows` as a table's current version, as `write_request` says.

    After a passing failure they are sent again, if they can be gone through again: writing the same content twice
    gives the same version.

    Raises:
        ConflictError: ``conflict``: another version than the one expected is current.
        DatomError: as `Connection.write`.
        Exception: whatever going through the rows raises, as it is; nothing is written then.
    """
    sending = _Upload(request, rows)
    try:
        answer = calls.retried(
            lambda: calls.attempt(sending.send, WRITE_SECONDS), progressed=sending.broke_off, seconds=WRITE_SECONDS
        )
    except _FinalError as final:
        failure = final.reason
    except ConflictError as error:
        failure = sending.explained(error)
    except BaseException:
        # Ctrl-C ends the wait, and the thread that sends finds out here.
        sending.abandoned.set()
        raise
    else:
        return WriteReceipt.from_wire(decode_answer(answer, "the write"))
    raise failure


class _FinalError(Exception):
    """Ends an upload without another attempt; `reason` is what to raise."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason


class _Upload:
    def __init__(self, request: WriteRequest, rows: RowSource) -> None:
        self.abandoned = threading.Event()
        self._request = request
        self._rows = rows
        self._attempts = 0
        self._sent = 0
        self._failure: DatomError | None = None

    def send(self, replica: Replica, options: fl.FlightCallOptions) -> bytes:
        """Send all the rows in one call; gives the server's receipt."""
        self._attempts += 1
        self._sent = 0
        try:
            return self._put(replica.client, options)
        except DatomError as error:
            failure = error
        except TRANSPORT_ERRORS as error:
            failure = to_datom_error(error, replica.url)
        self._failure = failure
        if self._rows.repeatable:
            raise failure
        raise _FinalError(_unrepeated(failure))

    def broke_off(self) -> bool:
        """Whether the last attempt got somewhere, and was then cut: its time was not spent waiting for a failure."""
        return self._sent > 0 and self._failure is not None and self._failure.code in ("unavailable", "truncated")

    def explained(self, error: ConflictError) -> ConflictError:
        """`error`, saying so if an attempt whose answer was lost may be what it conflicts with."""
        if self._attempts == 1:
            return error
        hint = "an attempt that broke off may have written the current version: compare them with `history`"
        return ConflictError(error.message, hint=hint, fields=error.fields, request_id=error.request_id)

    def _put(self, client: fl.FlightClient, options: fl.FlightCallOptions) -> bytes:
        schema = self._rows.schema
        writer, answers = client.do_put(fl.FlightDescriptor.for_command(self._request.to_json()), schema, options)
        try:
            for batch in self._batches():
                writer.write_batch(batch)
                self._sent += batch.num_rows
            writer.write_with_metadata(pa.RecordBatch.from_pylist([], schema=schema), WriteEnd(self._sent).to_json())
            writer.done_writing()
            answer = answers.read()
            if answer is None:
                # What the server raised after the last row is told by closing only.
                writer.close()
                raise UnavailableError("the server ended the write without a receipt")
        finally:
            # Without the end record, closing is how a stream is given up.
            with suppress(*TRANSPORT_ERRORS):
                writer.close()
        return bytes(answer)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        rows = self._rows.batches()
        while not self.abandoned.is_set():
            try:
                batch = next(rows, None)
            except Exception as error:
                raise _FinalError(error) from None
            if batch is None:
                return
            yield batch
        raise UnavailableError("the write was abandoned", code="cancelled")


def _unrepeated(failure: DatomError) -> DatomError:
    """`failure` of a stream that cannot be sent again, saying so if sending it again could help."""
    if not failure.retryable:
        return failure
    hint = "the rows came as a stream, which cannot be sent again by itself; write them once more, or as a table"
    return DatomError.of(failure.code, failure.message, hint=hint, fields=failure.fields, request_id=failure.request_id)
