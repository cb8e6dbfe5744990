"""Writing versions: rows are spooled and hashed, git's branch moves, the storage follows.

The object goes first, because content that nothing refers to is invisible and harmless, while a version without its
object is unreadable. The push is the point at which a version exists.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import tenacity

from datom_flight.identity import ParquetColumns, data_sha
from datom_flight.protocol.errors import ConflictError, DatomError, StoredDataError, UnavailableError
from datom_flight.protocol.names import validate_name
from datom_flight.protocol.writes import WriteReceipt

from ..metadata import layout
from ..metadata.current import Current
from ..metadata.documents import Action, Change, Plan, TableWrite, plan_table
from ..metadata.git import Author, DataRepository
from ..metadata.set_documents import plan_set
from ..model import Kind
from ..storage.base import WritableStore
from .mirror import Act, Mirror
from .spooled import Spooled

_ATTEMPTS = 20
"""How often a write is built anew on a head that others moved."""

_PUSHES = 3
"""How often a commit is pushed while the remote cannot be reached."""

_SLOWEST = timedelta(minutes=10)
"""How long another writer may take from its push to the last of its documents."""


@dataclass(frozen=True, slots=True)
class TableContent:
    """What a table's version will hold, on disk and hashed.

    Attributes:
        parquet: the file to be stored.
    """

    data_sha: str
    parquet: Path
    parquet_sha: str
    size_bytes: int
    rows: int
    columns: tuple[str, ...]


def table_content(spooled: Spooled) -> TableContent:
    """The content of a spooled table, hashed and encoded; its file goes when the spooled table does.

    Raises:
        DatomError: ``not_hashable``, ``timeout``, or ``overloaded`` when the disk is full.
    """
    data_sha, encoded = spooled.identify()
    columns = tuple(spooled.schema.names)
    return TableContent(data_sha, encoded.path, encoded.parquet_sha, encoded.size_bytes, spooled.rows, columns)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A plan, and what puts its payload into the storage."""

    plan: Plan
    put_payload: Callable[[], None]


class Writer:
    """Writes to one project: one write at a time in this process, any number in others.

    Args:
        repository: the project's data repository.
        store: its objects.
        clock: now, with a zone.
    """

    def __init__(
        self,
        repository: DataRepository,
        store: WritableStore,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._repository = repository
        self._store = store
        self._mirror = Mirror(repository, store)
        self._clock = clock
        self._lock = threading.Lock()
        self._unmirrored: set[str] = set()

    def write_table(
        self,
        name: str,
        content: TableContent,
        author: Author,
        *,
        message: str | None = None,
        custom: Mapping[str, Any] | None = None,
        parents: Sequence[Mapping[str, Any]] | None = None,
        source_lineage: Sequence[Mapping[str, Any]] = (),
        original: tuple[str, str] | None = None,
        expected: str | None = None,
    ) -> WriteReceipt:
        """Make `content` the current version of the table `name`.

        When it returns, git and the storage have it. When it raises ``mirror_pending``, git has it and `reconcile` will
        bring it to the storage; when it raises anything else, nothing is visible.

        Args:
            message: of the commit; None is the format's own.
            parents, source_lineage: as the document records them.
            original: sha256 and format of the file it was imported from.
            expected: the version that must be current, ``""`` for none; None is no condition. Where the content is
                current already, it does not matter.

        Raises:
            ConflictError: ``conflict``, with ``fields["current"]``.
            DatomError: as the repository and the store raise, ``kind_mismatch``, ``overloaded`` when others keep
                writing.
        """

        def prepare(current: Current, change: Change) -> _Prepared:
            stored, put_payload = self._table_payload(current, content)
            write = TableWrite(
                data_sha=content.data_sha,
                parquet_sha=stored.parquet_sha,
                size_bytes=stored.size_bytes,
                rows=content.rows,
                columns=content.columns,
                custom=custom,
                parents=parents,
                source_lineage=source_lineage,
                original_file_sha=original[0] if original else None,
                original_format=original[1] if original else None,
            )
            return _Prepared(plan_table(current, write, change), put_payload)

        return self._write(name, author, message, expected, prepare)

    def write_set(
        self,
        name: str,
        members: Sequence[Mapping[str, Any]],
        author: Author,
        *,
        tags: Mapping[str, Any] | None = None,
        message: str | None = None,
        expected: str | None = None,
    ) -> WriteReceipt:
        """Make the set of `members` the current version of the set `name`; raises as `write_table` does."""

        def prepare(current: Current, change: Change) -> _Prepared:
            planned = plan_set(current, members, tags, change)
            key = layout.payload_key(name, Kind.SET, planned.plan.data_sha)
            if planned.plan.reuses_object and self._is_stored(key):
                return _Prepared(planned.plan, _nothing)
            return _Prepared(planned.plan, lambda: self._store.put(key, planned.payload))

        return self._write(name, author, message, expected, prepare)

    def reconcile(self, *, thorough: bool = False) -> list[Act]:
        """Finish what git has and the storage lacks, and restore what it has otherwise; what was done.

        Args:
            thorough: compare every artifact whole, rather than those that were written lately, whose manifest rows
                differ, or whose mirroring failed here; and remove what killed writers left in the storage.

        Raises:
            DatomError: the storage's or the remote's errors; what was done stays done.
        """
        with self._lock:
            tip = self._repository.fetch()
            if tip is None:
                return []
            if thorough:
                self._sweep()
            lagging = self._mirror.artifacts(tip) if thorough else self._mirror.lagging(tip, self._clock() - _SLOWEST)
            names = list(dict.fromkeys([*lagging, *sorted(self._unmirrored)]))
        acts: list[Act] = []
        for name in names:
            # writes need not wait for all the others
            with self._lock:
                acts += self._repaired(partial(self._repairs, name), tip)
                self._unmirrored.discard(name)
        if all(act.done for act in acts):
            with self._lock:
                acts += self._repaired(self._mirror.manifest_repairs, tip)
        return acts

    def _sweep(self) -> None:
        try:
            self._store.sweep()
        except DatomError as error:
            # credentials that may write need not be allowed to list what is unfinished
            if error.code != "access_denied":
                raise

    def _repairs(self, name: str, tip: str) -> list[Act]:
        try:
            return self._mirror.repairs(name, tip)
        except StoredDataError as error:
            return [Act(layout.metadata_key(name), f"cannot be told from git: {error.message}")]

    def _repaired(self, repairs: Callable[[str], list[Act]], tip: str) -> list[Act]:
        """Carry out what `repairs` finds at the tip, until it finds nothing: others write meanwhile.

        Args:
            tip: a recent one; nothing is written without another look at whether it still is.
        """
        done: list[Act] = []
        for _ in range(_ATTEMPTS):
            acts = repairs(tip)
            if not any(act.done for act in acts):
                return done + acts
            newest = self._repository.fetch() or tip
            if newest == tip:
                for act in acts:
                    self._mirror.carry_out(act)
                done += [act for act in acts if act.done]
                newest = self._repository.fetch() or tip
            tip = newest
        raise UnavailableError("others write faster than the storage can be brought up to them", code="mirror_pending")

    def differing(self, name: str | None = None) -> dict[str, list[str]]:
        """What the storage has not as git does: the keys of documents, by artifact; none where the two agree.

        Args:
            name: only that one; None is all that git has.

        Raises:
            DatomError: the storage's or the remote's errors.
        """
        with self._lock:
            tip = self._repository.fetch()
            held = [] if tip is None else self._mirror.artifacts(tip)
            if tip is None or (name is not None and name not in held):
                return {}
            return {each: self._mirror.differing(each, tip) for each in held if name in (None, each)}

    def _write(
        self,
        name: str,
        author: Author,
        message: str | None,
        expected: str | None,
        prepare: Callable[[Current, Change], _Prepared],
    ) -> WriteReceipt:
        validate_name(name)
        with self._lock:
            for _ in range(_ATTEMPTS):
                tip = self._repository.fetch()
                if tip is None:
                    raise DatomError.of(
                        "manifest_unreadable",
                        "the data repository is empty",
                        hint="make the project with `datom-flight-server init`",
                    )
                current = Current.read(name, partial(self._repository.read, tip))
                change = Change(author, self._clock(), message)
                prepared = prepare(current, change)
                plan = prepared.plan
                if plan.action is Action.NONE:
                    # also the answer to a write sent again because its first answer was lost
                    self._publish(name, plan, tip, is_new=False)
                    return _receipt(name, plan, None)
                _check_expected(current, expected)
                prepared.put_payload()
                commit = self._repository.commit(tip, plan.files, plan.message, author, change.when)
                if self._push(commit):
                    self._publish(name, plan, commit, is_new=plan.version not in current.versions)
                    return _receipt(name, plan, commit)
            raise UnavailableError(f'others keep writing to the project of "{name}"', code="overloaded")

    def _push(self, commit: str) -> bool:
        """Whether the branch moved to `commit`; False when others moved it first. What may pass is tried again."""
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: getattr(error, "code", None) == "store_unreachable"),
            stop=tenacity.stop_after_attempt(_PUSHES),
            reraise=True,
        )
        return trying(self._push_once, commit)

    def _push_once(self, commit: str) -> bool:
        try:
            self._repository.push(commit)
        except ConflictError:
            return False
        except DatomError as error:
            if error.code not in ("store_unreachable", "timeout"):
                raise
            # the answer may be lost and the branch moved all the same
            self._repository.fetch()
            if not self._repository.contains(commit):
                raise
        return True

    def _publish(self, name: str, plan: Plan, commit: str, *, is_new: bool) -> None:
        self._unmirrored.add(name)
        try:
            self._mirror.publish(name, commit, {plan.version: commit} if is_new else {})
        except DatomError as error:
            raise UnavailableError(
                f'version {plan.version} of "{name}" is committed, but the storage could not be brought up to it: '
                f"{error.message}",
                code="mirror_pending",
                fields={"version": plan.version, "commit": commit},
            ) from error
        self._unmirrored.discard(name)

    def _table_payload(self, current: Current, content: TableContent) -> tuple[TableContent, Callable[[], None]]:
        """What the storage has, or will have, at the address of `content`, and what puts it there."""
        key = layout.payload_key(current.name, Kind.TABLE, content.data_sha)
        recorded = current.object_sha(Kind.TABLE, content.data_sha)
        is_stored = self._is_stored(key)
        if is_stored and recorded is not None:
            return content, _nothing
        if is_stored:
            # equal values can make other bytes: what is recorded must be the hash of what is stored
            found = self._orphan(key, content)
            if found is not None:
                return found, _nothing
        elif recorded not in (None, content.parquet_sha):
            raise DatomError.of(
                "integrity_mismatch",
                f'"{key}" is recorded and gone from the storage, and these values make other bytes than it had',
                hint="restore the object from a backup of the storage",
            )
        return content, lambda: self._store.put_file(key, content.parquet)

    def _is_stored(self, key: str) -> bool:
        try:
            self._store.etag(key)
        except DatomError as error:
            if error.code != "not_found":
                raise
            return False
        return True

    def _orphan(self, key: str, content: TableContent) -> TableContent | None:
        """An object that no version refers to yet, if it is whole; None when it is to be replaced."""
        with tempfile.NamedTemporaryFile(dir=content.parquet.parent) as file:
            digest = hashlib.sha256()
            size_bytes = 0
            for chunk in self._store.chunks(key):
                file.write(chunk)
                digest.update(chunk)
                size_bytes += len(chunk)
            file.flush()
            found = replace(content, parquet_sha=digest.hexdigest(), size_bytes=size_bytes)
            if found.parquet_sha == content.parquet_sha or _holds(Path(file.name), content.data_sha):
                return found
        return None


def author_of(name: str) -> Author:
    """A principal as an author: an address is its own e-mail, any other name gets one that leads nowhere."""
    clean = "".join(character for character in name if character.isprintable() and character not in "<>").strip()
    email = clean if "@" in clean else clean.replace(" ", ".") + "@datom-flight.invalid"
    return Author(clean, email)


def _nothing() -> None:
    return


def _holds(parquet: Path, expected_data_sha: str) -> bool:
    try:
        return data_sha(ParquetColumns(parquet)) == expected_data_sha
    except (pa.ArrowException, OSError, DatomError):
        return False


def _check_expected(current: Current, expected: str | None) -> None:
    if expected is None:
        return
    row = current.manifest["artifacts"].get(current.name) or {}
    found = row.get("current_version") or current.version
    if expected not in (found or "", current.version or ""):
        is_at = f'"{current.name}" is at version {found}' if found else f'there is no "{current.name}" yet'
        wanted = f"version {expected}" if expected else "none"
        raise ConflictError(f"{is_at}, expected was {wanted}", fields={"current": found})


def _receipt(name: str, plan: Plan, commit: str | None) -> WriteReceipt:
    return WriteReceipt(name, plan.version, plan.data_sha, plan.object_sha, commit, plan.action.value)
