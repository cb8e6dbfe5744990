"""The rows of a plan: its parts fetched side by side, given in order."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa

from .calls import STREAM_SECONDS, Calls, concurrently
from .plans import Part, Plan
from .protocol.errors import DatomError, UnavailableError
from .protocol.messages import ReadRequest
from .streams import PULL_BYTES, TicketStream

_CONCURRENT_STREAMS = 2
_MOST_CONCURRENT_STREAMS = 8
_AHEAD_BYTES = 64 * 1024 * 1024
"""What may wait for whoever takes the rows one batch at a time."""


def iterate(calls: Calls, plan: Plan) -> Iterator[pa.RecordBatch]:
    """The rows of `plan`, batch by batch as they arrive; leaving the iteration early cancels the calls.

    The next rows arrive while the ones before them are used, those of the next part, too, as long as they are few
    enough to wait.

    Raises:
        DatomError: as `TicketStream.pull`; batches given before it are the plan's rows, in order.
    """
    most = _side_by_side(plan)
    pulls = max(2, _AHEAD_BYTES // PULL_BYTES // most)
    rows = 0
    waiting = deque(plan.parts)
    begun: deque[_Lane] = deque()
    try:
        while waiting or begun:
            while waiting and len(begun) < most:
                begun.append(_Lane(calls, _stream(calls, plan, waiting.popleft()), plan.is_repeatable, pulls))
            yield from begun[0]
            rows += begun.popleft().stream.received
    finally:
        for lane in begun:
            lane.close()
    _check_total(plan, rows)


def read_table(calls: Calls, plan: Plan) -> pa.Table:
    """The rows of `plan` as one table: all of them, checked, or an error as of `TicketStream.pull`.

    A few streams run side by side; a dictionary column has one dictionary.
    """
    return (
        _read(calls, plan) if plan.is_repeatable else calls.retried(lambda: _read(calls, plan), seconds=STREAM_SECONDS)
    )


def _read(calls: Calls, plan: Plan) -> pa.Table:
    streams = [_stream(calls, plan, part) for part in plan.parts]
    try:
        parts = concurrently(_drain, streams, _side_by_side(plan)) if len(streams) > 1 else [*map(_drain, streams)]
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
    stream = TicketStream(calls, Part(request.to_json()), version=request.version, data_sha=data_sha)
    try:
        batches = _drain(stream)
    except DatomError as error:
        if error.code == "timeout" and stream.received:
            return None
        raise
    finally:
        stream.close()
    return _table(batches, stream.schema)


class _Lane:
    """A stream that a thread of its own pulls, so many pulls ahead of whoever takes the batches."""

    def __init__(self, calls: Calls, stream: TicketStream, is_repeatable: bool, pulls: int) -> None:
        self.stream = stream
        self._first = stream.pull if is_repeatable else lambda: calls.retried(stream.pull, seconds=STREAM_SECONDS)
        # At least two, see `close`.
        self._pulled: queue.Queue[list[pa.RecordBatch] | BaseException] = queue.Queue(pulls)
        threading.Thread(target=self._fill, name="datom-flight-lane", daemon=True).start()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while batches := self._pulled.get():
            if isinstance(batches, BaseException):
                raise batches
            yield from batches

    def close(self) -> None:
        """Cancel what is under way, and let the thread end."""
        self.stream.close()
        # What it still has to put, some batches and the failure they end in, finds room.
        with suppress(queue.Empty):
            while True:
                self._pulled.get_nowait()

    def _fill(self) -> None:
        try:
            batches = self._first()
            self._pulled.put(batches)
            while batches:
                batches = self.stream.pull()
                self._pulled.put(batches)
        except BaseException as error:
            self._pulled.put(error)


def _side_by_side(plan: Plan) -> int:
    """How many streams at a time: one from each replica, a few from a single one."""
    servers = {part.locations[0] for part in plan.parts if part.locations}
    return min(_MOST_CONCURRENT_STREAMS, max(_CONCURRENT_STREAMS, len(servers)))


def _stream(calls: Calls, plan: Plan, part: Part) -> TicketStream:
    return TicketStream(
        calls,
        part,
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
    table = pa.Table.from_batches(batches, schema=schema)
    if len(batches) > 1 and any(map(_holds_dictionary, schema.types)):
        return table.unify_dictionaries()
    return table


def _holds_dictionary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return True
    return any(_holds_dictionary(kind.field(index).type) for index in range(kind.num_fields))


def _check_total(plan: Plan, rows: int) -> None:
    if plan.rows is not None and rows != plan.rows:
        raise UnavailableError(f"{rows} rows came where {plan.rows} were announced", code="truncated")
