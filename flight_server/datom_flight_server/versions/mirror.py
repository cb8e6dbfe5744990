"""Bringing a project's storage to what its data repository says.

Git is the truth; the storage's documents are its mirror. Several servers, and R, may mirror at once: each writes what
it knows and then looks again whether that is still the newest, so that whoever looks last leaves the newest behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from datom_flight.protocol.errors import DatomError, UnavailableError

from ..metadata import jsonlite, layout
from ..metadata.current import Current, history_path, metadata_path
from ..metadata.documents import storage_documents, utc_text, version_commits
from ..metadata.git import DataRepository
from ..metadata.identity import expected_version
from ..metadata.manifest import MANIFEST_PATH, parse_for_writing
from ..metadata.set_documents import set_path
from ..model import Kind
from ..storage.base import WritableStore

_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Act:
    """One document that is to be written, or that cannot be.

    Attributes:
        reason: why, as a predicate of the key.
        data: what to write; None where nobody has it.
    """

    key: str
    reason: str
    data: bytes | None = field(default=None, repr=False)

    @property
    def done(self) -> bool:
        """Whether it can be written, and was where acts are told of afterwards."""
        return self.data is not None


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
            DatomError: the storage's or the remote's errors; what is missing then is found by `repairs`.
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

    def lagging(self, tip: str, since: datetime) -> list[str]:
        """The artifacts that may not be in the storage as `tip` has them.

        They are those whose row in the storage's manifest is another, and those written after `since`: a slower writer
        may have put back what it knew of them, under a manifest that is right again.
        """
        rows = self._manifest_rows(self._repository.read(tip, MANIFEST_PATH))
        mirrored = self._manifest_rows(self._stored(layout.MANIFEST_KEY))
        recent = utc_text(since)
        return [
            name
            for name, row in rows.items()
            if mirrored.get(name) != row or str(row.get("last_updated", "")) >= recent
        ]

    def differing(self, name: str, tip: str) -> list[str]:
        """The keys of the documents of `name`, the manifest included, that the storage has not as `tip` does."""
        return [key for key, data in self._documents(name, tip).items() if not _says(self._stored(key), data)]

    def repairs(self, name: str, tip: str) -> list[Act]:
        """What brings the documents of `name` to what `tip` says, snapshots of all versions included; nothing is done.

        Content is never touched. A version whose payload is not in the storage is not made current there: whoever
        committed it has not uploaded it yet, or never will.

        Raises:
            DatomError: the storage's or the remote's errors, and those of `name`'s own documents in git.
        """
        current = Current.read(name, partial(self._repository.read, tip))
        acts = []
        if not self._payload_is_there(current):
            restored = self._restored_set(current, tip)
            if not restored.done:
                return [restored]
            acts.append(restored)
        documents = self._documents(name, tip)
        acts += [act for act in self._snapshots(name, tip, current) if act.key not in documents]
        return acts + [act for key, data in documents.items() for act in self._replaced(key, data)]

    def manifest_repairs(self, tip: str) -> list[Act]:
        """What makes the manifest the one of `tip`; for when every artifact is mirrored."""
        data = self._repository.read(tip, MANIFEST_PATH)
        return [] if data is None else list(self._replaced(layout.MANIFEST_KEY, data))

    def carry_out(self, act: Act) -> None:
        """Write what `act` has to be written."""
        if act.data is not None:
            self._store.put(act.key, act.data)

    def _replaced(self, key: str, data: bytes) -> Iterator[Act]:
        stored = self._stored(key)
        if not _says(stored, data):
            yield Act(key, "was missing" if stored is None else "was not what git says", data)

    def _snapshots(self, name: str, tip: str, current: Current) -> Iterator[Act]:
        commits = self._commits_of(name, tip, current)
        for version in current.versions:
            key = layout.snapshot_key(name, version)
            stored = self._stored(key)
            if stored is not None and _is_of_version(stored, version):
                continue
            commit = commits.get(version)
            document = None if commit is None else self._repository.read(commit, metadata_path(name))
            if document is not None and document != stored:
                yield Act(key, "was missing" if stored is None else "was not of its version", document)

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
        """Puts back the payload of a set, which git holds too; one of a table cannot be."""
        document = current.metadata or {}
        kind = Kind(document.get("kind", Kind.TABLE.value))
        key = layout.payload_key(current.name, kind, str(document.get("data_sha")))
        payload = self._repository.read(tip, set_path(current.name))
        if payload is None or hashlib.sha256(payload).hexdigest() != document.get("document_sha"):
            return Act(key, "is not in the storage, so its version was not made current there")
        return Act(key, "was missing", payload)

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
