"""Folders of extracts: which files are new or changed, and writing those as imported tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from . import text
from .connection import Connection
from .extracts import extract_format, open_extract
from .protocol.errors import DatomError, InvalidRequestError
from .protocol.names import validate_name
from .results import Column, ImportInfo, Listing, each
from .sources import RowSource

NEW, CHANGED, UNCHANGED = "new", "changed", "unchanged"
UNSUPPORTED, CONFLICT = "not supported", "conflict"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file.

    Attributes:
        state: ``new``, ``changed``, ``unchanged``, ``not supported`` or ``conflict``.
        action, version, data_sha, commit: of the write's receipt; None when nothing was written.
        detail: why not.
    """

    file: str
    table: str | None
    state: str
    action: str | None
    version: str | None
    data_sha: str | None
    commit: str | None
    detail: str | None

    @property
    def failed(self) -> bool:
        """Whether the file should have become a table and did not."""
        return self.state == CONFLICT or (self.state in (NEW, CHANGED) and self.action is None)


class Original(NamedTuple):
    """A file's content: sha256 of its bytes, its format, and its size and time when it was hashed."""

    sha: str
    format: str
    stamp: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Extract:
    """One file of a folder, compared with the project's tables.

    Attributes:
        table: its name, where the file can become one.
        original: what is to be written, if anything is.
    """

    path: Path
    table: str | None
    state: str
    detail: str | None = None
    original: Original | None = None

    @property
    def file(self) -> str:
        """The file's name."""
        return self.path.name

    def unwritten(self, detail: str | None = None) -> Outcome:
        """The outcome when nothing is written; `detail` says why, unless it is known already."""
        return Outcome(self.file, self.table, self.state, None, None, None, None, detail or self.detail)


class Survey(Listing[Extract]):
    """What `survey` finds."""

    columns = (
        Column("file", each(text.clean)),
        Column("table", each(text.clean)),
        Column("state", each(text.clean)),
        Column("detail", each(text.clean)),
    )
    empty = "no files"

    def records(self) -> list[dict[str, object]]:
        """Each file as a flat dict."""
        return [{"file": e.file, "table": e.table, "state": e.state, "detail": e.detail} for e in self]


class Outcomes(Listing[Outcome]):
    """What became of a folder's files."""

    columns = (
        Column("file", each(text.clean)),
        Column("table", each(text.clean)),
        Column("state", each(text.clean)),
        Column("action", each(text.clean)),
        Column("version", text.short_ids),
        Column("detail", each(text.clean)),
    )
    empty = "no files"


def survey(folder: str | os.PathLike[str], pattern: str, tables: Iterable[ImportInfo]) -> Survey:
    """The files of a folder, not of those in it, and what syncing would do with each; hidden files are left out.

    Args:
        pattern: a glob that names must fit.
        tables: what the project has.

    Raises:
        OSError: the folder cannot be read.
    """
    known = {table.name: table for table in tables}
    paths = sorted(
        path
        for path in Path(folder).iterdir()
        if path.is_file() and not path.name.startswith(".") and fnmatchcase(path.name, pattern)
    )
    found = [_extract(path, known) for path in paths]
    return Survey(_compared(extract, found) for extract in found)


def carry_out(
    conn: Connection,
    extract: Extract,
    message: str | None = None,
    follow: Callable[[RowSource], RowSource] = lambda source: source,
) -> Outcome:
    """Write one file as an imported table, if it is new or changed. A failure is told in the outcome's `detail`.

    Args:
        message: None is ``Sync NAME (new)`` or ``(changed)``.
        follow: given the rows, gives those to write.
    """
    original = extract.original
    if original is None or extract.table is None:
        return extract.unwritten()
    try:
        receipt = conn.write_imported(
            extract.table,
            follow(_steady(extract.path, original.stamp, open_extract(extract.path))),
            file_sha=original.sha,
            file_format=original.format,
            message=message or f"Sync {extract.table} ({extract.state})",
        )
    except DatomError as error:
        return extract.unwritten(str(error))
    except OSError as error:
        return extract.unwritten(error.strerror or str(error))
    return Outcome(
        extract.file,
        extract.table,
        extract.state,
        receipt.action,
        receipt.version,
        receipt.data_sha,
        receipt.commit,
        None,
    )


def _extract(path: Path, known: dict[str, ImportInfo]) -> Extract:
    try:
        ending = extract_format(path)
        name = validate_name(path.stem)
    except InvalidRequestError as error:
        return Extract(path, None, UNSUPPORTED, f"{error.message} ({error.hint})" if error.hint else error.message)
    table = known.get(name)
    if table is not None and table.kind != "table":
        return Extract(path, None, UNSUPPORTED, f'"{name}" is a {table.kind}')
    try:
        stamp = _stamp(path)
        with path.open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Extract(path, None, UNSUPPORTED, error.strerror)
    original = Original(sha, ending, stamp)
    if table is None:
        return Extract(path, name, NEW, None, original)
    if table.file_sha == sha:
        return Extract(path, name, UNCHANGED)
    detail = None if table.file_sha else "the table was not imported from a file so far"
    return Extract(path, name, CHANGED, detail, original)


def _compared(extract: Extract, found: Iterable[Extract]) -> Extract:
    """`extract`, unless others of those `found` have its name."""
    others = [f'"{other.file}"' for other in found if other.table == extract.table and other is not extract]
    if extract.table is None or not others:
        return extract
    return Extract(extract.path, extract.table, CONFLICT, f"{', '.join(others)} would be the same table")


def _steady(path: Path, stamp: tuple[int, int], source: RowSource) -> RowSource:
    """The rows, refused at their end if the file is no longer the one that was hashed."""

    def batches() -> Iterator[pa.RecordBatch]:
        yield from source.batches()
        if _stamp(path) != stamp:
            raise InvalidRequestError(f'"{path.name}" was changed while it was read', hint="sync it again")

    return RowSource(source.schema, batches, source.rows)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
