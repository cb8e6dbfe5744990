"""Bringing a project's storage to what its data repository says.

Git is the truth; the storage's documents are its mirror. Several servers, and R, may mirror at once: each writes what
it knows and then looks again whether that is still the newest, so that whoever looks last leaves the newest behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from datom_flight.protocol.errors import DatomError, UnavailableError

from ..metadata import jsonlite, layout
from ..metadata.current import Current, history_path, metadata_path
from ..metadata.documents import storage_documents, version_commits
from ..metadata.git import DataRepository
from ..metadata.identity import expected_version
from ..metadata.manifest import MANIFEST_PATH, parse_for_writing
from ..metadata.set_documents import set_path
from ..model import Kind
from ..storage.base import WritableStore

_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Act:
    """One document that was written, or that could not be.

    Attributes:
        reason: why, as a predicate of the key.
        done: whether it was written.
    """

    key: str
    reason: str
    done: bool = True


class Mirror:
    """One project's mirror. For one thread at a time, like its repository.

    Args:
        repository: the truth.
        store: the mirror.
    """

    def __init__(self, repository: DataRepository, store: WritableStore) -> None:
        self._repository = repository
        self._store = store
        # the commit that brought a version never changes
        self._commits: dict[tuple[str, str], str] = {}

    def publish(self, name: str, tip: str, brought: Mapping[str, str]) -> None:
        """Write the documents of `name` as commit `tip` has them, the manifest last; then look whether they stayed.

        Args:
            brought: the commit of each version that is known to have come with it, by version.

        Raises:
            DatomError: the storage's or the remote's errors; what is missing then is found by `repair`.
        """
        for version, commit in brought.items():
            self._commits[name, version] = commit
        for _ in range(_ROUNDS):
            for key, data in self._documents(name, tip).items():
                if not _says(self._stored(key), data):
                    self._store.put(key, data)
            newest = self._repository.fetch()
            if newest is None or (newest == tip and not self.differing(name, tip)):
                return
            tip = newest
        raise UnavailableError(f'"{name}" changes faster than it can be mirrored', code="mirror_pending")

    def artifacts(self, tip: str) -> list[str]:
        """The names of all tables and sets that `tip` has."""
        return list(self._manifest_rows(self._repository.read(tip, MANIFEST_PATH)))

    def lagging(self, tip: str) -> Iterator[str]:
        """The artifacts whose row in the storage's manifest is not the one `tip` has; all, where it has none."""
        rows = self._manifest_rows(self._repository.read(tip, MANIFEST_PATH))
        mirrored = self._manifest_rows(self._stored(layout.MANIFEST_KEY))
        for name, row in rows.items():
            if mirrored.get(name) != row:
                yield name

    def differing(self, name: str, tip: str) -> list[str]:
        """The keys of the documents of `name`, the manifest included, that the storage has not as `tip` does."""
        return [key for key, data in self._documents(name, tip).items() if not _says(self._stored(key), data)]

    def repair(self, name: str, tip: str) -> Iterator[Act]:
        """Write what the storage lacks or has otherwise of the documents of `name`, snapshots of all versions included.

        Content is never touched. A version whose payload is not in the storage is not made current there: whoever
        committed it has not uploaded it yet, or never will.

        Raises:
            DatomError: the storage's or the remote's errors.
        """
        current = Current.read(name, partial(self._repository.read, tip))
        if not self._payload_is_there(current):
            restored = self._restored_set(current, tip)
            yield restored
            if not restored.done:
                return
        yield from self._repair_snapshots(name, tip, current)
        for key, data in self._documents(name, tip).items():
            stored = self._stored(key)
            if not _says(stored, data):
                self._store.put(key, data)
                yield Act(key, "was missing" if stored is None else "was not what git says")

    def repair_manifest(self, tip: str) -> Iterator[Act]:
        """Write the manifest where the storage has it not as `tip` does; for when every artifact is mirrored."""
        data = self._repository.read(tip, MANIFEST_PATH)
        stored = self._stored(layout.MANIFEST_KEY)
        if data is not None and stored != data:
            self._store.put(layout.MANIFEST_KEY, data)
            yield Act(layout.MANIFEST_KEY, "was missing" if stored is None else "was not what git says")

    def _repair_snapshots(self, name: str, tip: str, current: Current) -> Iterator[Act]:
        commits = self._commits_of(name, tip, current)
        for version in current.versions:
            key = layout.snapshot_key(name, version)
            stored = self._stored(key)
            if stored is not None and _is_of_version(stored, version):
                continue
            commit = commits.get(version)
            document = None if commit is None else self._repository.read(commit, metadata_path(name))
            if document is not None and document != stored:
                self._store.put(key, document)
                yield Act(key, "was missing" if stored is None else "was not of its version")

    def _documents(self, name: str, tip: str) -> dict[str, bytes]:
        read = partial(self._repository.read, tip)
        return storage_documents(name, read, self._commits_of(name, tip, Current.read(name, read)))

    def _commits_of(self, name: str, tip: str, current: Current) -> Mapping[str, str]:
        """The commit each version came with: as known, as the mirror records, else as git's log tells."""
        known = {
            version: self._commits[name, version] for version in current.versions if (name, version) in self._commits
        }
        if len(known) < len(current.versions):
            known = _recorded_commits(self._stored(layout.history_key(name))) | known
        missing = set(current.versions) - known.keys()
        if missing:
            known |= version_commits(self._states(history_path(name), tip), missing)
        self._commits.update({(name, version): commit for version, commit in known.items()})
        return known

    def _states(self, path: str, tip: str) -> Iterator[tuple[str, bytes]]:
        """Every commit up to `tip` that changed the file `path`, newest first, with the file as it then was."""
        for commit in self._repository.changes(tip, path):
            data = self._repository.read(commit, path)
            if data is not None:
                yield commit, data

    def _payload_is_there(self, current: Current) -> bool:
        row = current.manifest["artifacts"].get(current.name)
        if row is None or current.metadata is None:
            return False
        kind = Kind(row.get("kind", Kind.TABLE.value))
        try:
            self._store.etag(layout.payload_key(current.name, kind, str(current.metadata.get("data_sha"))))
        except DatomError as error:
            if error.code != "not_found":
                raise
            return False
        return True

    def _restored_set(self, current: Current, tip: str) -> Act:
        """The payload of a set, which git holds too, put back; one of a table cannot be."""
        document = current.metadata or {}
        kind = Kind(document.get("kind", Kind.TABLE.value))
        key = layout.payload_key(current.name, kind, str(document.get("data_sha")))
        payload = self._repository.read(tip, set_path(current.name))
        if payload is None or hashlib.sha256(payload).hexdigest() != document.get("document_sha"):
            return Act(key, "is not in the storage, so its version was not made current there", done=False)
        self._store.put(key, payload)
        return Act(key, "was missing")

    def _stored(self, key: str) -> bytes | None:
        try:
            return self._store.read(key).data
        except DatomError as error:
            if error.code != "not_found":
                raise
            return None

    def _manifest_rows(self, data: bytes | None) -> Mapping[str, Any]:
        if data is None:
            return {}
        try:
            rows: Mapping[str, Any] = parse_for_writing(data)["artifacts"]
        except DatomError:
            # a damaged mirror agrees with nothing
            return {}
        return rows


def _recorded_commits(history: bytes | None) -> dict[str, str]:
    if history is None:
        return {}
    try:
        entries = layout.parse_history(history, "version_history.json")
    except DatomError:
        return {}
    return {entry.version: entry.commit for entry in entries if entry.version and entry.commit}


def _says(stored: bytes | None, data: bytes) -> bool:
    """Whether the storage has `data`; a history may lack commits, as R datom 0.1.1 left it."""
    if stored is None or stored == data:
        return stored == data
    try:
        return bool(_without_commits(stored) == _without_commits(data))
    except ValueError:
        return False


def _without_commits(document: bytes) -> Any:
    """The entries of a history without what only the storage's copy has.

    Raises:
        ValueError: it is no history.
    """
    entries = jsonlite.parse(document)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("not a list of entries")
    return [{key: value for key, value in entry.items() if key != "commit_sha"} for entry in entries]


def _is_of_version(document: bytes, version: str) -> bool:
    try:
        return expected_version(layout.parse_metadata(document, "snapshot").document) == version
    except DatomError:
        return False
