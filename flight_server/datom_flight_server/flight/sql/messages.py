"""Flight SQL's messages in and out of bytes."""

from __future__ import annotations

from typing import TypeVar

import pyarrow as pa
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError, Message

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.messages import MAX_REQUEST_BYTES

from . import flight_sql_pb2 as messages

M = TypeVar("M", bound=Message)

_PACKAGE = messages.DESCRIPTOR.package + "."


def sql_name(data: bytes) -> str | None:
    """The name of the Flight SQL message packed in `data`, like ``CommandGetTables``; None when it is anything else."""
    name, _ = _opened(data)
    return name


def packed(message: Message) -> bytes:
    """`message` as commands, tickets, and bodies and results of Flight SQL's actions have it: in an ``Any``."""
    wrapper = Packed()
    wrapper.Pack(message)
    return wrapper.SerializeToString()


def unpacked(data: bytes, kind: type[M]) -> M:
    """The `kind` packed in `data`.

    Raises:
        InvalidRequestError: ``invalid_argument`` when something else is.
    """
    name, message = _opened(data)
    if name != kind.DESCRIPTOR.name:
        raise InvalidRequestError(f"this is not a {kind.DESCRIPTOR.name} in a google.protobuf.Any")
    return parsed(message, kind)


def parsed(data: bytes, kind: type[M]) -> M:
    """The `kind` that `data` is; raises InvalidRequestError: ``invalid_argument``, ``too_large``."""
    if len(data) > MAX_REQUEST_BYTES:
        raise InvalidRequestError(
            f"the message has {len(data)} bytes, at most {MAX_REQUEST_BYTES} are accepted", code="too_large"
        )
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequestError(f"this is not a {kind.DESCRIPTOR.name}") from None


def schema_bytes(schema: pa.Schema) -> bytes:
    """`schema` as fields of messages have it: an encapsulated IPC message."""
    data: bytes = schema.serialize().to_pybytes()
    return data


def unsupported(name: str) -> InvalidRequestError:
    """The answer to a message or action that this server does not take."""
    shown = name[:80].encode("unicode_escape").decode("ascii")
    return InvalidRequestError(f"no {shown} here: this server does not do that", code="unsupported", hint="")


def _opened(data: bytes) -> tuple[str | None, bytes]:
    """The name of the Flight SQL message packed in `data`, and its bytes; no name when it is anything else."""
    # every ticket of a plain read comes here, and JSON takes the parser long to refuse
    if data.startswith(b"{") or len(data) > MAX_REQUEST_BYTES:
        return None, b""
    try:
        wrapper = Packed.FromString(data)
    except DecodeError:
        return None, b""
    full_name = wrapper.type_url.rpartition("/")[2]
    return (full_name.removeprefix(_PACKAGE) if full_name.startswith(_PACKAGE) else None), wrapper.value
