"""Projects on the disk, written by the server's own code: its spool, its parquet, its documents."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from datom_flight_server.metadata import layout
from datom_flight_server.metadata.current import Current
from datom_flight_server.metadata.documents import Change, TableWrite, plan_table, storage_documents, utc_text
from datom_flight_server.metadata.git import Author
from datom_flight_server.metadata.jsonlite import parse, pretty
from datom_flight_server.metadata.manifest import MANIFEST_PATH, new_manifest
from datom_flight_server.model import Kind
from datom_flight_server.versions.arrivals import Limits
from datom_flight_server.versions.spool import Spool

_FOUNDED = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
_AUTHOR = Author("Dana Engineer", "dana@acme.example")
_LIMITS = Limits(max_bytes=10**11, max_rows=10**9, max_seconds=3600)


class ProjectStore:
    """A project's storage, without a data repository; its versions are an hour apart.

    Args:
        place: the root of the storage: a folder, or the folder behind a bucket.
        spool: where tables are kept until they are written; on the file system of `place`.
    """

    def __init__(self, place: Path, project: str, spool: Path) -> None:
        self._data = place / "datom"
        self._spool = Spool(spool, _LIMITS)
        self._now = _FOUNDED
        self._commits: dict[str, str] = {}
        self._git = {MANIFEST_PATH: pretty(new_manifest(project, utc_text(_FOUNDED)))}

    def add(self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], versions: int = 1) -> None:
        """The table `name`, with so many versions: of the same values, each but the first with another meaning."""
        with self._spool.receive(schema, batches) as spooled:
            data_sha, encoded = spooled.identify()
            payload = self._data / layout.payload_key(name, Kind.TABLE, data_sha)
            payload.parent.mkdir(parents=True, exist_ok=True)
            encoded.path.replace(payload)
            write = TableWrite(data_sha, encoded.parquet_sha, encoded.size_bytes, spooled.rows, tuple(schema.names))
        for number in range(versions):
            self._commit(name, replace(write, custom={"cut": number + 1}))

    def repeat(self, name: str, copies: Iterable[str]) -> None:
        """More tables, each with the values and versions of `name`."""
        manifest = parse(self._git[MANIFEST_PATH])
        rows = manifest["artifacts"]
        for copy in copies:
            _link_tree(self._data / name, self._data / copy)
            rows[copy] = rows[name]
        manifest["summary"] |= {
            "total_tables": len(rows),
            "total_size_bytes": sum(row["size_bytes"] for row in rows.values()),
            "total_versions": sum(row["version_count"] for row in rows.values()),
        }
        self._put(layout.MANIFEST_KEY, pretty(manifest))

    def _commit(self, name: str, write: TableWrite) -> None:
        self._now += timedelta(hours=1)
        plan = plan_table(Current.read(name, self._git.get), write, Change(_AUTHOR, self._now))
        self._git.update(plan.files)
        self._commits[plan.version] = plan.version[:40]
        for key, document in storage_documents(name, self._git.get, self._commits).items():
            self._put(key, document)

    def _put(self, key: str, document: bytes) -> None:
        path = self._data / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(document)


def _link_tree(source: Path, target: Path) -> None:
    for folder, _, files in os.walk(source):
        made = target / Path(folder).relative_to(source)
        made.mkdir(parents=True)
        for file in files:
            (made / file).hardlink_to(Path(folder) / file)
