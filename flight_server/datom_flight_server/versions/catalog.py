"""Which version a request names: a project's documents, read in the order the format gives."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from datom_flight.protocol.errors import DatomError, VersionError
from datom_flight.protocol.names import is_full_version, parse_instant, validate_name

from ..metadata import layout
from ..metadata.layout import HistoryEntry, Manifest, ManifestRow, Metadata, SetPayload
from ..model import Kind, Project, TableVersion
from ..storage.base import ObjectStore
from .documents import Documents

_SHOWN_VERSIONS = 3
_VERSION_BYTES = 1024
"""What a resolved version takes, with its place among those kept; rounded up."""


class Catalog:
    """One project's artifacts and their versions.

    A version once resolved by its full id never changes, so it is answered from memory from then on.

    Args:
        project: whose.
        store: the project's objects.
        documents: the cache shared by all projects.
    """

    def __init__(self, project: Project, store: ObjectStore, documents: Documents) -> None:
        self.project = project
        self.store = store
        self._documents = documents
        self._claims_governance: bool | None = None

    def resolve(
        self, name: str, kind: Kind, version: str | None = None, as_of: str | None = None, data_sha: str | None = None
    ) -> TableVersion:
        """The one version that `name` and `version` (a full id or a prefix) or `as_of` stand for.

        Args:
            data_sha: what the answer's must be; for tickets to a current version that the history does not name.

        Raises:
            DatomError: ``not_found``, ``kind_mismatch``, ``version_not_found``, ``version_ambiguous``,
                ``metadata_corrupt``, ``invalid_address``, a document's own errors, or the storage's.
        """
        if version is not None and is_full_version(version):
            known = self._documents.versions.get(self._place(name, version))
            if known is not None:
                return _of_kind(known, kind)
        metadata, history = self._current(name)
        if metadata.kind != kind.value:
            raise _kind_mismatch(name, metadata.kind, kind)
        if as_of is not None:
            entry = _entry_as_of(name, metadata, history, as_of)
        elif version is not None:
            entry = self._entry_by_prefix(name, history, version)
        else:
            entry = None
        found = (
            self._version_of_entry(name, kind, entry) if entry else self._current_version(name, kind, metadata, history)
        )
        if data_sha is not None and found.data_sha != data_sha:
            raise VersionError(f'"{name}" moved on while its current version had no name in the history')
        self._remember(found)
        return found

    def history(self, name: str) -> tuple[HistoryEntry, ...]:
        """All versions of `name`, newest first.

        Raises:
            DatomError: ``not_found``, ``document_unreadable``, or the storage's errors.
        """
        try:
            return self._documents.get(self.store, layout.history_key(name), layout.parse_history)
        except DatomError as error:
            raise self._named(error, name) from None

    def metadata(self, name: str, version: str | None = None, as_of: str | None = None) -> Mapping[str, Any]:
        """The metadata document of a version of `name`, as recorded.

        Raises:
            DatomError: as `resolve`; ``not_found`` also when that version's document is missing.
        """
        current, history = self._current(name)
        if as_of is not None:
            entry = _entry_as_of(name, current, history, as_of)
        elif version is not None:
            entry = self._entry_by_prefix(name, history, version)
        else:
            entry = None
        if entry is None or entry.version is None:
            return current.document
        try:
            return self.snapshot(name, entry.version)
        except DatomError as error:
            # R writes the snapshot last
            if error.code == "not_found" and entry == _current_entry(current, history):
                return current.document
            raise

    def snapshot(self, name: str, version: str) -> Mapping[str, Any]:
        """The stored document of the version with that full id.

        Raises:
            DatomError: ``not_found``, ``document_unreadable``, ``schema_invalid`` or ``schema_unsupported``.
        """
        return self._documents.get(self.store, layout.snapshot_key(name, version), layout.parse_metadata).document

    def manifest(self) -> Manifest:
        """The project's list of artifacts.

        Raises:
            DatomError: ``manifest_unreadable``, ``schema_invalid``, ``schema_unsupported``, or the storage's errors.
        """
        try:
            return self._documents.get(self.store, layout.MANIFEST_KEY, layout.parse_manifest)
        except DatomError as error:
            if error.code == "not_found":
                raise DatomError.of(
                    "manifest_unreadable", f'project "{self.project.name}" has no manifest', hint=""
                ) from None
            raise

    def artifacts(self, pattern: str | None = None) -> Iterator[ManifestRow]:
        """The manifest's rows whose name matches the glob `pattern`, in the manifest's order."""
        for name, row in self.manifest().rows.items():
            if pattern is None or fnmatch.fnmatchcase(name, pattern):
                yield row

    def set_payload(self, found: TableVersion) -> SetPayload:
        """The labels and members of a resolved set, from its payload, whose hash is checked first.

        Raises:
            DatomError: ``invalid_address``, ``document_sha_missing``, ``not_found``, ``integrity_mismatch``,
                ``document_unreadable``, ``set_payload_malformed`` or ``set_member_malformed``.
        """
        key = layout.payload_key(found.table, Kind.SET, found.data_sha)
        if found.object_sha is None:
            raise DatomError.of("document_sha_missing", f'the metadata of set "{found.table}" records no document_sha')

        def verified(data: bytes, key: str) -> SetPayload:
            actual = hashlib.sha256(data).hexdigest()
            if actual != found.object_sha:
                raise DatomError.of(
                    "integrity_mismatch",
                    f'the payload of set "{found.table}" has sha256 {actual[:12]}…, recorded is {found.object_sha}',
                )
            return layout.parse_set(data, found.table)

        return self._documents.get(self.store, key, verified)

    def refresh(self, name: str) -> None:
        """Take note of a write: what is asked of `name` from now on is as it is in the storage now."""
        for key in (layout.metadata_key(name), layout.history_key(name), layout.MANIFEST_KEY):
            self._documents.forget(self.store, key)

    def claims_governance(self) -> bool:
        """Whether the storage says that a governance repository rules this project; asked for once.

        Where the settings name the place, that is a warning: the data may move without the settings.
        """
        if self._claims_governance is None:
            try:
                self._documents.get(self.store, layout.GOVERNANCE_KEY, lambda data, key: data)
                self._claims_governance = True
            except DatomError as error:
                if error.code != "not_found":
                    return False
                self._claims_governance = False
        return self._claims_governance

    def _current(self, name: str) -> tuple[Metadata, tuple[HistoryEntry, ...]]:
        validate_name(name)
        try:
            metadata = self._documents.get(self.store, layout.metadata_key(name), layout.parse_metadata)
            history = self._documents.get(self.store, layout.history_key(name), layout.parse_history)
            if history and _current_entry(metadata, history) is None:
                # a version landed between the two reads
                metadata = self._documents.newest(self.store, layout.metadata_key(name), layout.parse_metadata)
                history = self._documents.newest(self.store, layout.history_key(name), layout.parse_history)
        except DatomError as error:
            raise self._named(error, name) from None
        return metadata, history

    def _entry_by_prefix(self, name: str, history: tuple[HistoryEntry, ...], version: str) -> HistoryEntry:
        if is_full_version(version) and all(entry.version != version for entry in history):
            # who asks may have it from a replica that looked later
            history = self._documents.newest(self.store, layout.history_key(name), layout.parse_history)
        return _entry_by_prefix(name, history, version)

    def _named(self, error: DatomError, name: str) -> DatomError:
        """`error`, in the caller's terms where a document of `name` is missing."""
        if error.code != "not_found":
            return error
        return DatomError.of("not_found", f'no table or set "{name}" in project "{self.project.name}"')

    def _current_version(
        self, name: str, kind: Kind, metadata: Metadata, history: tuple[HistoryEntry, ...]
    ) -> TableVersion:
        if metadata.data_sha is None:
            raise DatomError.of("metadata_corrupt", f'the current metadata of "{name}" has no data_sha')
        entry = _current_entry(metadata, history)
        return TableVersion(
            project=self.project.name,
            table=name,
            kind=kind,
            version=entry.version if entry else None,
            data_sha=metadata.data_sha,
            object_sha=metadata.object_sha(kind),
            timestamp=layout.parse_timestamp(entry.timestamp if entry else metadata.created_at),
        )

    def _version_of_entry(self, name: str, kind: Kind, entry: HistoryEntry) -> TableVersion:
        if entry.data_sha is None:
            raise DatomError.of(
                "metadata_corrupt", f'version "{entry.version}" of "{name}" has no data_sha in its history'
            )
        return TableVersion(
            project=self.project.name,
            table=name,
            kind=kind,
            version=entry.version,
            data_sha=entry.data_sha,
            object_sha=entry.object_sha(kind),
            timestamp=layout.parse_timestamp(entry.timestamp),
        )

    def _remember(self, found: TableVersion) -> None:
        # without a recorded hash the bytes could change unnoticed, so such a version is looked up anew
        if found.version is not None and found.object_sha is not None:
            self._documents.versions.put(self._place(found.table, found.version), found, _VERSION_BYTES)

    def _place(self, name: str, version: str) -> tuple[str, ...]:
        return self.store.uri, self.project.name, name, version


def _of_kind(found: TableVersion, kind: Kind) -> TableVersion:
    if found.kind is not kind:
        raise _kind_mismatch(found.table, found.kind.value, kind)
    return found


def _kind_mismatch(name: str, found: str, wanted: Kind) -> DatomError:
    return DatomError.of("kind_mismatch", f'"{name}" is a {found}, not a {wanted.value}')


def _current_entry(metadata: Metadata, history: tuple[HistoryEntry, ...]) -> HistoryEntry | None:
    """The history's entry for the current document: not always the newest, since a revert adds none."""
    same = [entry for entry in history if metadata.data_sha is not None and entry.data_sha == metadata.data_sha]
    exact = [entry for entry in same if metadata.created_at is not None and entry.timestamp == metadata.created_at]
    return next(iter(exact or same), None)


def _entry_by_prefix(name: str, history: tuple[HistoryEntry, ...], version: str) -> HistoryEntry:
    matches = [entry for entry in history if entry.version is not None and entry.version.startswith(version)]
    if len(matches) == 1:
        return matches[0]
    shown = version[:64].encode("unicode_escape").decode("ascii")
    if matches:
        ids = ", ".join(str(entry.version)[: len(version) + 8] for entry in matches[:_SHOWN_VERSIONS])
        raise VersionError(
            f'version "{shown}" of "{name}" is ambiguous: {len(matches)} versions begin with it ({ids})',
            code="version_ambiguous",
        )
    newest = ", ".join(str(entry.version)[:8] for entry in history[:_SHOWN_VERSIONS])
    raise VersionError(
        f'no version "{shown}" of "{name}"; ' + (f"newest: {newest}" if newest else "it has no versions")
    )


def _entry_as_of(name: str, metadata: Metadata, history: tuple[HistoryEntry, ...], as_of: str) -> HistoryEntry | None:
    """The entry of the version current at `as_of`; None stands for the current document itself."""
    instant = parse_instant(as_of)
    # created_at is when the current document was written, a revert to an older version included
    current_since = layout.parse_timestamp(metadata.created_at)
    if current_since is not None and current_since <= instant:
        return None
    for entry in history:
        written = layout.parse_timestamp(entry.timestamp)
        if written is not None and written <= instant:
            return entry
    first = history[-1].timestamp if history else None
    raise VersionError(
        f'"{name}" had no version as of {as_of}',
        hint=f"its first version is of {first}" if first else "it has no versions",
    )
