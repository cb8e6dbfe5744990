"""Stores made on the spot: a few tables with a few versions each, in the format, for tests that need their own data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datom_flight.identity import data_sha
from datom_flight_server.metadata.identity import metadata_sha

FIRST_DAY = "2026-{month:02d}-01T12:00:00Z"


def write_store(root: Path, tables: Mapping[str, Sequence[pa.Table]], **parquet: Any) -> dict[str, list[str]]:
    """A store under `root` in which ``tables[name]`` are the versions of `name`, oldest first.

    Version n of every table is of noon on the first of month n, 2026. `parquet` goes to the parquet writer. A table
    without rows, which R never writes, has a `data_sha` that names its bytes.

    Returns:
        The version ids of each table, oldest first.
    """
    data = root / "datom"
    rows: dict[str, Any] = {}
    ids: dict[str, list[str]] = {}
    for name, versions in tables.items():
        for table in versions:
            add_version(root, name, table, **parquet)
        history = json.loads((data / name / ".metadata" / "version_history.json").read_text())
        ids[name] = [entry["version"] for entry in reversed(history)]
        rows[name] = _manifest_row(data, name, history)
    _write(data / ".metadata" / "manifest.json", _manifest(rows))
    return ids


def add_version(root: Path, name: str, table: pa.Table, **parquet: Any) -> str:
    """One more version of `name`, which becomes its current one; the manifest is left as it is."""
    folder = root / "datom" / name
    documents = folder / ".metadata"
    documents.mkdir(parents=True, exist_ok=True)
    fresh = folder / "fresh.parquet"
    pq.write_table(table, fresh, **parquet)
    parquet_sha = _sha256(fresh.read_bytes())
    values_sha = data_sha(table) if table.num_rows else _sha256(b"no rows: " + parquet_sha.encode())
    fresh.rename(folder / f"{values_sha}.parquet")
    history_path = documents / "version_history.json"
    history = json.loads(history_path.read_text()) if history_path.exists() else []
    created_at = FIRST_DAY.format(month=len(history) + 1)
    metadata = {
        "schema_version": 2,
        "kind": "table",
        "data_sha": values_sha,
        "hash_algo": "datom-cv1",
        "parquet_sha": parquet_sha,
        "table_type": "derived",
        "nrow": table.num_rows,
        "ncol": table.num_columns,
        "colnames": table.column_names if table.num_columns != 1 else table.column_names[0],
        "created_at": created_at,
        "datom_version": "0.2.0",
        "project": "TEST",
        "size_bytes": (folder / f"{values_sha}.parquet").stat().st_size,
    }
    version = metadata_sha(metadata)
    entry = {
        "version": version,
        "data_sha": values_sha,
        "timestamp": created_at,
        "author": {"name": "Ann", "email": "ann@example.org"},
        "commit_message": f"Update {name}",
        "parquet_sha": parquet_sha,
        "commit_sha": _sha256(version.encode())[:40],
    }
    _write(documents / f"{version}.json", metadata)
    _write(history_path, [entry, *history])
    _write(documents / "metadata.json", metadata)
    return version


def _manifest_row(data: Path, name: str, history: list[dict[str, Any]]) -> dict[str, Any]:
    newest = history[0]
    return {
        "kind": "table",
        "current_version": newest["version"],
        "current_data_sha": newest["data_sha"],
        "last_updated": newest["timestamp"],
        "size_bytes": (data / name / f"{newest['data_sha']}.parquet").stat().st_size,
        "version_count": len(history),
    }


def _manifest(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "schema_version": 2,
        "project_name": "TEST",
        "artifacts": rows,
        "summary": {
            "total_tables": len(rows),
            "total_size_bytes": sum(row["size_bytes"] for row in rows.values()),
            "total_versions": sum(row["version_count"] for row in rows.values()),
            "total_sets": 0,
        },
        "updated_at": max((row["last_updated"] for row in rows.values()), default=None),
    }


def _write(path: Path, body: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
    fresh.rename(path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
