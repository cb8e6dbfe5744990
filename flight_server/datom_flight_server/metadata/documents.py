"""The documents that one write makes: what git gets in its commit, and what the storage mirrors of it.

Pure: from what git's head says and what is to be written, to bytes, as R datom 0.2.0 writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from datom_flight.identity import HASH_ALGORITHM
from datom_flight.protocol.errors import DatomError

from ..model import Kind
from . import jsonlite, layout
from .current import OBJECT_SHA, Current, history_path, metadata_path
from .git import Author
from .identity import metadata_sha
from .manifest import MANIFEST_PATH, with_row

DATOM_VERSION = "0.2.0"
"""The release of R datom whose documents these are."""


class Action(Enum):
    """What a write changes."""

    NONE = "none"
    METADATA_ONLY = "metadata_only"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Change:
    """Who writes, when and why.

    Attributes:
        when: bears a zone.
        message: of the commit; the history records what stands before its first empty line. None is the format's own.
    """

    author: Author
    when: datetime
    message: str | None = None


@dataclass(frozen=True, slots=True)
class TableWrite:
    """A table to be written.

    Attributes:
        parquet_sha: of the object that will be in storage at `data_sha`; what a version records already goes first.
        size_bytes: of that object.
        custom: the caller's own metadata; None and empty are the same.
        parents: ``{source, table, version, data_sha}`` each, in this order; None and empty are the same.
        source_lineage: the union of the parents' own (`lineage_union`); without parents it does not count.
        original_file_sha, original_format: of the file it was imported from; both or none.
    """

    data_sha: str
    parquet_sha: str
    size_bytes: int
    rows: int
    columns: tuple[str, ...]
    custom: Mapping[str, Any] | None = None
    parents: Sequence[Mapping[str, Any]] | None = None
    source_lineage: Sequence[Mapping[str, Any]] = ()
    original_file_sha: str | None = None
    original_format: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a write comes to.

    Attributes:
        version: the version that is current afterwards.
        object_sha: the recorded hash of the payload at `data_sha`; None where the version that is current already
            has these values and records none.
        reuses_object: whether some version has that payload already, so that nothing is to be uploaded.
        message: of the commit.
        files: for one commit, by path; empty when nothing changes.
    """

    action: Action
    version: str
    data_sha: str
    object_sha: str | None
    reuses_object: bool
    message: str
    files: Mapping[str, bytes]


def plan_table(current: Current, write: TableWrite, change: Change) -> Plan:
    """What writing `write` over `current` comes to.

    Raises:
        DatomError: ``kind_mismatch``; ``invalid_argument`` when ``custom`` or the message has no form in R.
    """
    current.refuse_kind_other_than(Kind.TABLE)
    document = _table_document(current, write, change.when)
    message = change.message or (
        f"Sync {current.name} ({'new' if current.metadata is None else 'changed'})"
        if write.original_file_sha
        else f"Update {current.name}"
    )
    return plan_document(current, document, {"size_bytes": document["size_bytes"]}, message, change)


def plan_document(
    current: Current, document: Mapping[str, Any], extent: Mapping[str, int], message: str, change: Change
) -> Plan:
    """What making `document` the current one comes to.

    Args:
        extent: how large the artifact is, in the manifest's word for its kind.
    """
    kind = Kind(document["kind"])
    data_sha = document["data_sha"]
    version = metadata_sha(document)
    reuses_object = current.object_sha(kind, data_sha) is not None
    if _is_unchanged(current, document, version):
        assert current.version is not None
        recorded = current.object_sha(kind, data_sha)
        return Plan(Action.NONE, current.version, data_sha, recorded, True, message, {})
    same_values = current.metadata is not None and current.metadata.get("data_sha") == data_sha
    history = list(current.history)
    files = {metadata_path(current.name): jsonlite.pretty(document)}
    if version not in current.versions:
        history.insert(0, _history_entry(document, kind, version, message, change.author))
        files[history_path(current.name)] = jsonlite.pretty(history)
    row = _manifest_row(document, version, extent, len(history))
    files[MANIFEST_PATH] = jsonlite.pretty(with_row(current.manifest, current.name, row, document["created_at"]))
    return Plan(
        action=Action.METADATA_ONLY if same_values else Action.FULL,
        version=version,
        data_sha=data_sha,
        object_sha=document.get(OBJECT_SHA[kind]),
        reuses_object=reuses_object or same_values,
        message=message,
        files=files,
    )


def storage_documents(name: str, read: Callable[[str], bytes | None], commits: Mapping[str, str]) -> dict[str, bytes]:
    """What the storage holds of the state that `read` gives, by key, in the order to write it: the manifest last.

    Args:
        read: the bytes at a path of one commit, or None.
        commits: the commit that each version came with, by version; unknown ones are left out.

    Raises:
        DatomError: as `Current.read`; ``metadata_corrupt`` when there is no such artifact.
    """
    current = Current.read(name, read)
    row = current.manifest["artifacts"].get(name)
    document, manifest = read(metadata_path(name)), read(MANIFEST_PATH)
    if row is None or document is None or manifest is None:
        raise DatomError.of("metadata_corrupt", f'the data repository has no "{name}" that could be mirrored')
    version = str(row.get("current_version"))
    return {
        layout.snapshot_key(name, version): document,
        layout.history_key(name): storage_history(current.history, commits),
        layout.metadata_key(name): document,
        layout.MANIFEST_KEY: manifest,
    }


def storage_history(history: Sequence[Mapping[str, Any]], commits: Mapping[str, str]) -> bytes:
    """The storage's copy of a history: as git has it, each version's commit added last where it is known."""
    rows = []
    for entry in history:
        commit = commits.get(str(entry.get("version")))
        rows.append(entry if commit is None else {**entry, "commit_sha": commit})
    return jsonlite.pretty(rows)


def version_commits(states: Iterable[tuple[str, bytes]], wanted: Collection[str]) -> dict[str, str]:
    """The commit that each version of `wanted` came with; versions that never came are left out.

    Args:
        states: commits that changed a history, newest first, each with the history as it left it. No more of them
            are asked for once all of `wanted` are found.
    """
    found: dict[str, str] = {}
    missing = set(wanted)
    commit, present = "", set[str]()
    for earlier, data in states:
        before = {str(entry.version) for entry in layout.parse_history(data, f"history of {earlier}")}
        found |= dict.fromkeys((present - before) & missing, commit)
        missing -= found.keys()
        if not missing:
            return found
        commit, present = earlier, before
    return found | dict.fromkeys(present & missing, commit)


def lineage_union(*lineages: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """The sources that parents have between them, each once, in the order they are first met."""
    union: list[Mapping[str, Any]] = []
    for lineage in lineages:
        union += (source for source in lineage or () if source not in union)
    return union


def utc_text(when: datetime) -> str:
    """An instant as documents have it; `when` bears a zone."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_document(project: str, kind: Kind, identity: Mapping[str, Any], when: datetime) -> dict[str, Any]:
    """A metadata document: `identity` between what every document begins with and who wrote it when."""
    return {
        "schema_version": layout.SUPPORTED_SCHEMA,
        "kind": kind.value,
        **identity,
        "created_at": utc_text(when),
        "datom_version": DATOM_VERSION,
        "project": project,
    }


def _table_document(current: Current, write: TableWrite, when: datetime) -> dict[str, Any]:
    imported = write.original_file_sha is not None
    before = current.metadata if current.metadata and current.metadata.get("data_sha") == write.data_sha else {}
    # where the values stay, so does the stored object; without a recorded hash, the fresh one would not be its hash
    parquet_sha = current.object_sha(Kind.TABLE, write.data_sha) or (None if before else write.parquet_sha)
    document = new_document(
        current.project,
        Kind.TABLE,
        {
            "data_sha": write.data_sha,
            "hash_algo": HASH_ALGORITHM,
            **({} if parquet_sha is None else {"parquet_sha": parquet_sha}),
            "table_type": "imported" if imported else "derived",
            "nrow": write.rows,
            "ncol": len(write.columns),
            "colnames": write.columns,
        },
        when,
    )
    if imported:
        document["original_file_sha"] = write.original_file_sha
        document["original_format"] = write.original_format
        source = {"project": current.project, "table": current.name, "version_sha": write.data_sha}
        document["source_lineage"] = [source]
    elif write.parents:
        document["parents"] = list(write.parents)
        document["source_lineage"] = list(write.source_lineage)
    document["size_bytes"] = before.get("size_bytes") or write.size_bytes
    if write.custom:
        document["custom"] = jsonlite.as_vectors(write.custom)
    return document


def _is_unchanged(current: Current, document: Mapping[str, Any], version: str) -> bool:
    if current.metadata is None:
        return False
    if version == metadata_sha(current.metadata):
        return True
    # what went through JSON on its way here may have lost what R loses too: the sign of a zero, null as against {}
    return version not in current.versions and metadata_sha(jsonlite.as_read_by_r(document)) == metadata_sha(
        jsonlite.as_read_by_r(current.metadata)
    )


def _history_entry(
    document: Mapping[str, Any], kind: Kind, version: str, message: str, author: Author
) -> dict[str, Any]:
    entry = {
        "version": version,
        "data_sha": document["data_sha"],
        "timestamp": document["created_at"],
        "author": {"name": author.name, "email": author.email},
        "commit_message": message.partition("\n\n")[0],
    }
    optional = (OBJECT_SHA[kind], "original_file_sha")
    return entry | {field: document[field] for field in optional if field in document}


def _manifest_row(
    document: Mapping[str, Any], version: str, extent: Mapping[str, int], version_count: int
) -> dict[str, Any]:
    row = {
        "kind": document["kind"],
        "current_version": version,
        "current_data_sha": document["data_sha"],
        "last_updated": document["created_at"],
        **extent,
        "version_count": version_count,
    }
    return row | {field: document[field] for field in ("original_file_sha", "original_format") if field in document}
