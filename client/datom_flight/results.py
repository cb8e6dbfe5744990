"""What the server answers, as values; and lists of them that print as aligned tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, SupportsIndex, TypeVar, overload

from . import text
from .protocol import writes
from .protocol.errors import InternalError, InvalidRequestError

if TYPE_CHECKING:
    import pandas

T = TypeVar("T")

MAX_PRINTED_ROWS = 60


class Column(NamedTuple):
    """One column of a printed table: its name, the text of its values, and whether it ends flush right."""

    name: str
    show: Callable[[Sequence[Any]], list[str]]
    right: bool = False


def each(show: Callable[[Any], str]) -> Callable[[Sequence[Any]], list[str]]:
    """A column's text, value by value."""
    return lambda values: [show(value) for value in values]


class Listing(list[T], Generic[T]):
    """A list that prints as an aligned table. A slice of it is one too."""

    columns: ClassVar[tuple[Column, ...]]
    empty: ClassVar[str] = "nothing"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The headers, and each row's texts, as printed."""
        records = self.records()
        shown = [column.show([record[column.name] for record in records]) for column in self.columns]
        return [column.name for column in self.columns], [list(row) for row in zip(*shown, strict=True)]

    def records(self) -> list[dict[str, Any]]:
        """Each item as a flat dict, field by field."""
        return [_shallow(item) for item in self]

    def to_pandas(self) -> pandas.DataFrame:
        """The items as a data frame, one row each, values in full.

        Raises:
            InvalidRequestError: ``unsupported`` when pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise InvalidRequestError(
                "to_pandas needs pandas, which is not installed", code="unsupported", hint="pip install pandas"
            ) from None
        records = self.records()
        names = list(records[0]) if records else [column.name for column in self.columns]
        return pd.DataFrame.from_records(records, columns=names)

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: SupportsIndex | slice) -> T | Self:
        found = super().__getitem__(index)
        return type(self)(found) if isinstance(index, slice) else found  # type: ignore[arg-type, return-value]

    def __repr__(self) -> str:
        if not self:
            return self.empty
        headers, rows = self[:MAX_PRINTED_ROWS].cells()
        table = text.aligned(headers, rows, [column.right for column in self.columns])
        return f"{table}\n{self._rest()}" if self._rest() else table

    __str__ = __repr__

    def _repr_html_(self) -> str:
        headers, rows = self[:MAX_PRINTED_ROWS].cells()
        return text.html_table(headers, rows, self._rest())

    def _rest(self) -> str:
        left = len(self) - MAX_PRINTED_ROWS
        return f"… and {left} more" if left > 0 else ""


def _shallow(item: Any) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in fields(item)}


@dataclass(frozen=True, slots=True)
class ProjectInfo:
    """A project the caller may see, and where its data is; `tables` is None when unknown."""

    name: str
    backend: str | None
    root: str | None
    prefix: str | None
    tables: int | None

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> ProjectInfo:
        """The row of ``datom.projects`` in `body`."""
        return cls(required(body, "name"), *(body.get(key) for key in ("backend", "root", "prefix", "tables")))


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table or set as the project's manifest lists it.

    Attributes:
        kind: ``table`` or ``set``.
        version, data_sha: of the current version.
        last_updated: UTC.
        versions: how many there are.
    """

    name: str
    kind: str
    version: str | None
    data_sha: str | None
    size_bytes: int | None
    last_updated: datetime | None
    versions: int | None

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> TableInfo:
        """The row of ``datom.tables`` in `body`."""
        return cls(
            name=required(body, "name"),
            kind=required(body, "kind"),
            version=body.get("version"),
            data_sha=body.get("data_sha"),
            size_bytes=body.get("size_bytes"),
            last_updated=parse_timestamp(body.get("last_updated")),
            versions=body.get("versions"),
        )


@dataclass(frozen=True, slots=True)
class ImportInfo:
    """A table or set of the project, and the file it was imported from, if it was.

    Attributes:
        kind: ``table`` or ``set``.
        file_sha: sha256 of the file; None when the current version is of no file.
    """

    name: str
    kind: str
    file_sha: str | None

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> ImportInfo:
        """The row of ``datom.tables`` in `body`."""
        return cls(required(body, "name"), required(body, "kind"), body.get("original_file_sha"))


@dataclass(frozen=True, slots=True)
class Version:
    """One entry of a table's history; what the history does not record is None.

    Attributes:
        version: its full id, 64 hex digits.
        data_sha: names the values.
        parquet_sha: names the stored bytes (of a set: its document).
        timestamp: when it was written, UTC.
        author: ``Name <email>``.
        commit: the recorded commit of the data repository.
    """

    version: str
    data_sha: str | None
    parquet_sha: str | None
    timestamp: datetime | None
    author: str | None
    message: str | None
    commit: str | None

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> Version:
        """The row of ``datom.history`` in `body`."""
        return cls(
            version=required(body, "version"),
            data_sha=body.get("data_sha"),
            parquet_sha=body.get("parquet_sha"),
            timestamp=parse_timestamp(body.get("timestamp")),
            author=body.get("author"),
            message=body.get("message"),
            commit=body.get("commit"),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `table` and `version` are None for a check of the whole project."""

    table: str | None
    version: str | None
    check: str
    ok: bool
    detail: str | None

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> Finding:
        """The row of ``datom.validate`` in `body`."""
        return cls(
            body.get("table"), body.get("version"), required(body, "check"), body.get("ok") is True, body.get("detail")
        )


@dataclass(frozen=True, slots=True)
class Prefetched:
    """What came of one table that the server was to fetch.

    Attributes:
        version, data_sha, size_bytes: of what the server has now; None with an `error`.
        fetched: whether it had to be; False is that it was there already.
        error: the code of what prevented it; None is nothing.
        detail: the same in words.
    """

    table: str
    version: str | None
    data_sha: str | None
    size_bytes: int | None
    fetched: bool
    error: str | None
    detail: str | None

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> Prefetched:
        """The row of ``datom.prefetch`` in `body`."""
        return cls(
            table=required(body, "table"),
            version=body.get("version"),
            data_sha=body.get("data_sha"),
            size_bytes=body.get("size_bytes"),
            fetched=body.get("fetched") is True,
            error=body.get("error"),
            detail=body.get("detail"),
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the server says the caller is; `projects` is None when the role holds for all of them."""

    principal: str
    role: str
    projects: list[str] | None

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> Identity:
        """The answer of ``datom.whoami`` in `body`."""
        projects = body.get("projects")
        return cls(
            required(body, "principal"),
            required(body, "role"),
            sorted(str(name) for name in projects) if isinstance(projects, list) else None,
        )

    def __str__(self) -> str:
        projects = "all" if self.projects is None else ", ".join(map(text.clean, self.projects)) or "none"
        return text.card(
            "datom identity",
            [("Principal", text.clean(self.principal)), ("Role", text.clean(self.role)), ("Projects", projects)],
        )


@dataclass(frozen=True, slots=True)
class ProjectSummary:
    """A project at a glance: the caller's role in it, where its data is, and how much there is."""

    project: str
    role: str | None
    backend: str | None
    root: str | None
    prefix: str | None
    tables: int | None
    sets: int | None
    versions: int | None
    size_bytes: int | None
    last_updated: datetime | None

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> ProjectSummary:
        """The answer of ``datom.summary`` in `body`."""
        values: dict[str, Any] = {field.name: body.get(field.name) for field in fields(cls)}
        values["project"] = required(body, "project")
        values["last_updated"] = parse_timestamp(body.get("last_updated"))
        return cls(**values)

    def __str__(self) -> str:
        return text.card(
            "datom project",
            [
                ("Project", text.clean(self.project)),
                ("Role", text.clean(self.role)),
                ("Backend", text.clean(self.backend)),
                ("Root", text.clean(self.root)),
                ("Prefix", text.clean(self.prefix)),
                ("Tables", text.count(self.tables)),
                ("Sets", text.count(self.sets)),
                ("Versions", text.count(self.versions)),
                ("Size", text.byte_size(self.size_bytes)),
                ("Last updated", text.instant(self.last_updated)),
            ],
        )


class WriteReceipt(writes.WriteReceipt):
    """What a write did.

    Attributes:
        table: the table or set.
        version: the version that is current now, its full id.
        parquet_sha: names the stored bytes (of a set: its document).
        commit: of the data repository; None when nothing was written.
        action: ``full``, ``metadata_only`` (the rows are those of the version before), or ``none`` (nothing changed).
    """

    __slots__ = ()

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> Self:
        """The receipt in `body`."""
        for key in ("table", "version", "data_sha", "action"):
            required(body, key)
        return cls.from_object(body)

    def __str__(self) -> str:
        return text.card(
            "datom write",
            [
                ("Table", text.clean(self.table)),
                ("Version", text.clean(self.version)),
                ("Data", text.clean(self.data_sha)),
                ("Parquet", text.clean(self.parquet_sha)),
                ("Commit", text.clean(self.commit)),
                ("Action", _ACTIONS.get(self.action, text.clean(self.action))),
            ],
        )


_ACTIONS = {
    "full": "full: a new version with new data",
    "metadata_only": "metadata_only: a new version of the same data",
    "none": "none: this is the current version already",
}


class Projects(Listing[ProjectInfo]):
    """What `Connection.projects` gives."""

    columns = (
        Column("name", each(text.clean)),
        Column("backend", each(text.clean)),
        Column("root", each(text.clean)),
        Column("prefix", each(text.clean)),
        Column("tables", each(text.count), right=True),
    )
    empty = "no projects"


class Tables(Listing[TableInfo]):
    """What `Connection.tables` gives."""

    columns = (
        Column("name", each(text.clean)),
        Column("kind", each(text.clean)),
        Column("version", text.short_ids),
        Column("data_sha", text.short_ids),
        Column("size_bytes", each(text.byte_size), right=True),
        Column("last_updated", each(text.instant)),
        Column("versions", each(text.count), right=True),
    )
    empty = "no tables"


class History(Listing[Version]):
    """What `Connection.history` gives, newest first."""

    columns = (
        Column("version", text.short_ids),
        Column("timestamp", each(text.instant)),
        Column("author", each(text.clipped)),
        Column("message", each(text.clipped)),
        Column("data_sha", text.short_ids),
        Column("commit", text.short_ids),
    )
    empty = "no versions"


class Findings(Listing[Finding]):
    """What `Connection.validate` and `Connection.verify` give."""

    columns = (
        Column("table", each(text.clean)),
        Column("version", text.short_ids),
        Column("check", each(text.clean)),
        Column("ok", each(lambda ok: "yes" if ok else "NO")),
        Column("detail", each(text.clean)),
    )
    empty = "no findings"


class PrefetchedTables(Listing[Prefetched]):
    """What `Connection.prefetch` gives."""

    columns = (
        Column("table", each(text.clean)),
        Column("version", text.short_ids),
        Column("size_bytes", each(text.byte_size), right=True),
        Column("fetched", each(lambda fetched: "yes" if fetched else "no")),
        Column("error", each(text.clean)),
        Column("detail", each(text.clipped)),
    )
    empty = "no tables"


class Records(Listing[dict[str, Any]]):
    """Documents' entries as recorded (parents, lineage), one dict each."""

    empty = "none recorded"

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        """One column for each key that any of the records has."""
        names = dict.fromkeys(key for record in self for key in record)
        return tuple(Column(name, each(text.clipped)) for name in names)

    def records(self) -> list[dict[str, Any]]:
        """Each record, with None under the keys it lacks."""
        names = dict.fromkeys(key for record in self for key in record)
        return [{name: record.get(name) for name in names} for record in self]


def required(body: Mapping[str, Any], key: str) -> str:
    """The text under `key` of a server's answer.

    Raises:
        InternalError: it is not there.
    """
    value = body.get(key)
    if not isinstance(value, str):
        raise InternalError(
            f'the server\'s answer has no text under "{key}"', hint="client and server may be of different releases"
        )
    return value


def parse_timestamp(value: object) -> datetime | None:
    """The instant in an ISO 8601 text, in UTC; None when it is missing or damaged."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
