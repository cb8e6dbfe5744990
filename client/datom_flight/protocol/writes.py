"""Writes as they travel: the JSON command of a DoPut, the body of ``datom.write_set``, and the receipt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from .errors import InvalidRequestError
from .messages import decode_object, encode_object, optional_text, required_name
from .names import is_full_version

MAX_MESSAGE_LENGTH = 10_000
MAX_PARENTS = 10_000

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORMAT = re.compile(r"[a-z0-9]{1,16}")
_PARENT_KEYS = ("source", "table", "version", "data_sha")


@dataclass(frozen=True, slots=True)
class Parent:
    """What a version was derived from.

    Attributes:
        source: the parent's project.
        version: a full id, or a prefix of one.
        data_sha: what the parent's must be; None is whatever the version has.
    """

    source: str
    table: str
    version: str
    data_sha: str | None = None

    @classmethod
    def from_object(cls, body: Any) -> Parent:
        """A parent as `datom.parents` gives it. Raises InvalidRequestError: ``invalid_argument``."""
        if not isinstance(body, Mapping):
            raise InvalidRequestError('"parents" is not a list of objects with source, table and version')
        for key in body:
            if key not in _PARENT_KEYS:
                raise InvalidRequestError(f'unknown key "{str(key)[:80]}" in a parent', hint=", ".join(_PARENT_KEYS))
        version = optional_text(body, "version")
        if version is None:
            raise InvalidRequestError('a parent has no "version"', hint="name the version that was used")
        return cls(
            required_name(body, "source"), required_name(body, "table"), version, optional_text(body, "data_sha")
        )


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """A new version of a table; the rows come with it.

    Attributes:
        message: of the commit; None is the format's own.
        metadata: kept as the document's ``custom``.
        parents: None records nothing about where the rows come from.
        expected: the full id that must be current, or ``""`` where the table must not exist yet; None is no condition.
        original_file_sha, original_format: sha256 and kind of the file an imported table was read from; both or none.
        end_record: the stream closes with a `WriteEnd`; one that ends without it was cut, and nothing is written.
            Flight closes a stream whose writer was dropped half way just like one that is whole.
    """

    project: str
    table: str
    message: str | None = None
    metadata: Mapping[str, Any] | None = None
    parents: tuple[Parent, ...] | None = None
    expected: str | None = None
    original_file_sha: str | None = None
    original_format: str | None = None
    end_record: bool = False

    @classmethod
    def from_json(cls, data: bytes) -> WriteRequest:
        """The request in a DoPut's command.

        Raises:
            InvalidRequestError: ``invalid_argument`` or ``invalid_name``, naming the key.
        """
        body = decode_object(data, "the write command", cls.__dataclass_fields__)
        file_sha, file_format = optional_text(body, "original_file_sha"), optional_text(body, "original_format")
        if (file_sha is None) != (file_format is None):
            raise InvalidRequestError("original_file_sha and original_format go together")
        if file_sha is not None and not _SHA256.fullmatch(file_sha):
            raise InvalidRequestError('"original_file_sha" is not 64 hex digits')
        if file_format is not None and not _FORMAT.fullmatch(file_format):
            raise InvalidRequestError('"original_format" is not an ending of a file, like "csv"')
        parents = _parents(body)
        if file_sha is not None and parents is not None:
            raise InvalidRequestError("an imported table has no parents", hint="leave out one of them")
        return cls(
            project=required_name(body, "project"),
            table=required_name(body, "table"),
            message=optional_message(body),
            metadata=_metadata(body),
            parents=parents,
            expected=optional_expected(body),
            original_file_sha=file_sha,
            original_format=file_format,
            end_record=_flag(body, "end_record"),
        )

    def to_json(self) -> bytes:
        """The bytes `from_json` reads; keys without a value are left out."""
        body = {name: getattr(self, name) for name in self.__dataclass_fields__}
        body["end_record"] = self.end_record or None
        if self.parents is not None:
            body["parents"] = [
                {key: getattr(parent, key) for key in _PARENT_KEYS if getattr(parent, key) is not None}
                for parent in self.parents
            ]
        return encode_object({key: value for key, value in body.items() if value is not None})


@dataclass(frozen=True, slots=True)
class WriteEnd:
    """What closes the stream of a write: how many rows it had."""

    rows: int

    def to_json(self) -> bytes:
        """The ``app_metadata`` of the last, empty batch."""
        return encode_object({"end": True, "rows": self.rows})

    @classmethod
    def from_json(cls, data: bytes) -> WriteEnd | None:
        """The record in a batch's ``app_metadata``, or None when it is something else."""
        try:
            body = decode_object(data, "the end record")
        except InvalidRequestError:
            return None
        rows = body.get("rows")
        return cls(rows) if body.get("end") is True and type(rows) is int else None


@dataclass(frozen=True, slots=True)
class WriteReceipt:
    """What a write did.

    Attributes:
        version: the version that is current now, whole.
        parquet_sha: sha256 of the stored payload; for a set, of its document.
        commit: of the data repository; None when nothing was written.
        action: ``full``, ``metadata_only`` or ``none``.
    """

    table: str
    version: str
    data_sha: str
    parquet_sha: str | None
    commit: str | None
    action: str

    def to_object(self) -> dict[str, Any]:
        """The receipt as it travels."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> Self:
        """The receipt in a decoded JSON object; keys of newer servers are passed over."""
        return cls(
            table=str(body.get("table")),
            version=str(body.get("version")),
            data_sha=str(body.get("data_sha")),
            parquet_sha=body.get("parquet_sha"),
            commit=body.get("commit"),
            action=str(body.get("action")),
        )


def optional_message(body: Mapping[str, Any]) -> str | None:
    """The commit message under ``message``, or None; raises InvalidRequestError."""
    message = optional_text(body, "message")
    if message is None:
        return None
    if len(message) > MAX_MESSAGE_LENGTH or "\0" in message:
        raise InvalidRequestError(f'"message" is over {MAX_MESSAGE_LENGTH} characters, or holds a NUL')
    return message


def optional_expected(body: Mapping[str, Any]) -> str | None:
    """The version under ``expected``: whole, or empty for a table that must not exist; raises InvalidRequestError."""
    expected = body.get("expected")
    if expected is None or expected == "":
        return expected
    if not isinstance(expected, str) or not is_full_version(expected):
        raise InvalidRequestError(
            '"expected" is not a whole version id', hint="give the id that `history` shows, or an empty text for none"
        )
    return expected


def _metadata(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    value = body.get("metadata")
    if value is not None and not isinstance(value, dict):
        raise InvalidRequestError('"metadata" is not a JSON object')
    return value


def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequestError(f'"{key}" is not true or false')
    return value is True


def _parents(body: Mapping[str, Any]) -> tuple[Parent, ...] | None:
    value = body.get("parents")
    if value is None:
        return None
    if not isinstance(value, list):
        raise InvalidRequestError('"parents" is not a list')
    if len(value) > MAX_PARENTS:
        raise InvalidRequestError(f'"parents" has {len(value)} entries, at most {MAX_PARENTS} are accepted')
    return tuple(Parent.from_object(parent) for parent in value)
