"""``projects/{project}/ref.json``: where a governed project's data is, and where it was."""

from __future__ import annotations

import json
import os
from typing import Any

from datom_flight.protocol.errors import StoredDataError

from ..model import DataLocation, PreviousLocation, Project, S3Access


def parse_reference(name: str, data: bytes) -> Project:
    """The project that `data`, the text of its ref.json, describes. How to authenticate is never in it.

    Raises:
        StoredDataError: ``document_unreadable`` or ``metadata_corrupt``.
    """
    document = f'ref.json of project "{name}"'
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise StoredDataError(f"{document} is not JSON", code="document_unreadable") from None
    if not isinstance(found, dict):
        raise StoredDataError(f"{document} is not a JSON object", code="document_unreadable")
    current = _record(found.get("current"), f'"current" of {document}')
    previous = found.get("previous") or []
    if not isinstance(previous, list):
        raise StoredDataError(f'"previous" of {document} is not a list')
    return Project(
        name=name,
        location=_location(current, f'"current" of {document}'),
        access=S3Access(region=_text(current.get("region"))),
        governed=True,
        previous=tuple(_previous(place, f'"previous" of {document}') for place in previous),
    )


def _previous(value: Any, what: str) -> PreviousLocation:
    place = _record(value, what)
    return PreviousLocation(_location(place, what), _text(place.get("migrated_at")), _text(place.get("sunset_at")))


def _location(place: dict[str, Any], what: str) -> DataLocation:
    backend, root, prefix = place.get("type"), _text(place.get("root")), place.get("prefix")
    if backend not in ("local", "s3"):
        raise StoredDataError(f'{what} has no type "local" or "s3"')
    if root is None:
        raise StoredDataError(f"{what} has no root")
    if backend == "local" and not os.path.isabs(root):
        raise StoredDataError(f"the local root in {what} is not an absolute path")
    if prefix is not None and not isinstance(prefix, str):
        raise StoredDataError(f"the prefix in {what} is not a text")
    return DataLocation(backend, root, (prefix or "").strip("/"))


def _record(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StoredDataError(f"{what} is not a record")
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
