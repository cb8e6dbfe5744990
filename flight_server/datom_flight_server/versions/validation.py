"""Whether what a project records and what it stores agree."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datom_flight.protocol.errors import DatomError, NotFoundError

from ..metadata import layout
from ..metadata.identity import expected_version
from ..metadata.layout import HistoryEntry, ManifestRow
from ..model import Kind, TableVersion
from .catalog import Catalog


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: of which table and version (None: of the whole project, or of every version), and how it ended."""

    table: str | None
    version: str | None
    check: str
    ok: bool
    detail: str


def findings(catalog: Catalog, name: str | None = None) -> Iterator[Finding]:
    """Every check of a project, or of its table or set `name`, as it is made.

    ``manifest``: the manifest's row agrees with the documents. ``metadata``: the current document is readable and
    hashes to the version it is of. ``history``: the history is readable. For each version, ``snapshot``: its document
    is there and hashes to its id; ``payload``: its stored bytes hash to what is recorded.

    Raises:
        DatomError: ``manifest_unreadable`` and the storage's errors where not even the list can be had, or
            ``not_found`` when the project has no `name`.
    """
    rows = catalog.manifest().rows
    if name is not None and name not in rows:
        raise NotFoundError(f'no table or set "{name}" in the manifest of project "{catalog.project.name}"')
    for row in rows.values() if name is None else [rows[name]]:
        yield from _artifact(catalog, row)


def _artifact(catalog: Catalog, row: ManifestRow) -> Iterator[Finding]:
    try:
        history = catalog.history(row.name)
        document = catalog.metadata(row.name)
        kind = Kind(row.kind)
        current = catalog.resolve(row.name, kind)
    except ValueError:
        yield Finding(row.name, None, "manifest", False, f'kind "{row.kind}" is not known')
        return
    except DatomError as error:
        yield Finding(row.name, None, "metadata", False, str(error))
        return
    yield Finding(row.name, None, "history", bool(history), f"{len(history)} versions")
    yield _agreement(row, current, history)
    # a revert between versions of the same values leaves the document of one where the history names the other
    same_values = {entry.version for entry in history if entry.data_sha == current.data_sha}
    yield _identity(row.name, current.version, "metadata", document, same_values)
    for entry in history:
        yield from _version(catalog, row.name, kind, entry)


def _agreement(row: ManifestRow, current: TableVersion, history: tuple[HistoryEntry, ...]) -> Finding:
    wrong = [
        f"{what} is {listed} in the manifest and {recorded} in the documents"
        for what, listed, recorded in (
            ("data_sha", row.data_sha, current.data_sha),
            ("version count", row.versions, len(history)),
        )
        if listed != recorded
    ]
    if row.version not in {entry.version for entry in history}:
        wrong.append(f"version {row.version} of the manifest is not in the history")
    return Finding(row.name, current.version, "manifest", not wrong, "; ".join(wrong) or "agrees with the documents")


def _identity(
    name: str, version: str | None, check: str, document: Mapping[str, Any], accepted: Collection[str | None]
) -> Finding:
    actual = expected_version(document)
    if actual in accepted:
        return Finding(name, version, check, True, "hashes to its version")
    return Finding(name, version, check, False, f"hashes to {actual}, recorded as {version}")


def _version(catalog: Catalog, name: str, kind: Kind, entry: HistoryEntry) -> Iterator[Finding]:
    version = entry.version
    if version is None:
        yield Finding(name, None, "history", False, "an entry has no version")
        return
    try:
        snapshot = catalog.snapshot(name, version)
        if snapshot.get("data_sha") != entry.data_sha:
            detail = f"is of data_sha {snapshot.get('data_sha')}, the history says {entry.data_sha}"
            yield Finding(name, version, "snapshot", False, detail)
        else:
            yield _identity(name, version, "snapshot", snapshot, {version})
    except DatomError as error:
        yield Finding(name, version, "snapshot", False, str(error))
    try:
        yield _payload(catalog, catalog.resolve(name, kind, version))
    except DatomError as error:
        yield Finding(name, version, "payload", False, str(error))


def _payload(catalog: Catalog, found: TableVersion) -> Finding:
    # straight from the storage: what a cache holds says nothing about it
    digest = hashlib.sha256()
    for chunk in catalog.store.chunks(layout.payload_key(found.table, found.kind, found.data_sha)):
        digest.update(chunk)
    actual = digest.hexdigest()
    if found.object_sha is None:
        return Finding(
            found.table, found.version, "payload", True, f"no hash is recorded for it; its sha256 is {actual}"
        )
    if actual != found.object_sha:
        detail = f"its sha256 is {actual}, recorded is {found.object_sha}"
        return Finding(found.table, found.version, "payload", False, detail)
    return Finding(found.table, found.version, "payload", True, "matches its recorded hash")
