"""Pins: exactly which versions an analysis used, as a file to commit beside it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import text
from .files import replacing
from .protocol.errors import DatomError, InvalidRequestError, VersionError
from .protocol.messages import decode_object
from .protocol.names import is_full_version, validate_name
from .results import Column, Listing, each

FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DATA_ADDRESS = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, slots=True)
class PinnedTable:
    """One table of a pin: the version, its hashes, and its number of rows.

    Attributes:
        parquet_sha: None where the store records none (stores written before hashes of stored bytes).
    """

    version: str
    data_sha: str
    parquet_sha: str | None
    rows: int


@dataclass(frozen=True, slots=True)
class PinRow:
    """A pinned table with its name."""

    table: str
    version: str
    data_sha: str
    parquet_sha: str | None
    rows: int


class PinRows(Listing[PinRow]):
    """A pin's tables, in order of name."""

    columns = (
        Column("table", each(text.clean)),
        Column("version", text.short_ids),
        Column("data_sha", text.short_ids),
        Column("rows", each(text.count), right=True),
    )
    empty = "no tables"


@dataclass(frozen=True, slots=True)
class Pin:
    """The versions of a project's tables, by name. Saved text is the same for the same pin, byte for byte."""

    project: str
    tables: Mapping[str, PinnedTable] = field(default_factory=dict)

    def __getitem__(self, table: str) -> PinnedTable:
        """What is pinned for `table`.

        Raises:
            VersionError: ``version_not_found``, naming the tables the pin holds.
        """
        if table not in self.tables:
            held = ", ".join(f'"{name}"' for name in self.tables) or "no tables"
            raise VersionError(f'the pin of project "{self.project}" holds no table "{table}"', hint=f"it holds {held}")
        return self.tables[table]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pin as JSON, tables in order of name. The file is replaced as a whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8", newline="\n")

    def to_json(self) -> str:
        """The text that `save` writes."""
        tables = {name: asdict(self.tables[name]) for name in sorted(self.tables)}
        body = {"datom_pin": FORMAT, "project": self.project, "tables": tables}
        return json.dumps(body, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Pin:
        """The pin that `save` wrote.

        Raises:
            InvalidRequestError: ``invalid_argument`` when the file is not a pin, naming what is wrong with it.
            OSError: the file cannot be read.
        """
        data = Path(path).read_bytes()
        try:
            return cls._from_object(decode_object(data, "the file", {"datom_pin", "project", "tables"}))
        except DatomError as error:
            reason = error.message
        raise InvalidRequestError(
            f'"{os.fspath(path)}" is not a pin: {reason}', hint="write one with `datom-flight pin -o FILE`"
        )

    @classmethod
    def _from_object(cls, body: dict[str, Any]) -> Pin:
        if body.get("datom_pin") != FORMAT or isinstance(body.get("datom_pin"), bool):
            raise InvalidRequestError(f'"datom_pin" is not {FORMAT}')
        tables = body.get("tables")
        if not isinstance(tables, dict):
            raise InvalidRequestError('"tables" is not an object')
        return cls(
            validate_name(body.get("project"), "project"),
            {validate_name(name): _pinned(name, entry) for name, entry in tables.items()},
        )

    def __str__(self) -> str:
        head = text.card("datom pin", [("Project", text.clean(self.project)), ("Tables", str(len(self.tables)))])
        return f"{head}\n{self.rows()}"

    def _repr_html_(self) -> str:
        return self.rows()._repr_html_()

    def rows(self) -> PinRows:
        """The pinned tables, one a row, as printed."""
        return PinRows(PinRow(name, **asdict(pinned)) for name, pinned in self.tables.items())


def _pinned(name: str, entry: object) -> PinnedTable:
    def refuse(key: str, expected: str) -> InvalidRequestError:
        return InvalidRequestError(f'"{key}" of table "{name}" is not {expected}')

    if not isinstance(entry, dict) or set(entry) != {"version", "data_sha", "parquet_sha", "rows"}:
        raise InvalidRequestError(f'table "{name}" does not have exactly version, data_sha, parquet_sha and rows')
    version, data_sha, parquet_sha, rows = (entry[key] for key in ("version", "data_sha", "parquet_sha", "rows"))
    if not isinstance(version, str) or not is_full_version(version):
        raise refuse("version", "64 hex digits")
    if not isinstance(data_sha, str) or not _DATA_ADDRESS.fullmatch(data_sha):
        raise refuse("data_sha", "6 to 64 hex digits")
    if parquet_sha is not None and not (isinstance(parquet_sha, str) and _SHA256.fullmatch(parquet_sha)):
        raise refuse("parquet_sha", "64 hex digits or null")
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise refuse("rows", "a whole number from 0")
    return PinnedTable(version, data_sha, parquet_sha, rows)
