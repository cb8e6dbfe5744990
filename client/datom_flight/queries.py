"""SQL: what is asked, with which versions, and the rows that come of it."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from .calls import STREAM_SECONDS, Calls
from .origins import Pinned, pins_of
from .parts import read_table
from .pins import Pin
from .plans import Plan
from .protocol.errors import InvalidRequestError
from .protocol.names import format_instant
from .protocol.queries import Scalar, SqlRequest
from .reads import Instant, Reads, Scan

Parameters = Sequence[Any] | Mapping[str, Any]


def sql_request(
    query: str,
    project: str | None,
    parameters: Parameters | None = None,
    as_of: Instant | None = None,
    pin: Pinned | None = None,
) -> SqlRequest:
    """The request that arguments of `Connection.sql` make.

    Raises:
        InvalidRequestError: ``invalid_argument``: one is not of its form, or two contradict.
    """
    if not isinstance(query, str) or not query:
        raise InvalidRequestError("the query is not a text", hint="give one SELECT")
    if pin is not None and as_of is not None:
        raise InvalidRequestError("pin cannot be given with as_of", hint="leave one of them out")
    if project is None and isinstance(pin, Pin):
        project = pin.project
    return SqlRequest(
        sql=query,
        project=project,
        as_of=None if as_of is None else format_instant(as_of),
        pins=None if pin is None else pins_of(pin),
        parameters=None if parameters is None else _parameters(parameters),
    )


class Queries:
    """Has the server run queries, through `calls`; what it says about projects is told by `reads`."""

    def __init__(self, calls: Calls, reads: Reads) -> None:
        self._calls = calls
        self._reads = reads

    def table(self, request: SqlRequest) -> pa.Table:
        """All the rows, checked. Raises as `Connection.sql`."""
        return read_table(self._calls, self.plan(request))

    def scan(self, request: SqlRequest) -> Scan:
        """The rows, not moving yet. Raises as `Connection.sql`."""
        return Scan(self._calls, self.plan(request))

    def plan(self, request: SqlRequest) -> Plan:
        """What the query resolves to, with the server's warnings given."""
        # Planning fetches what the query reads to the server's cache.
        plan = Plan.of(self._calls.flight_info(request.to_json(), STREAM_SECONDS))
        if plan.project is not None:
            self._reads.warn(plan.warnings, plan.project)
        return plan


def _parameters(given: Parameters) -> tuple[Scalar, ...] | dict[str, Scalar] | str:
    if isinstance(given, Mapping):
        named = dict(given)
    elif isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise InvalidRequestError("the parameters are neither a list of values nor a dict", hint="give a list: [65]")
    else:
        named = {str(place): value for place, value in enumerate(given, 1)}
    if all(map(_is_json, named.values())):
        return named if isinstance(given, Mapping) else tuple(named.values())
    columns = [_column(name, value) for name, value in named.items()]
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays(columns, names=list(named))
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue()).decode()


def _is_json(value: object) -> bool:
    """Whether JSON has `value`, and whoever reads it the same one."""
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, str) or (type(value) is int and -(2**63) <= value < 2**63)


def _column(name: str, value: object) -> pa.Array:
    try:
        if type(value) is int and not _is_json(value):
            return pa.array([Decimal(value)], pa.decimal128(38, 0))
        return pa.array([value])
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0][:200]
    raise InvalidRequestError(f'parameter "{name}" cannot be sent: {reason}')
