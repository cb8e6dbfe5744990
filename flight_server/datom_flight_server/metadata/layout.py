"""Every path of the storage format, and every document parsed into a value.

Parsing is as strict as R datom 0.2.0 where it is strict and as lenient where it is lenient: a reader must accept all
that R accepts, and refuse what R refuses with the same code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from datom_flight.protocol.errors import DatomError
from datom_flight.protocol.names import validate_name

from ..model import Kind
from . import jsonlite

SUPPORTED_SCHEMA = 2

MANIFEST_KEY = ".metadata/manifest.json"
GOVERNANCE_KEY = ".metadata/governance.json"

_ADDRESS = re.compile(r"[0-9a-f]{6,64}")
_MEMBER_ID_FIELDS = ("project", "name", "kind", "version")


def metadata_key(name: str) -> str:
    """Where the current version's document of `name` is."""
    return f"{validate_name(name)}/.metadata/metadata.json"


def history_key(name: str) -> str:
    """Where the list of all versions of `name` is."""
    return f"{validate_name(name)}/.metadata/version_history.json"


def snapshot_key(name: str, version: str) -> str:
    """Where the document of one version of `name` is."""
    return f"{validate_name(name)}/.metadata/{_address(version, 'version')}.json"


def payload_key(name: str, kind: Kind, data_sha: str) -> str:
    """Where the payload with address `data_sha` is: parquet for a table, JSON for a set.

    Raises:
        DatomError: ``invalid_address`` when `data_sha` is not 6 to 64 hex digits.
    """
    ending = "parquet" if kind is Kind.TABLE else "json"
    return f"{validate_name(name)}/{_address(data_sha, 'data_sha')}.{ending}"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One row of version_history.json, as recorded; what is missing or malformed is None."""

    version: str | None
    data_sha: str | None
    parquet_sha: str | None
    document_sha: str | None
    timestamp: str | None
    author: str | None
    message: str | None
    commit: str | None

    def object_sha(self, kind: Kind) -> str | None:
        """The recorded hash of the stored payload."""
        return self.parquet_sha if kind is Kind.TABLE else self.document_sha


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a read needs of a metadata document.

    Attributes:
        document: the whole document; empty when it is not an object.
        kind: what it says it is; a text this release does not know is kept.
        data_sha: None when it records none.
    """

    document: Mapping[str, Any]
    kind: str
    data_sha: str | None
    parquet_sha: str | None
    document_sha: str | None
    created_at: str | None

    def object_sha(self, kind: Kind) -> str | None:
        """The recorded hash of the stored payload."""
        return self.parquet_sha if kind is Kind.TABLE else self.document_sha


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One artifact in the manifest; what is missing is None."""

    name: str
    kind: str
    version: str | None
    data_sha: str | None
    last_updated: str | None
    size_bytes: int | None
    versions: int | None
    original_file_sha: str | None
    original_format: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A project's list of artifacts, in first-write order."""

    project: str | None
    rows: Mapping[str, ManifestRow]
    updated_at: str | None


@dataclass(frozen=True, slots=True)
class SetPayload:
    """A set's labels and members: ``{"id": {kind, name, project, version}, "tags"?: {…}}`` in stored order."""

    tags: Mapping[str, Any] | None
    members: tuple[Mapping[str, Any], ...]


def parse_metadata(data: bytes, key: str) -> Metadata:
    """The metadata document in `data`; `key` names it in errors.

    Raises:
        DatomError: ``document_unreadable``, ``schema_invalid`` or ``schema_unsupported``.
    """
    found = _json(data, key)
    _schema_version(found, key)
    document = found if isinstance(found, dict) else {}
    kind = document.get("kind")
    return Metadata(
        document=document,
        kind=Kind.TABLE.value if kind is None else str(kind),
        data_sha=_present(document.get("data_sha"), key),
        parquet_sha=_text(document.get("parquet_sha")),
        document_sha=_text(document.get("document_sha")),
        created_at=_text(document.get("created_at")),
    )


def parse_history(data: bytes, key: str) -> tuple[HistoryEntry, ...]:
    """The versions in `data`, newest first; a document that is no list has none.

    Raises:
        DatomError: ``document_unreadable``.
    """
    found = _json(data, key)
    return tuple(_history_entry(row) for row in found if isinstance(row, dict)) if isinstance(found, list) else ()


def parse_manifest(data: bytes, key: str = MANIFEST_KEY) -> Manifest:
    """The manifest in `data`; an older form is converted in memory.

    Raises:
        DatomError: ``manifest_unreadable``, ``schema_invalid`` or ``schema_unsupported``.
    """
    try:
        found = _json(data, key)
    except DatomError as error:
        raise DatomError.of("manifest_unreadable", error.message) from None
    _schema_version(found, key)
    artifacts = found.get("artifacts", found.get("tables")) if isinstance(found, dict) else None
    # jsonlite writes R's empty list as []
    if artifacts == []:
        artifacts = {}
    if not isinstance(artifacts, dict):
        raise DatomError.of("manifest_unreadable", f'"{key}" has no list of artifacts')
    return Manifest(
        project=_text(found.get("project_name")),
        rows={name: _manifest_row(name, row) for name, row in artifacts.items()},
        updated_at=_text(found.get("updated_at")),
    )


def parse_set(data: bytes, name: str) -> SetPayload:
    """The set payload in `data`, of the set `name`. Labels become lists of text, whichever form they are stored in.

    Raises:
        DatomError: ``document_unreadable``, ``set_payload_malformed`` or ``set_member_malformed``.
    """
    found = _json(data, f"payload of {name}")
    if not isinstance(found, dict):
        raise DatomError.of("set_payload_malformed", f'the payload of set "{name}" is not a JSON object')
    members = found.get("members")
    if not isinstance(members, list):
        raise DatomError.of("set_payload_malformed", f'the members of set "{name}" are not a list')
    return SetPayload(
        tags=_tags(found.get("tags")),
        members=tuple(_member(member, index, name) for index, member in enumerate(members)),
    )


def parse_timestamp(text: str | None) -> datetime | None:
    """The instant a document's timestamp names, in UTC; None when it names none."""
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _json(data: bytes, key: str) -> Any:
    try:
        return jsonlite.parse(data)
    except (ValueError, RecursionError):
        raise DatomError.of("document_unreadable", f'"{key}" is not JSON') from None


def _schema_version(document: Any, key: str) -> None:
    declared = document.get("schema_version") if isinstance(document, dict) else None
    if declared is None:
        return
    # bool is an int to Python and not a number to R
    number = isinstance(declared, (int, float)) and not isinstance(declared, bool)
    if not number or not (declared >= 1 and float(declared).is_integer()):
        raise DatomError.of(
            "schema_invalid",
            f'schema_version of "{key}" is {json.dumps(declared)[:80]}, expected a whole number from 1',
        )
    if declared > SUPPORTED_SCHEMA:
        raise DatomError.of(
            "schema_unsupported",
            f'"{key}" declares schema_version {int(declared)}, this server reads up to {SUPPORTED_SCHEMA}',
        )


def _address(value: str, what: str) -> str:
    if not _ADDRESS.fullmatch(value):
        shown = value[:80].encode("unicode_escape").decode("ascii")
        raise DatomError.of("invalid_address", f'{what} "{shown}" is not 6 to 64 hex digits')
    return value


def _present(value: Any, key: str) -> str | None:
    """A recorded address as text. One that is not text at all can be no address."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DatomError.of("invalid_address", f'data_sha of "{key}" is {json.dumps(value)[:80]}, expected text')
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _author(value: Any) -> str | None:
    if isinstance(value, dict):
        return f"{value.get('name', '')} <{value.get('email', '')}>"
    return _text(value)


def _history_entry(row: Mapping[str, Any]) -> HistoryEntry:
    return HistoryEntry(
        version=_text(row.get("version")),
        data_sha=_text(row.get("data_sha")),
        parquet_sha=_text(row.get("parquet_sha")),
        document_sha=_text(row.get("document_sha")),
        timestamp=_text(row.get("timestamp")),
        author=_author(row.get("author")),
        message=_text(row.get("commit_message")),
        commit=_text(row.get("commit_sha")),
    )


def _manifest_row(name: str, row: Any) -> ManifestRow:
    row = row if isinstance(row, dict) else {}
    return ManifestRow(
        name=name,
        kind=_text(row.get("kind")) or Kind.TABLE.value,
        version=_text(row.get("current_version")),
        data_sha=_text(row.get("current_data_sha")),
        last_updated=_text(row.get("last_updated")),
        size_bytes=_count(row.get("size_bytes")),
        versions=_count(row.get("version_count")),
        original_file_sha=_text(row.get("original_file_sha")),
        original_format=_text(row.get("original_format")),
    )


def _member(member: Any, index: int, name: str) -> Mapping[str, Any]:
    def malformed(why: str) -> DatomError:
        return DatomError.of("set_member_malformed", f'member {index + 1} of set "{name}" {why}')

    if not isinstance(member, dict) or not member:
        raise malformed("is not a record")
    stored = member.get("id")
    if not isinstance(stored, dict) or not stored:
        raise malformed("has no id")
    identity = {field: _unboxed(stored.get(field)) for field in _MEMBER_ID_FIELDS}
    for field, value in identity.items():
        if _text(value) is None:
            raise malformed(f"has no {field} in its id")
    return {"id": identity, "tags": _tags(member["tags"])} if "tags" in member else {"id": identity}


def _unboxed(value: Any) -> Any:
    # R reads a list of one text as that text
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _tags(tags: Any) -> Any:
    if not isinstance(tags, dict):
        return tags
    return {label: [value] if isinstance(value, str) else value for label, value in tags.items()}
