"""What names a version (metadata_sha) and a set's contents (``datom-sv1``): hashes over documents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from datom_flight.protocol.errors import InvalidRequestError

from . import jsonlite

SET_HASH_ALGORITHM = "datom-sv1"

_IDENTITY_FIELDS = frozenset(
    {
        "colnames",
        "custom",
        "data_sha",
        "hash_algo",
        "kind",
        "ncol",
        "nrow",
        "original_file_sha",
        "parents",
        "source_lineage",
        "table_type",
    }
)
_SCHEMA_1_OTHER_FIELDS = frozenset({"column_hashes", "created_at", "datom_version", "parquet_sha", "size_bytes"})


def metadata_sha(document: Mapping[str, Any]) -> str:
    """The version that R datom 0.2.0 gives a metadata document: values and meaning, not when or by what written."""
    return _sha_of_fields(document, _IDENTITY_FIELDS.intersection(document))


def schema_1_metadata_sha(document: Mapping[str, Any]) -> str:
    """The version that R datom 0.1.1 gave a metadata document: every field but those about the writing."""
    return _sha_of_fields(document, document.keys() - _SCHEMA_1_OTHER_FIELDS)


def expected_version(document: Mapping[str, Any]) -> str:
    """The version a stored document must bear: by its ``schema_version``, 0.1.1's rule (absent, or 1) or 0.2.0's."""
    if document.get("schema_version", 1) == 1:
        return schema_1_metadata_sha(document)
    return metadata_sha(document)


def set_data_sha(payload: Mapping[str, Any]) -> str:
    """The ``datom-sv1`` hash of a set payload; order and duplicates of members and of tag values do not matter.

    Raises:
        InvalidRequestError: ``set_member_malformed`` or ``set_payload_malformed`` when it has no such form.
    """
    members = payload.get("members")
    if not isinstance(members, list):
        raise InvalidRequestError("a set's members are not a list", code="set_payload_malformed")
    digests = sorted({_member(member) for member in members})
    whole = _digest(5, _map(payload.get("tags")), *digests)
    return _digest(6, SET_HASH_ALGORITHM.encode(), whole).hex()


def _sha_of_fields(document: Mapping[str, Any], names: Iterable[str]) -> str:
    return hashlib.sha256(jsonlite.compact({name: document[name] for name in sorted(names)})).hexdigest()


def _member(member: Any) -> bytes:
    if not isinstance(member, Mapping) or not isinstance(member.get("id"), Mapping):
        raise InvalidRequestError("a member of a set has no id", code="set_member_malformed")
    return _digest(4, _map(member["id"]), _map(member.get("tags")))


def _map(entries: Any) -> bytes:
    if entries is None:
        entries = {}
    if not isinstance(entries, Mapping):
        raise InvalidRequestError("the tags of a set are not an object", code="set_payload_malformed")
    return _digest(3, *(part for key in sorted(entries) for part in (_text(key), _texts(entries[key]))))


def _texts(value: Any) -> bytes:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) for text in values):
        raise InvalidRequestError("a tag is neither a text nor a list of texts", code="set_payload_malformed")
    return _digest(2, *(_text(text) for text in sorted(set(values))))


def _text(text: str) -> bytes:
    return _digest(1, text.encode())


def _digest(level: int, *parts: bytes) -> bytes:
    return hashlib.sha256(bytes([level]) + b"".join(parts)).digest()
