"""The connection: what a session with a datom server is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.flight as fl

from . import text
from .calls import CONCURRENT_LOOKUPS, Calls, concurrently
from .extras import needing
from .origins import Pinned, one_each, pins_of
from .pins import Pin
from .plans import Plan
from .protocol.errors import DatomError, InvalidRequestError, NotFoundError, StoredDataError, VersionError
from .protocol.messages import ReadRequest
from .protocol.names import format_instant, validate_name
from .protocol.queries import SqlRequest
from .queries import Parameters, Queries, sql_request
from .reads import Instant, Reads, Scan, Selection, warn_caller
from .results import (
    Finding,
    Findings,
    History,
    Identity,
    ImportInfo,
    Prefetched,
    PrefetchedTables,
    ProjectInfo,
    Projects,
    ProjectSummary,
    Records,
    TableInfo,
    Tables,
    Version,
    WriteReceipt,
)
from .sets import DatomSet, Member
from .sources import RowSource
from .uploads import upload, write_request

if TYPE_CHECKING:
    from .drivers import AdbcConnection
    from .views import DuckDB


class Connection:
    """A session with a datom server, in one project. Made by `connect`; safe to use from many threads.

    Every method raises `DatomError`: besides what it names, ``unavailable``, ``timeout``, ``unauthenticated`` and
    ``permission_denied`` whenever the server says so. Calls that may be sent again after a passing failure are.

    Attributes:
        principal: who the server says the caller is.
        role: ``reader``, ``developer`` or ``admin``.
        project: where names of tables are looked up; None when none was given and several are visible.
        url: as given, normalised.
    """

    def __init__(self, calls: Calls, identity: Identity, project: str | None) -> None:
        self._calls = calls
        self._reads = Reads(calls)
        self._queries = Queries(calls, self._reads)
        self.principal = identity.principal
        self.role = identity.role
        self.url = ",".join(calls.replicas.urls)
        self._visible: list[str] = []
        if project is None:
            visible = [found.name for found in self.projects()] if identity.projects is None else identity.projects
            self._visible = visible
            project = visible[0] if len(visible) == 1 else None
        self.project = project

    @property
    def flight(self) -> fl.FlightClient:
        """A Flight client of the replica in use.

        Calls made with it carry the connection's token; deadlines, retries and errors are the caller's own affair.
        """
        return self._calls.replicas.lent()

    def close(self) -> None:
        """End the connection. Reads under way fail, and later calls do, as ``invalid_argument``."""
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return text.card(
            "datom connection",
            [
                ("Project", text.clean(self.project)),
                ("Role", text.clean(self.role)),
                ("Endpoint", self.url),
                ("Principal", text.clean(self.principal)),
            ],
        )

    # What there is.

    def whoami(self) -> Identity:
        """Who the server says the caller is."""
        return Identity.from_wire(self._ask("datom.whoami", {}))

    def projects(self) -> Projects:
        """The projects the caller may see."""
        return Projects(map(ProjectInfo.from_wire, self._calls.action("datom.projects", {})))

    def summary(self) -> ProjectSummary:
        """The project at a glance."""
        return ProjectSummary.from_wire(self._ask("datom.summary", {"project": self._project()}))

    def tables(self, pattern: str | None = None) -> Tables:
        """The project's tables and sets, as its manifest lists them.

        Args:
            pattern: a glob on the name, such as ``"l*"``.
        """
        body = {"project": self._project(), "pattern": pattern}
        return Tables(map(TableInfo.from_wire, self._calls.listing("datom.tables", body)))

    def imports(self) -> list[ImportInfo]:
        """The project's tables and sets, each with the file it was imported from."""
        return list(map(ImportInfo.from_wire, self._calls.listing("datom.tables", {"project": self._project()})))

    def history(self, name: str, limit: int | None = None) -> History:
        """The versions of a table or set, newest first; at most `limit` of them."""
        body = {"project": self._project(), "table": name, "limit": limit}
        return History(map(Version.from_wire, self._calls.listing("datom.history", body)))

    def metadata(self, name: str, version: str | None = None, *, as_of: Instant | None = None) -> dict[str, Any]:
        """A version's metadata document, as stored."""
        return self._ask("datom.metadata", self._version_body(name, version, as_of))

    def parents(self, name: str, version: str | None = None, *, as_of: Instant | None = None) -> Records | None:
        """What a version was derived from, as recorded; None when nothing is recorded."""
        return self._records("parents", name, version, as_of)

    def lineage(self, name: str, version: str | None = None, *, as_of: Instant | None = None) -> Records | None:
        """The imports that a version goes back to, as recorded; None when nothing is recorded."""
        return self._records("lineage", name, version, as_of)

    def validate(self, name: str | None = None) -> Findings:
        """What the server finds when it compares documents and bytes, of one table or of the whole project."""
        body = {"project": self._project(), "table": name}
        return Findings(map(Finding.from_wire, self._calls.action("datom.validate", body)))

    # Rows.

    def schema(
        self,
        name: str,
        version: str | None = None,
        *,
        as_of: Instant | None = None,
        pin: Pin | None = None,
    ) -> pa.Schema:
        """A version's columns and types, without moving data.

        Its metadata names ``datom.project``, ``datom.table``, ``datom.version`` and ``datom.data_sha``.
        """
        return self._reads.plan(self._select(name, version, as_of, pin)).schema

    def read(
        self,
        name: str,
        version: str | None = None,
        *,
        as_of: Instant | None = None,
        pin: Pin | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
    ) -> pa.Table:
        """Rows of one version of a table: all that were asked for, or an error.

        Args:
            version: a full id or a unique prefix of one; None is the current version.
            as_of: take the version that was current at that instant. Naive is UTC, a bare date the end of that day.
            pin: take the version that the pin holds. At most one of `version`, `as_of` and `pin` may be given.
            columns: names, in the order wanted; None is all.
            where: a SQL boolean expression over the table's columns, applied on the server.
            limit: the first so many rows.

        Raises:
            NotFoundError: ``not_found``; VersionError: ``version_not_found``, ``version_ambiguous``.
            InvalidRequestError: ``invalid_argument``, ``kind_mismatch`` (it is a set), ….
            IntegrityError: ``integrity_mismatch``: what is stored is not what was recorded.
            UnavailableError: ``truncated`` when the rows keep ending early; ``timeout``, ``unavailable``, ….
        """
        return self._reads.table(self._select(name, version, as_of, pin, columns, where, limit))

    def scan(
        self,
        name: str,
        version: str | None = None,
        *,
        as_of: Instant | None = None,
        pin: Pin | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """As `read`, the rows arriving batch by batch while they are used.

        Letting go of the reader half way cancels the call. An error raised while reading means that the batches
        before it are the first rows of the version, and that some are missing.
        """
        return self.open(name, version, as_of=as_of, pin=pin, columns=columns, where=where, limit=limit).reader()

    def open(
        self,
        name: str,
        version: str | None = None,
        *,
        as_of: Instant | None = None,
        pin: Pin | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
    ) -> Scan:
        """As `scan`, stopping before the rows move: to know their version, schema and number first."""
        return self._reads.scan(self._select(name, version, as_of, pin, columns, where, limit))

    def prefetch(
        self,
        names: Iterable[str] | str | None = None,
        version: str | None = None,
        *,
        as_of: Instant | None = None,
        pin: Pin | None = None,
    ) -> PrefetchedTables:
        """Have the server fetch tables to its cache, so that those who read them next need not wait for the storage.

        A table that cannot be had is a row with an `error`, and stops no other.

        Args:
            names: tables; None is every table of the project, or of the pin.
            version, as_of, pin: as for `read`; `version` is of one table.
        """
        if names is None:
            wanted = list(pin.tables) if pin is not None else [row.name for row in self.tables() if row.kind == "table"]
        else:
            wanted = list(dict.fromkeys([names] if isinstance(names, str) else names))
        if version is not None and len(wanted) != 1:
            raise InvalidRequestError("a version is of one table", hint="name the table, or give as_of or a pin")
        selections = [self._select(name, version, as_of, pin) for name in wanted]
        return PrefetchedTables(concurrently(self._prefetched, selections, CONCURRENT_LOOKUPS))

    # SQL.

    def sql(
        self,
        query: str,
        parameters: Parameters | None = None,
        *,
        as_of: Instant | None = None,
        pin: Pinned | None = None,
    ) -> pa.Table:
        """The rows of one SELECT, run on the server: all of them, or an error.

        Tables are ``name``, ``PROJECT.name`` and ``"set".name``; versions ``name AT (VERSION => '8a3b21cc')``.
        The schema's metadata has ``datom.pins``: the versions that were read, as JSON.

        Args:
            parameters: values for ``?`` and ``$1`` in order, or for ``$name`` by name.
            as_of: read tables, where the query names no version, as they were at that instant.
            pin: likewise at the versions that the pin holds, or that an earlier result was computed from: given that,
                the same query gives the same rows.

        Raises:
            InvalidRequestError: ``sql_error``, ``invalid_argument``, ``too_large``, ….
            NotFoundError: ``not_found``; VersionError: ``version_not_found``: the pin lacks a table; ….
            UnavailableError: ``timeout``: the query takes longer than the server or `connect` allows; ….
        """
        return self._queries.table(self._query(query, parameters, as_of, pin))

    def open_sql(
        self,
        query: str,
        parameters: Parameters | None = None,
        *,
        as_of: Instant | None = None,
        pin: Pinned | None = None,
    ) -> Scan:
        """As `sql`, stopping before the rows move: to know their schema first, and to have them batch by batch."""
        return self._queries.scan(self._query(query, parameters, as_of, pin))

    def adbc(self, *, as_of: Instant | None = None, autocommit: bool = True) -> AdbcConnection:
        """A DBAPI connection of the stock ADBC driver, as this connection is: same server, token and project.

        It lives on its own: it does not move on to another replica, and a token that `role` narrowed is not renewed.
        Its errors are the driver's.

        Args:
            as_of: read tables as they were at that instant.
            autocommit: False begins a transaction: all is read as of now, until ``commit()`` or ``rollback()``.

        Raises:
            InvalidRequestError: ``unsupported``: the extra ``adbc`` is not installed.
        """
        with needing("adbc"):
            from .drivers import adbc_connection
        instant = None if as_of is None else format_instant(as_of)
        return adbc_connection(self._calls, self.project, instant, autocommit)

    def duckdb(
        self, names: Iterable[str] | None = None, *, as_of: Instant | None = None, pin: Pin | None = None
    ) -> DuckDB:
        """A DuckDB database in memory whose views are the project's tables, to be queried by any number of cursors.

        A view fetches when it is used: the columns that the query names, and the rows that pass those of its filters
        that the server knows. Views are ``name`` and ``PROJECT.name``, and ``"set".name`` for the tables in a set.
        Their versions are settled now, and stay: a view's comment says which it is.

        Args:
            names: tables and sets; None is all there are (with `as_of`: that there were). Of these, one that cannot
                be shown is left out with a `DatomWarning`.
            as_of: the versions current at that instant, instead of now.
            pin: the versions that the pin holds; None of `names` is then all its tables.

        Raises:
            InvalidRequestError: ``unsupported``: the extra ``duckdb`` is not installed, or DuckDB takes no such table.
            as `read`, for one of `names`. Errors while a view is used are DuckDB's, and say what this one's would.
        """
        with needing("duckdb"):
            from .views import View, member_views, open_views
        lenient = names is None

        def refused(name: str, error: DatomError) -> None:
            if not lenient:
                raise error
            if as_of is None or error.code != "version_not_found":
                warn_caller(f'there is no view of "{name}": {error}')

        kinds = {} if pin is not None else {found.name: found.kind for found in self.tables()}
        wanted = (
            (kinds if pin is None else pin.tables) if names is None else [names] if isinstance(names, str) else names
        )
        tables = [name for name in dict.fromkeys(wanted) if kinds.get(name) != "set"]
        sets = [name for name in dict.fromkeys(wanted) if kinds.get(name) == "set"]
        home = tuple(dict.fromkeys(("main", self._project() if pin is None else pin.project)))
        views = [View(home, name, self._select(name, as_of=as_of, pin=pin)) for name in tables]
        for name in sets:
            try:
                views += member_views(self.set(name, as_of=as_of), refused)
            except (NotFoundError, StoredDataError) as error:
                refused(name, error)
        return open_views(self._reads, views, refused)

    # Sets.

    def set(self, name: str, version: str | None = None, *, as_of: Instant | None = None) -> DatomSet:
        """A version of a set: its labels and members, no data.

        Raises:
            InvalidRequestError: ``kind_mismatch``: it is a table.
            StoredDataError: ``set_payload_malformed``, ``set_member_malformed``, ``document_sha_missing``, ….
        """
        return DatomSet.from_wire(self._ask("datom.set", self._version_body(name, version, as_of)))

    def read_member(
        self,
        set: DatomSet,
        name: str | Member,
        *,
        tags: Mapping[str, str | Sequence[str]] | None = None,
        version: str | None = None,
    ) -> pa.Table | DatomSet:
        """One member of a set at the version the set cites: a table's rows, or another set.

        Args:
            name: the member's name, or the member itself.
            tags: labels it must carry, for a name that several members have.
            version: how its version must begin, likewise.

        Raises:
            NotFoundError: ``member_not_found``, ``member_ambiguous``; ``member_project_mismatch`` when it belongs to
                another project and cannot be read there.
            StoredDataError: ``member_kind_unknown``: a newer kind than this release knows.
        """
        if isinstance(name, Member):
            if tags is not None or version is not None:
                raise InvalidRequestError("tags and version narrow a name; a Member is one member already")
            member = name
        else:
            member = set.member(name, tags=tags, version=version)
        cited = member.id
        try:
            if cited.kind == "table":
                return self._reads.table(Selection.of(cited.project, cited.name, cited.version))
            if cited.kind == "set":
                body = {"project": cited.project, "table": cited.name, "version": cited.version}
                return DatomSet.from_wire(self._ask("datom.set", body))
        except NotFoundError as error:
            if cited.project == self.project:
                raise
            raise NotFoundError(
                f'member "{cited.name}" belongs to project "{cited.project}" and could not be read: {error.message}',
                code="member_project_mismatch",
                fields={"project": cited.project, "cause": error.code},
                request_id=error.request_id,
            ) from error
        raise StoredDataError(
            f'member "{cited.name}" is of kind "{cited.kind}", not a table or a set', code="member_kind_unknown"
        )

    # Pins.

    def pin(self, names: Iterable[str] | Pinned | None = None, *, as_of: Instant | None = None) -> Pin:
        """The versions of tables, to keep beside an analysis and read again later.

        Args:
            names: the tables; None is every table of the project (with `as_of`: every one that existed then). Or a
                result of `sql` or `read`: the tables it was computed from, at the versions they had for it.
            as_of: the versions current at that instant, instead of now.

        Raises:
            VersionError: ``version_not_found``: a table named has no version then, or one without a name;
                ``version_ambiguous``: the result was computed from two versions of a table.
        """
        if isinstance(names, Pinned):
            return self._pin_of(names, as_of)
        if names is None:
            wanted = [found.name for found in self.tables() if found.kind == "table"]
        else:
            wanted = list(dict.fromkeys([names] if isinstance(names, str) else names))
        selections = [self._select(name, as_of=as_of) for name in wanted]
        return self._pinned(self._project(), selections, may_lack=names is None and as_of is not None)

    def verify(self, pin_or_name: Pin | str, version: str | None = None) -> Findings:
        """Whether tables still have the values their `data_sha` names, computed here from the rows that arrive.

        One finding a table. Data that is damaged, gone or cannot be hashed is a finding too, not an error. R's own
        parquet files lose a little of some types (units of time spans, fractions of seconds), and such a table then
        differs although nothing happened to it.
        """
        # Hashing loads far more than reading does.
        from .verification import verify

        if isinstance(pin_or_name, Pin):
            if version is not None:
                raise InvalidRequestError("a pin names the versions already", hint="leave version out")
            selections = [self._select(name, pin=pin_or_name) for name in pin_or_name.tables]
        else:
            selections = [self._select(pin_or_name, version)]
        return Findings(verify(self._reads, selection) for selection in selections)

    # Writing.

    def write(
        self,
        name: str,
        data: object,
        *,
        message: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        parents: Sequence[Mapping[str, Any] | str] | None = None,
        expected: str | None = None,
    ) -> WriteReceipt:
        """Make `data` the current version of a table, all of it or nothing.

        Content that is current already is not written again. After a passing failure the rows are sent again, unless
        they came as a stream of more than 16 MiB.

        Args:
            data: a table, record batch or reader of pyarrow, or anything with ``__arrow_c_stream__``, such as a data
                frame of pandas or polars. A reader is sent batch by batch, whatever its length.
            message: of the commit; None is ``Update NAME``.
            metadata: kept with the version as ``custom``.
            parents: what the rows were derived from: entries as `parents` gives them, or ``"TABLE@VERSION"`` and
                ``"PROJECT/TABLE@VERSION"``, where a unique prefix of the version will do.
            expected: the full id that must be the current version, or ``""`` for a table that must not exist yet.

        Raises:
            PermissionDeniedError: ``permission_denied``: the role is ``reader``.
            ConflictError: ``conflict``: the current version is not `expected`, but ``fields["current"]``.
            InvalidRequestError: ``not_hashable``, with all such columns; ``invalid_argument``, ``invalid_name``,
                ``kind_mismatch``, ``too_large``.
            VersionError: ``version_not_found``, ``version_ambiguous``: of a parent.
        """
        request = write_request(
            self._project(), name, parents=parents, message=message, metadata=metadata, expected=expected
        )
        return upload(self._calls, request, RowSource.of(data))

    def write_imported(
        self, name: str, data: object, *, file_sha: str, file_format: str, message: str | None = None
    ) -> WriteReceipt:
        """As `write`, for rows as they stood in a file: the version records the file and is its own source.

        Args:
            file_sha: sha256 of the file's bytes, 64 hex digits.
            file_format: its ending, such as ``csv``.
        """
        request = write_request(
            self._project(), name, message=message, original_file_sha=file_sha, original_format=file_format
        )
        return upload(self._calls, request, RowSource.of(data))

    def write_set(
        self,
        name: str,
        members: Iterable[Member | Mapping[str, Any]],
        *,
        tags: Mapping[str, str | Sequence[str]] | None = None,
        message: str | None = None,
        expected: str | None = None,
    ) -> WriteReceipt:
        """Make `members` the current version of a set.

        Args:
            members: of a `DatomSet`, or ``{"id": {"project", "name", "kind", "version"}, "tags": {…}}`` each.
            tags: the set's own labels, each a text or several.
            message, expected: as for `write`.

        Raises:
            as `write`, and NotFoundError: ``not_found``: the caller may not see a member.
        """
        cited = [member.to_wire() if isinstance(member, Member) else member for member in members]
        body: dict[str, Any] = {"project": self._project(), "table": validate_name(name, "set"), "members": cited}
        body |= {"tags": tags, "message": message, "expected": expected}
        return WriteReceipt.from_wire(self._ask("datom.write_set", body))

    # How it is done.

    def _pin_of(self, result: Pinned, as_of: Instant | None) -> Pin:
        if as_of is not None:
            raise InvalidRequestError("as_of cannot be given with a result", hint="it has its versions already")
        project, held = one_each(pins_of(result))
        selections = [Selection(ReadRequest(project, pin.table, pin.version), pin.data_sha) for pin in held]
        return self._pinned(project, selections)

    def _pinned(self, project: str, selections: Sequence[Selection], may_lack: bool = False) -> Pin:
        plans = concurrently(partial(self._existing, may_lack=may_lack), selections, CONCURRENT_LOOKUPS)
        held = {
            selection.request.table: self._reads.heeded(plan, selection).pinned(selection.request.table)
            for selection, plan in zip(selections, plans, strict=True)
            if plan is not None
        }
        return Pin(project, dict(sorted(held.items())))

    def _query(
        self, query: str, parameters: Parameters | None, as_of: Instant | None, pin: Pinned | None
    ) -> SqlRequest:
        return sql_request(query, self.project, parameters, as_of, pin)

    def _existing(self, selection: Selection, *, may_lack: bool) -> Plan | None:
        try:
            return self._reads.resolve(selection)
        except VersionError as error:
            if may_lack and error.code == "version_not_found":
                return None
            raise

    def _select(
        self,
        name: str,
        version: str | None = None,
        as_of: Instant | None = None,
        pin: Pin | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
    ) -> Selection:
        project = pin.project if pin is not None and self.project is None else self._project()
        return Selection.of(project, name, version, as_of, pin, columns, where, limit)

    def _version_body(self, name: str, version: str | None, as_of: Instant | None) -> dict[str, Any]:
        return _naming(self._select(name, version, as_of))

    def _prefetched(self, selection: Selection) -> Prefetched:
        return Prefetched.from_wire(self._ask("datom.prefetch", _naming(selection)))

    def _records(self, what: str, name: str, version: str | None, as_of: Instant | None) -> Records | None:
        found = self._ask(f"datom.{what}", self._version_body(name, version, as_of)).get(what)
        return Records(record for record in found if isinstance(record, dict)) if isinstance(found, list) else None

    def _ask(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return single(self._calls.action(action, body), action)

    def _project(self) -> str:
        if self.project is None:
            visible = ", ".join(f'"{name}"' for name in self._visible) or "none"
            raise InvalidRequestError(
                f"no project was named; visible to {self.principal}: {visible}",
                hint="connect with project=NAME, or set DATOM_FLIGHT_PROJECT",
            )
        return self.project


def _naming(selection: Selection) -> dict[str, Any]:
    """What an action's body says of the version that is selected."""
    return {key: getattr(selection.request, key) for key in ("project", "table", "version", "as_of")}


def single(answers: list[dict[str, Any]], action: str) -> dict[str, Any]:
    """The one answer to an action that gives one.

    Raises:
        InternalError: there are none, or several.
    """
    if len(answers) != 1:
        raise DatomError.of("internal", f"the server gave {len(answers)} answers to {action}, not one")
    return answers[0]
