"""Requests and answers as they travel: JSON objects in descriptors, tickets, actions and ``app_metadata``."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from .errors import DatomError, InvalidRequestError
from .names import parse_instant, validate_name

MAX_REQUEST_BYTES = 4 * 1024 * 1024
MAX_COLUMNS = 100_000

# json.dumps makes another one for every call that says how
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

ACTIONS: Mapping[str, str] = {
    "datom.projects": "the projects the caller may see",
    "datom.tables": "a project's tables and sets, from its manifest; pattern?: a glob on the name",
    "datom.history": "a table's versions, newest first; limit?: how many",
    "datom.metadata": "a version's metadata document; version? or as_of?",
    "datom.parents": "the parents a version records; version? or as_of?",
    "datom.lineage": "the source lineage a version records; version? or as_of?",
    "datom.set": "a set's tags and members; version? or as_of?",
    "datom.summary": "a project at a glance",
    "datom.prefetch": "fetch a table?, tables? or all, before they are read; version? or as_of?",
    "datom.validate": "compare documents and bytes, one finding a check; table?: only that one",
    "datom.whoami": "who the token says the caller is",
    "datom.session": "a short-lived token with the role given, never a wider one",
    "datom.write_set": "write a set's members and tags?; message?, expected?: as in a write",
}


def decode_object(data: bytes, what: str, known: Collection[str] | None = None) -> dict[str, Any]:
    """The JSON object in `data`; `what` names it in errors.

    Raises:
        InvalidRequestError: ``too_large``, or ``invalid_argument`` when it is not one JSON object, a key stands
            twice, or a key is not among `known`.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise InvalidRequestError(
            f"{what} has {len(data)} bytes, at most {MAX_REQUEST_BYTES} are accepted", code="too_large"
        )
    try:
        body = _DECODER.decode(data.decode("utf-8"))
    except DatomError:
        raise
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"{what} is not a JSON object in UTF-8") from None
    if not isinstance(body, dict):
        raise InvalidRequestError(f"{what} is JSON but not an object")
    if known is not None:
        for key in body:
            if key not in known:
                raise InvalidRequestError(
                    f'unknown key "{key[:80]}" in {what}', hint="known keys: " + ", ".join(sorted(known))
                )
    return body


def encode_object(body: Mapping[str, Any]) -> bytes:
    """`body` as compact UTF-8 JSON."""
    return _ENCODER.encode(body).encode()


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Rows of one table: a JSON descriptor, and a ticket.

    Attributes:
        project, table: where.
        version: a full id or a prefix; None is the current version.
        as_of: ISO 8601; the version current at that instant. Never together with `version`.
        columns: names in the order wanted; None is all.
        where: a SQL boolean expression over the table's columns.
        limit: the first so many rows.
        row_groups: ``(first, end)`` of the stored file; only in tickets of `GetFlightInfo`.
        data_sha: what the version resolved to, where the history gives it no name; only in such tickets.
    """

    project: str
    table: str
    version: str | None = None
    as_of: str | None = None
    columns: tuple[str, ...] | None = None
    where: str | None = None
    limit: int | None = None
    row_groups: tuple[int, int] | None = None
    data_sha: str | None = None

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> ReadRequest:
        """The request in a decoded JSON object, checked key by key.

        Raises:
            InvalidRequestError: ``invalid_argument`` or ``invalid_name``, naming the key.
        """
        version, as_of = optional_version(body)
        return cls(
            project=required_name(body, "project"),
            table=required_name(body, "table"),
            version=version,
            as_of=as_of,
            columns=_columns(body),
            where=optional_text(body, "where"),
            limit=optional_count(body, "limit"),
            row_groups=_row_groups(body),
            data_sha=optional_text(body, "data_sha"),
        )

    @classmethod
    def from_json(cls, data: bytes, what: str = "ticket") -> ReadRequest:
        """The request in the bytes of a ticket; raises as `decode_object` and `from_object` do."""
        return cls.from_object(decode_object(data, what, cls.__dataclass_fields__))

    def to_json(self) -> bytes:
        """The bytes `from_json` reads; keys without a value are left out."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return encode_object({key: value for key, value in fields.items() if value is not None})


@dataclass(frozen=True, slots=True)
class EndRecord:
    """What closes a table's stream: how many rows it had, and of which version.

    A stream without it was cut.
    """

    rows: int
    version: str | None
    data_sha: str

    def to_json(self) -> bytes:
        """The ``app_metadata`` of the last, empty batch."""
        return encode_object({"end": True, "rows": self.rows, "version": self.version, "data_sha": self.data_sha})

    @classmethod
    def from_json(cls, data: bytes) -> EndRecord | None:
        """The record in a batch's ``app_metadata``, or None when it is something else."""
        try:
            # of bytes, the encoding would be looked for first
            body = json.loads(data.decode())
        except ValueError:
            return None
        if not isinstance(body, dict) or body.get("end") is not True or not isinstance(body.get("rows"), int):
            return None
        return cls(body["rows"], body.get("version"), str(body.get("data_sha")))


# One value of a decoded object at a time. Each raises InvalidRequestError naming the key.


def required_name(body: Mapping[str, Any], key: str) -> str:
    """The name under `key`, which must be there."""
    if body.get(key) is None:
        raise InvalidRequestError(f'key "{key}" is missing')
    return validate_name(body[key], key)


def optional_text(body: Mapping[str, Any], key: str) -> str | None:
    """The non-empty text under `key`, or None when the key is absent or null."""
    value = body.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        _refuse(key, "a non-empty text")
    return value


def optional_count(body: Mapping[str, Any], key: str) -> int | None:
    """The whole number from 0 under `key`, or None when the key is absent or null."""
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        _refuse(key, "a whole number from 0")
    return int(value)


def optional_version(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """``(version, as_of)`` of `body`: at most one of them, `as_of` being ISO 8601."""
    version, as_of = optional_text(body, "version"), optional_text(body, "as_of")
    if version is not None and as_of is not None:
        raise InvalidRequestError("version and as_of cannot both be given", hint="leave one of them out")
    if as_of is not None:
        parse_instant(as_of)
    return version, as_of


def _columns(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = body.get("columns")
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        _refuse("columns", "a list of at least one column name")
    if len(value) > MAX_COLUMNS:
        _refuse("columns", f"at most {MAX_COLUMNS} names")
    return tuple(value)


def _row_groups(body: Mapping[str, Any]) -> tuple[int, int] | None:
    value = body.get("row_groups")
    if value is None:
        return None
    if not (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(index, int) and not isinstance(index, bool) for index in value)
        and 0 <= value[0] < value[1]
    ):
        _refuse("row_groups", "[first, end] with 0 <= first < end")
    return value[0], value[1]


def _refuse(key: str, expected: str) -> NoReturn:
    raise InvalidRequestError(f'"{key}" is not {expected}')


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise InvalidRequestError("a key stands twice in one JSON object")
    return body


def _refuse_constant(text: str) -> NoReturn:
    raise InvalidRequestError(f"{text} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
