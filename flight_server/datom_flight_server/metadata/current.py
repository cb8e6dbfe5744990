"""What git's head says of one artifact, checked: nothing that this release does not understand is written over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datom_flight.protocol.errors import DatomError
from datom_flight.protocol.names import validate_name

from ..model import Kind
from . import jsonlite, layout
from .identity import expected_version
from .manifest import MANIFEST_PATH, parse_for_writing, refuse_unknown_fields

OBJECT_SHA = {Kind.TABLE: "parquet_sha", Kind.SET: "document_sha"}
"""The field that records the hash of the stored payload."""

_FIELDS = frozenset(
    {
        "schema_version",
        "kind",
        "data_sha",
        "hash_algo",
        "parquet_sha",
        "document_sha",
        "table_type",
        "nrow",
        "ncol",
        "colnames",
        "column_hashes",
        "created_at",
        "datom_version",
        "project",
        "original_file_sha",
        "original_format",
        "parents",
        "source_lineage",
        "size_bytes",
        "custom",
    }
)


def metadata_path(name: str) -> str:
    """Where git has the current document of `name`."""
    return f"{validate_name(name)}/metadata.json"


def history_path(name: str) -> str:
    """Where git has the list of all versions of `name`."""
    return f"{validate_name(name)}/version_history.json"


@dataclass(frozen=True, slots=True)
class Current:
    """What git's head says of one artifact, and of its project.

    Attributes:
        project: the name that the repository itself declares.
        manifest: in the newest form.
        metadata: None before the first write.
        history: newest first.
    """

    name: str
    project: str
    manifest: Mapping[str, Any]
    metadata: Mapping[str, Any] | None
    history: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, name: str, read: Callable[[str], bytes | None]) -> Current:
        """The documents of `name`; `read` gives the bytes at a path of git's head, or None.

        Raises:
            DatomError: ``manifest_unreadable`` (also when there is none), ``document_unreadable``,
                ``schema_invalid``, or ``schema_unsupported``: something in them is of a newer format.
        """
        found = read(MANIFEST_PATH)
        if found is None:
            raise DatomError.of(
                "manifest_unreadable",
                "the data repository has no manifest",
                hint="make the project with `datom-flight-server init`",
            )
        manifest = parse_for_writing(found)
        project = manifest.get("project_name")
        if not isinstance(project, str) or not project:
            raise DatomError.of("manifest_unreadable", f'"{MANIFEST_PATH}" names no project')
        return cls(
            name=name,
            project=project,
            manifest=manifest,
            metadata=_metadata(read(metadata_path(name)), metadata_path(name)),
            history=_history(read(history_path(name)), history_path(name)),
        )

    @property
    def version(self) -> str | None:
        """The current document's version; None before the first write."""
        return None if self.metadata is None else expected_version(self.metadata)

    @property
    def versions(self) -> tuple[str, ...]:
        """The ids of all versions, newest first."""
        return tuple(str(entry.get("version")) for entry in self.history)

    def refuse_kind_other_than(self, kind: Kind) -> None:
        """Return when the name is free, or belongs to an artifact of `kind`. Raises DatomError: ``kind_mismatch``."""
        row = self.manifest["artifacts"].get(self.name)
        for document in (self.metadata, row):
            found = kind.value if document is None else document.get("kind", Kind.TABLE.value)
            if found != kind.value:
                raise DatomError.of(
                    "kind_mismatch", f'"{self.name}" is a {found}, not a {kind.value}', hint="write under another name"
                )

    def object_sha(self, kind: Kind, data_sha: str) -> str | None:
        """The recorded hash of the payload at `data_sha`; None when no version records one."""
        field = OBJECT_SHA[kind]
        documents = ([] if self.metadata is None else [self.metadata]) + list(self.history)
        recorded = (document.get(field) for document in documents if document.get("data_sha") == data_sha)
        return next((sha for sha in recorded if isinstance(sha, str) and sha), None)


def _metadata(data: bytes | None, path: str) -> Mapping[str, Any] | None:
    if data is None:
        return None
    document = layout.parse_metadata(data, path).document
    if not document:
        raise DatomError.of("document_unreadable", f'"{path}" is not a JSON object')
    refuse_unknown_fields(document, _FIELDS, f'"{path}"')
    return document


def _history(data: bytes | None, path: str) -> tuple[Mapping[str, Any], ...]:
    if data is None:
        return ()
    layout.parse_history(data, path)
    entries = jsonlite.parse(data)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DatomError.of("document_unreadable", f'"{path}" is not a list of versions')
    return tuple(entries)
