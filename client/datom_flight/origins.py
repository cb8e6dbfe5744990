"""What rows say of themselves: the versions that a result was computed from, or is of."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import pyarrow as pa

from .pins import Pin
from .protocol.errors import InvalidRequestError, VersionError
from .protocol.queries import PINS, TablePin

Pinned: TypeAlias = Pin | pa.Table | pa.RecordBatch | pa.Schema
"""What names versions of tables: a pin, or a result, whose schema's metadata does."""

_READ_KEYS = ("project", "table", "version", "data_sha")


def pins_of(holder: Pinned) -> tuple[TablePin, ...]:
    """The versions that a pin holds, or that a result of `Connection.sql` or `Connection.read` was made of.

    Raises:
        InvalidRequestError: ``invalid_argument``: it names none, or data that is in no version of its table.
    """
    if isinstance(holder, Pin):
        return tuple(
            TablePin(holder.project, name, held.version, held.data_sha) for name, held in holder.tables.items()
        )
    schema = holder if isinstance(holder, pa.Schema) else getattr(holder, "schema", None)
    if not isinstance(schema, pa.Schema):
        raise InvalidRequestError(
            f"a {type(holder).__name__} names no versions", hint="give a Pin, or an earlier result"
        )
    return tuple(map(TablePin.from_object, _told(schema.metadata or {})))


def one_each(pins: tuple[TablePin, ...]) -> tuple[str, tuple[TablePin, ...]]:
    """The project of `pins`, and each table once, if they are of one project and one version of each table.

    Raises:
        InvalidRequestError: ``invalid_argument``: of several projects, or of no table.
        VersionError: ``version_ambiguous``: two versions of a table.
    """
    hint = "give the result itself as pin"
    projects = sorted({pin.project for pin in pins})
    if len(projects) != 1:
        told = ", ".join(f'"{project}"' for project in projects) or "no project"
        raise InvalidRequestError(f"the result is of {told}; a pin is of one", hint=hint)
    by_table: dict[str, TablePin] = {}
    for pin in pins:
        if by_table.setdefault(pin.table, pin).version != pin.version:
            raise VersionError(
                f'the result is of several versions of "{pin.table}"; a pin has one',
                code="version_ambiguous",
                hint=hint,
            )
    return projects[0], tuple(by_table.values())


def _told(metadata: dict[bytes, bytes]) -> list[Any]:
    if PINS.encode() in metadata:
        try:
            told = json.loads(metadata[PINS.encode()])
        except ValueError:
            told = None
        if isinstance(told, list):
            return told
    read = {
        key: metadata[f"datom.{key}".encode()].decode(errors="replace")
        for key in _READ_KEYS
        if f"datom.{key}".encode() in metadata
    }
    if "table" not in read:
        raise InvalidRequestError(
            "the rows do not say which versions they were computed from",
            hint="give a result of sql or read, or rows that were saved with their schema's metadata",
        )
    return [read]
