"""Prepared statements: a handle holds all there is to know of one, so that any replica can run it, at any time."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.flight as fl

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.messages import decode_object, encode_object, optional_text

from ..session import Session

MAX_PARAMETER_BYTES = 1024 * 1024
"""Of the values bound to one statement: they travel with every call about it."""

_KEYS = ("query", "session", "parameters")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query and what it was prepared with. It grants nothing: whoever uses it is authorised anew.

    Attributes:
        session: what was settled then; what is settled when it runs goes before that.
        parameters: one row, by position.
    """

    query: str
    session: Session
    parameters: pa.RecordBatch | None = None

    @classmethod
    def from_bytes(cls, handle: bytes) -> Prepared:
        """The statement that a handle holds; raises InvalidRequestError: ``invalid_argument``, ``too_large``."""
        body = decode_object(handle, "the prepared statement's handle", _KEYS)
        query, encoded = optional_text(body, "query"), optional_text(body, "parameters")
        if query is None:
            raise InvalidRequestError("the prepared statement's handle holds no query")
        parameters = None if encoded is None else decoded_parameters(encoded)
        return cls(query, Session.of(body.get("session")), parameters)

    def to_bytes(self) -> bytes:
        """The handle that `from_bytes` reads."""
        body = {
            "query": self.query,
            "session": self.session.settled(),
            "parameters": None if self.parameters is None else _encoded(self.parameters),
        }
        return encode_object({key: value for key, value in body.items() if value is not None})

    def bound(self, reader: fl.MetadataRecordBatchReader) -> Prepared:
        """This statement with the one row of parameters that `reader` brings; without any when it brings none.

        Raises:
            InvalidRequestError: ``invalid_argument`` for more rows, ``too_large``.
        """
        rows: pa.RecordBatch | None = None
        for chunk in reader:
            if chunk.data is None or chunk.data.num_rows == 0:
                continue
            if rows is not None or chunk.data.num_rows > 1:
                raise InvalidRequestError("a query takes one row of parameters", hint="run it once for each row")
            rows = checked_parameters(chunk.data)
        return replace(self, parameters=rows)


def checked_parameters(rows: pa.RecordBatch) -> pa.RecordBatch:
    """`rows`, if they are whole and of lawful size; raises InvalidRequestError: ``invalid_argument``, ``too_large``."""
    if rows.nbytes > MAX_PARAMETER_BYTES:
        raise InvalidRequestError(
            f"the parameters have {rows.nbytes} bytes, at most {MAX_PARAMETER_BYTES} are accepted", code="too_large"
        )
    try:
        rows.validate(full=True)
    except (pa.ArrowInvalid, OSError):
        raise InvalidRequestError("the parameters are malformed") from None
    return rows


def _encoded(rows: pa.RecordBatch) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return base64.b64encode(sink.getvalue()).decode()


def decoded_parameters(encoded: str) -> pa.RecordBatch:
    """The rows in base64 of an Arrow stream of one batch; raises InvalidRequestError: ``invalid_argument``."""
    try:
        with pa.ipc.open_stream(base64.b64decode(encoded, validate=True)) as reader:
            return checked_parameters(reader.read_next_batch())
    except (binascii.Error, ValueError, StopIteration, pa.ArrowException, OSError):
        raise InvalidRequestError("the parameters are not base64 of an Arrow stream") from None
