"""Queries as they travel: the JSON command, or ticket, that asks for the rows of a SELECT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .errors import DatomError, InvalidRequestError
from .messages import decode_object, encode_object, optional_text, required_name
from .names import parse_instant, validate_name

PINS = "datom.pins"
"""The key of a result's schema metadata that says, as a JSON list, which versions it was computed from."""

MAX_PARAMETERS = 1_000
MAX_PINS = 100_000

Scalar = None | bool | int | float | str

_PIN_KEYS = ("project", "table", "version", "data_sha", "set")


@dataclass(frozen=True, slots=True)
class TablePin:
    """A version that a query reads.

    Attributes:
        version: a full id, or a prefix of one.
        data_sha: what the version's must be; None is whatever it has.
        set: the set whose member it was of, for ``set.table`` in a query; None for other names.
    """

    project: str
    table: str
    version: str
    data_sha: str | None = None
    set: str | None = None

    @classmethod
    def from_object(cls, body: Any) -> TablePin:
        """A pin as results have it. Raises InvalidRequestError: ``invalid_argument``, ``invalid_name``."""
        if not isinstance(body, Mapping):
            raise InvalidRequestError('"pins" is not a list of objects with project, table and version')
        for key in body:
            if key not in _PIN_KEYS:
                raise InvalidRequestError(f'unknown key "{str(key)[:80]}" in a pin', hint=", ".join(_PIN_KEYS))
        project, table = required_name(body, "project"), required_name(body, "table")
        version = optional_text(body, "version")
        if version is None:
            raise InvalidRequestError(
                f'the pin of "{project}.{table}" has no "version"', hint="it was of no version of the table's history"
            )
        return cls(project, table, version, optional_text(body, "data_sha"), optional_text(body, "set"))


@dataclass(frozen=True, slots=True)
class SqlRequest:
    """The rows of one SELECT: a JSON descriptor, and a ticket.

    Attributes:
        project: where tables named alone are; None is the only one the caller may see.
        as_of: ISO 8601; tables are read as they were then. Never together with `pins`.
        pins: the versions of all tables whose version the query leaves open; of two of one name the first.
        parameters: values in order, or by name, or base64 of an Arrow stream of one row.
    """

    sql: str
    project: str | None = None
    as_of: str | None = None
    pins: tuple[TablePin, ...] | None = None
    parameters: tuple[Scalar, ...] | Mapping[str, Scalar] | str | None = None

    @classmethod
    def from_json(cls, data: bytes, what: str) -> SqlRequest:
        """The request in the bytes of a descriptor or ticket.

        Raises:
            InvalidRequestError: ``invalid_argument``, ``invalid_name`` or ``too_large``, naming the key.
        """
        body = decode_object(data, what, cls.__dataclass_fields__)
        query, project, as_of = (optional_text(body, key) for key in ("sql", "project", "as_of"))
        if query is None:
            raise InvalidRequestError('key "sql" is missing')
        pins = _pins(body)
        if as_of is not None:
            parse_instant(as_of)
            if pins is not None:
                raise InvalidRequestError("as_of and pins cannot both be given", hint="leave one of them out")
        return cls(
            sql=query,
            project=None if project is None else validate_name(project, "project"),
            as_of=as_of,
            pins=pins,
            parameters=_parameters(body),
        )

    def to_json(self) -> bytes:
        """The bytes `from_json` reads; keys without a value are left out."""
        body = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if self.pins is not None:
            body["pins"] = [{k: v for k, v in asdict(pin).items() if v is not None} for pin in self.pins]
        return encode_object({key: value for key, value in body.items() if value is not None})


def is_query(data: bytes) -> bool:
    """Whether `data` is a JSON object with the key ``sql``, and so to be read by `SqlRequest.from_json`."""
    if b'"sql"' not in data:
        return False
    try:
        return "sql" in decode_object(data, "command")
    except DatomError:
        return False


def _pins(body: Mapping[str, Any]) -> tuple[TablePin, ...] | None:
    value = body.get("pins")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_PINS:
        raise InvalidRequestError(f'"pins" is not a list of at most {MAX_PINS} objects')
    return tuple(map(TablePin.from_object, value))


def _parameters(body: Mapping[str, Any]) -> tuple[Scalar, ...] | Mapping[str, Scalar] | str | None:
    value = body.get("parameters")
    if value is None or (isinstance(value, str) and value):
        return value
    if isinstance(value, list | dict) and len(value) <= MAX_PARAMETERS:
        values = value.values() if isinstance(value, dict) else value
        if all(one is None or isinstance(one, bool | int | float | str) for one in values):
            return value if isinstance(value, dict) else tuple(value)
    raise InvalidRequestError(
        f'"parameters" is not a list or object of at most {MAX_PARAMETERS} single values',
        hint="values of other types than JSON's come as base64 of an Arrow stream",
    )
