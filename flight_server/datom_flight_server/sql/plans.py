"""A planned query as a value: what it asks, what its names stand for, and what comes of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from datom_flight.protocol.errors import DatomError, InvalidRequestError
from datom_flight.protocol.messages import ReadRequest, decode_object, encode_object
from datom_flight.protocol.queries import PINS

from .resolving import Pinned, pins_of

_COMPACT = json.JSONEncoder(separators=(",", ":"))
_KEYS = ("query", "project", "as_of", "names", "schema", "parameter_names", "parameters", "simple")


@dataclass(frozen=True, slots=True)
class Plan:
    """A query whose every name is settled; the same rows on any replica, at any time. It carries no authority.

    Attributes:
        query: as written.
        project: where tables named alone are.
        as_of: the instant that history functions go by; None: now.
        names: what each name in the query stands for; names whose version the query says come last.
        schema: exactly that of the stream; its metadata has `PINS`.
        parameter_names: in order; ``"1"`` for the first ``?``.
        parameters: one row of values; None where none were given.
        simple: the same rows as a read of one table, where they are one.
    """

    query: str
    project: str | None
    as_of: str | None
    names: tuple[tuple[str, Pinned], ...]
    schema: pa.Schema
    parameter_names: tuple[str, ...] = ()
    parameters: pa.RecordBatch | None = None
    simple: ReadRequest | None = None

    @property
    def pins(self) -> tuple[Pinned, ...]:
        """The versions that are read, each once, in the order of `names`."""
        return pins_of(self.names)

    @property
    def parameter_schema(self) -> pa.Schema:
        """One column a parameter; of type null, since a parameter takes the type of its value."""
        return pa.schema([pa.field(name, pa.null()) for name in self.parameter_names])

    def to_bytes(self) -> bytes:
        """The bytes `from_bytes` reads."""
        body: dict[str, Any] = {
            "query": self.query,
            "project": self.project,
            "as_of": self.as_of,
            "names": [[name, pinned.to_object()] for name, pinned in self.names],
            "schema": _text(self.schema.serialize()),
            "parameter_names": list(self.parameter_names),
            "parameters": None if self.parameters is None else _text(batch_bytes(self.parameters)),
            "simple": None if self.simple is None else json.loads(self.simple.to_json()),
        }
        return encode_object({key: value for key, value in body.items() if value not in (None, [])})

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """The plan in the bytes of a ticket or handle.

        Raises:
            InvalidRequestError: ``invalid_argument`` or ``too_large`` when it is none.
        """
        body = decode_object(data, "plan", _KEYS)
        try:
            return cls(
                query=_checked(body["query"], str),
                project=_checked(body.get("project"), str, None),
                as_of=_checked(body.get("as_of"), str, None),
                names=tuple((_checked(name, str), _pinned(pinned)) for name, pinned in body.get("names", [])),
                schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(body["schema"], validate=True))),
                parameter_names=tuple(_checked(name, str) for name in body.get("parameter_names", [])),
                parameters=_batch(body["parameters"]) if "parameters" in body else None,
                simple=ReadRequest.from_object(body["simple"]) if "simple" in body else None,
            )
        except DatomError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OSError, pa.ArrowException):
            raise InvalidRequestError("the plan is not one this server made", hint="plan the query again") from None


def pins_metadata(pins: tuple[Pinned, ...]) -> dict[str, str]:
    """What a result's schema metadata says of the versions it was computed from."""
    return {PINS: _COMPACT.encode([pinned.to_object() for pinned in pins])}


def batch_bytes(batch: pa.RecordBatch) -> bytes:
    """A batch as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _checked(value: Any, kind: type, *others: Any) -> Any:
    if not isinstance(value, kind) and not any(value is other for other in others):
        raise TypeError
    return value


def _pinned(body: Mapping[str, Any]) -> Pinned:
    return Pinned(
        project=_checked(body["project"], str),
        table=_checked(body["table"], str),
        version=_checked(body.get("version"), str, None),
        data_sha=_checked(body["data_sha"], str),
    )


def _text(data: pa.Buffer | bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _batch(text: str) -> pa.RecordBatch:
    with pa.ipc.open_stream(base64.b64decode(text, validate=True)) as reader:
        batch = reader.read_next_batch()
    batch.validate(full=True)
    return batch
