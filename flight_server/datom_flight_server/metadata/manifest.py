"""A project's manifest in git: the rows of all artifacts and the sums over them, as one write changes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datom_flight.protocol.errors import DatomError

from ..model import Kind
from . import jsonlite, layout

MANIFEST_PATH = ".datom/manifest.json"
"""Where git has it."""

_FIELDS = frozenset({"schema_version", "project_name", "artifacts", "tables", "summary", "updated_at"})
_ROW_FIELDS = frozenset(
    {
        "kind",
        "current_version",
        "current_data_sha",
        "last_updated",
        "size_bytes",
        "member_count",
        "version_count",
        "original_file_sha",
        "original_format",
    }
)


def new_manifest(project: str, created_at: str) -> dict[str, Any]:
    """The manifest of a project that holds nothing yet."""
    return {
        "schema_version": layout.SUPPORTED_SCHEMA,
        "project_name": project,
        "artifacts": {},
        "summary": {"total_tables": 0, "total_size_bytes": 0, "total_versions": 0, "total_sets": 0},
        "updated_at": created_at,
    }


def parse_for_writing(data: bytes) -> dict[str, Any]:
    """The manifest in `data`, to be changed and written again; the form of R datom 0.1.1 is converted, keys in place.

    Raises:
        DatomError: ``manifest_unreadable``, ``schema_invalid`` or ``schema_unsupported``, the last also for a field
            that this release does not know, since it could not keep it true.
    """
    layout.parse_manifest(data, MANIFEST_PATH)
    manifest = _converted(jsonlite.parse(data))
    refuse_unknown_fields(manifest, _FIELDS, "the manifest")
    for name, row in manifest["artifacts"].items():
        if not isinstance(row, dict):
            raise DatomError.of("manifest_unreadable", f'the row of "{name}" in the manifest is not a JSON object')
        refuse_unknown_fields(row, _ROW_FIELDS, f'the manifest\'s row of "{name}"')
    return manifest


def with_row(manifest: Mapping[str, Any], name: str, row: Mapping[str, Any], updated_at: str) -> dict[str, Any]:
    """`manifest` with the row of `name` replaced where it stands, or added last, and its sums made anew."""
    artifacts = {**manifest["artifacts"], name: row}
    return {**manifest, "artifacts": artifacts, "summary": _summary(artifacts), "updated_at": updated_at}


def refuse_unknown_fields(document: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    """Return when every field of `document` is known.

    Raises:
        DatomError: ``schema_unsupported``, naming those that are not.
    """
    unknown = sorted(document.keys() - known)
    if unknown:
        named = ", ".join(f'"{field[:80]}"' for field in unknown[:10])
        raise DatomError.of(
            "schema_unsupported",
            f"{what} has fields that this release does not know and could not keep true: {named}",
            hint="a newer release wrote it: upgrade the server before writing to this project",
            fields={"fields": unknown[:100]},
        )


def _converted(manifest: dict[str, Any]) -> dict[str, Any]:
    if "artifacts" in manifest:
        rows = manifest["artifacts"] or {}
        return {**manifest, "artifacts": rows}
    converted = {"artifacts" if key == "tables" else key: value for key, value in manifest.items()}
    rows = converted["artifacts"] or {}
    converted["artifacts"] = {
        name: {"kind": Kind.TABLE.value, **row} if isinstance(row, dict) else row for name, row in rows.items()
    }
    return {**converted, "schema_version": layout.SUPPORTED_SCHEMA}


def _summary(artifacts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    tables = [row for row in artifacts.values() if row.get("kind", Kind.TABLE.value) == Kind.TABLE.value]
    return {
        "total_tables": len(tables),
        "total_size_bytes": sum(row.get("size_bytes") or 0 for row in tables),
        "total_versions": sum(row.get("version_count") or 0 for row in tables),
        "total_sets": sum(row.get("kind") == Kind.SET.value for row in artifacts.values()),
    }
