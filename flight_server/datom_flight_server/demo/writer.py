"""Writing versions into the demo's project: git and storage, in an order that a reader never sees half of."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datom_flight.identity import HASH_ALGORITHM, data_sha

from ..metadata import layout
from ..metadata.identity import metadata_sha
from ..metadata.jsonlite import parse, pretty
from ..model import DataLocation, Kind
from .repository import AUTHOR, DemoRepository

DATOM_VERSION = "0.2.0"
"""The release of R datom whose format is written."""

MANIFEST_PATH = ".datom/manifest.json"


@dataclass(frozen=True, slots=True)
class DemoProject:
    """A project's two places: its git repository, and its folder of objects.

    Attributes:
        repository: the bare data repository.
        location: where its objects are.
    """

    name: str
    repository: Path
    location: DataLocation

    @property
    def objects(self) -> Path:
        """The ``datom`` folder itself."""
        return Path(self.location.root) / self.location.prefix / "datom"


def write_version(project: DemoProject, name: str, table: pa.Table, message: str, when: datetime) -> str:
    """Write `table` as the current version of `name`; the version's id.

    A version that is in the history already is not written again. The payload goes first, then the commit, then
    the documents, the manifest last: whoever reads meanwhile sees the version before or this one, whole.

    Raises:
        InvalidRequestError: ``invalid_name`` or ``not_hashable``.
    """
    repository = DemoRepository(project.repository)
    address = data_sha(table)
    payload = project.objects / layout.payload_key(name, Kind.TABLE, address)
    if not payload.exists():
        put(payload, _parquet(table))
    # What is recorded is the stored object's hash: the same values can make other parquet bytes.
    document = _metadata(project.name, table, address, payload.read_bytes(), utc_text(when))
    version = metadata_sha(document)
    history = versions(project, name)
    if version not in [entry["version"] for entry in history]:
        history = [_history_entry(document, version, message), *history]
        artifacts = _document(repository, MANIFEST_PATH)["artifacts"]
        artifacts[name] = _manifest_row(document, version, len(history))
        files = {
            f"{name}/metadata.json": pretty(document),
            f"{name}/version_history.json": pretty(history),
            MANIFEST_PATH: pretty(manifest(project.name, artifacts, utc_text(when))),
        }
        repository.commit(files, message, when)
    mirror(project)
    return version


def versions(project: DemoProject, name: str) -> list[dict[str, Any]]:
    """The history of `name` as git has it, newest first; empty before the first version."""
    history: list[dict[str, Any]] = _document(DemoRepository(project.repository), f"{name}/version_history.json", [])
    return history


def mirror(project: DemoProject) -> None:
    """Bring the storage's documents to what git says; those that say it already are left alone."""
    repository = DemoRepository(project.repository)
    for name in _document(repository, MANIFEST_PATH)["artifacts"]:
        history_path = project.objects / layout.history_key(name)
        mirrored = parse(history_path.read_bytes()) if history_path.exists() else []
        commits = {entry["version"]: entry["commit_sha"] for entry in mirrored}
        # Only the newest commit's version can be missing: each is mirrored before the next is committed.
        history = [
            {**entry, "commit_sha": commits.get(entry["version"], repository.head)} for entry in versions(project, name)
        ]
        current = repository.read(f"{name}/metadata.json") or b""
        put(project.objects / layout.snapshot_key(name, history[0]["version"]), current)
        put(history_path, pretty(history))
        put(project.objects / layout.metadata_key(name), current)
    put(project.objects / layout.MANIFEST_KEY, repository.read(MANIFEST_PATH) or b"")


def manifest(project: str, artifacts: Mapping[str, Mapping[str, Any]], updated_at: str) -> dict[str, Any]:
    """The manifest document over `artifacts`, which are in first-write order."""
    return {
        "schema_version": layout.SUPPORTED_SCHEMA,
        "project_name": project,
        "artifacts": artifacts,
        "summary": {
            "total_tables": len(artifacts),
            "total_size_bytes": sum(row["size_bytes"] for row in artifacts.values()),
            "total_versions": sum(row["version_count"] for row in artifacts.values()),
            "total_sets": 0,
        },
        "updated_at": updated_at,
    }


def utc_text(when: datetime) -> str:
    """An instant as documents have it; `when` bears a zone."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def put(path: Path, content: bytes | pa.Buffer) -> None:
    """Make `path` hold `content`, at once or not at all, even if the machine stops."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _metadata(project: str, table: pa.Table, address: str, payload: bytes, created_at: str) -> dict[str, Any]:
    return {
        "schema_version": layout.SUPPORTED_SCHEMA,
        "kind": Kind.TABLE.value,
        "data_sha": address,
        "hash_algo": HASH_ALGORITHM,
        "parquet_sha": hashlib.sha256(payload).hexdigest(),
        "table_type": "derived",
        "nrow": table.num_rows,
        "ncol": table.num_columns,
        "colnames": tuple(table.column_names),
        "created_at": created_at,
        "datom_version": DATOM_VERSION,
        "project": project,
        "size_bytes": len(payload),
    }


def _history_entry(document: Mapping[str, Any], version: str, message: str) -> dict[str, Any]:
    name, email = AUTHOR
    return {
        "version": version,
        "data_sha": document["data_sha"],
        "timestamp": document["created_at"],
        "author": {"name": name, "email": email},
        "commit_message": message,
        "parquet_sha": document["parquet_sha"],
    }


def _manifest_row(document: Mapping[str, Any], version: str, version_count: int) -> dict[str, Any]:
    return {
        "kind": document["kind"],
        "current_version": version,
        "current_data_sha": document["data_sha"],
        "last_updated": document["created_at"],
        "size_bytes": document["size_bytes"],
        "version_count": version_count,
    }


def _document(repository: DemoRepository, path: str, absent: Any = None) -> Any:
    found = repository.read(path)
    return absent if found is None else parse(found)


def _parquet(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", use_dictionary=True, write_statistics=True, store_schema=True)
    return sink.getvalue()
