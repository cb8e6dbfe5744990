"""The actions: a JSON object in, JSON objects out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from datom_flight.protocol.errors import DatomError, InvalidRequestError
from datom_flight.protocol.listings import pack
from datom_flight.protocol.messages import (
    ACTIONS,
    decode_object,
    encode_object,
    optional_count,
    optional_text,
    optional_version,
    required_name,
)
from datom_flight.protocol.names import validate_name

from ..auth.base import Authenticator, Policy
from ..metadata.layout import HistoryEntry, ManifestRow
from ..model import Kind, Role
from ..versions.catalog import Catalog
from ..versions.prefetching import Prefetched, Prefetching
from ..versions.projects import Projects
from ..versions.validation import findings
from .middleware import Request
from .writes import Writes

Body = Mapping[str, Any]
Results = Iterator[Mapping[str, Any]]

_LISTINGS = frozenset({"datom.tables", "datom.history"})
_MAX_TABLES = 10_000
_VERSION_KEYS = ("project", "table", "version", "as_of")


class Actions:
    """Answers DoAction. What it may be asked is `ACTIONS`."""

    def __init__(
        self,
        projects: Projects,
        policy: Policy,
        authenticator: Authenticator,
        writes: Writes,
        prefetching: Prefetching,
    ) -> None:
        self._projects = projects
        self._policy = policy
        self._authenticator = authenticator
        self._writes = writes
        self._prefetching = prefetching
        self._handlers: Mapping[str, tuple[Callable[[Request, Body], Results], tuple[str, ...]]] = {
            "datom.projects": (self._list_projects, ()),
            "datom.tables": (self._tables, ("project", "pattern")),
            "datom.history": (self._history, ("project", "table", "limit")),
            "datom.metadata": (self._metadata, _VERSION_KEYS),
            "datom.parents": (self._parents, _VERSION_KEYS),
            "datom.lineage": (self._lineage, _VERSION_KEYS),
            "datom.set": (self._set, _VERSION_KEYS),
            "datom.summary": (self._summary, ("project",)),
            "datom.prefetch": (self._prefetch, (*_VERSION_KEYS, "tables")),
            "datom.validate": (self._validate, ("project", "table")),
            "datom.whoami": (self._whoami, ()),
            "datom.session": (self._session, ("role",)),
            "datom.write_set": (self._write_set, ("project", "table", "members", "tags", "message", "expected")),
        }

    def run(self, request: Request, name: str, body: bytes) -> Iterator[bytes]:
        """The results of the action `name`, each a JSON object in UTF-8; many rows in one for callers who take that.

        Raises:
            InvalidRequestError: ``unsupported`` for another action, ``invalid_argument`` for another key.
            DatomError: as the action does.
        """
        if name not in self._handlers:
            shown = name[:80].encode("unicode_escape").decode("ascii")
            raise InvalidRequestError(f'no action "{shown}"', code="unsupported", hint="known: " + ", ".join(ACTIONS))
        request.call.action = name
        handler, keys = self._handlers[name]
        arguments = decode_object(body, f"the body of {name}", keys) if body else {}
        results = handler(request, arguments)
        yield from pack(results) if request.packs and name in _LISTINGS else map(encode_object, results)

    def _catalog(self, request: Request, body: Body) -> Catalog:
        project = required_name(body, "project")
        table = body.get("table")
        request.call.about(project, table if isinstance(table, str) else None)
        self._policy.authorise(request.principal, project, Role.READER)
        return self._projects.catalog(project)

    def _list_projects(self, request: Request, body: Body) -> Results:
        for name in self._projects.names():
            if self._policy.visible(request.principal, name):
                yield self._project_row(name)

    def _project_row(self, name: str) -> Mapping[str, Any]:
        row: dict[str, Any] = {"name": name, "backend": None, "root": None, "prefix": None, "tables": None}
        try:
            catalog = self._projects.catalog(name)
            row |= _place(catalog)
            row["tables"] = sum(artifact.kind == Kind.TABLE.value for artifact in catalog.artifacts())
        except DatomError:
            # a project that cannot be reached stays in the list; asked for by name, it says why
            return row
        return row

    def _tables(self, request: Request, body: Body) -> Results:
        pattern = optional_text(body, "pattern")
        for row in self._catalog(request, body).artifacts(pattern):
            yield _artifact_row(row)

    def _history(self, request: Request, body: Body) -> Results:
        limit = optional_count(body, "limit")
        for entry in self._catalog(request, body).history(required_name(body, "table"))[:limit]:
            yield _history_row(entry)

    def _metadata(self, request: Request, body: Body) -> Results:
        yield self._document(request, body)

    def _parents(self, request: Request, body: Body) -> Results:
        yield {"parents": self._document(request, body).get("parents")}

    def _lineage(self, request: Request, body: Body) -> Results:
        yield {"lineage": self._document(request, body).get("source_lineage")}

    def _document(self, request: Request, body: Body) -> Mapping[str, Any]:
        version, as_of = optional_version(body)
        return self._catalog(request, body).metadata(required_name(body, "table"), version, as_of)

    def _set(self, request: Request, body: Body) -> Results:
        version, as_of = optional_version(body)
        catalog = self._catalog(request, body)
        found = catalog.resolve(required_name(body, "table"), Kind.SET, version, as_of)
        payload = catalog.set_payload(found)
        yield {
            "name": found.table,
            "project": found.project,
            "version": found.version,
            "data_sha": found.data_sha,
            "tags": payload.tags,
            "members": payload.members,
        }

    def _summary(self, request: Request, body: Body) -> Results:
        catalog = self._catalog(request, body)
        manifest = catalog.manifest()
        tables = [row for row in manifest.rows.values() if row.kind == Kind.TABLE.value]
        yield {
            "project": catalog.project.name,
            "role": request.principal.role.value,
            **_place(catalog),
            "tables": len(tables),
            "sets": sum(row.kind == Kind.SET.value for row in manifest.rows.values()),
            "versions": sum(row.versions or 0 for row in tables),
            "size_bytes": sum(row.size_bytes or 0 for row in tables),
            "last_updated": manifest.updated_at,
        }

    def _prefetch(self, request: Request, body: Body) -> Results:
        version, as_of = optional_version(body)
        named = _named_tables(body)
        if version is not None and len(named or ()) != 1:
            raise InvalidRequestError('"version" is of one table', hint="name the table, or give as_of")
        catalog = self._catalog(request, body)
        names = named or [row.name for row in catalog.artifacts() if row.kind == Kind.TABLE.value]
        return map(_prefetched_row, self._prefetching.tables(catalog, names, version, as_of))

    def _validate(self, request: Request, body: Body) -> Results:
        name = required_name(body, "table") if body.get("table") is not None else None
        catalog = self._catalog(request, body)
        for finding in [*findings(catalog, name), *self._writes.agreement(catalog.project, name)]:
            yield {
                "table": finding.table,
                "version": finding.version,
                "check": finding.check,
                "ok": finding.ok,
                "detail": finding.detail,
            }

    def _write_set(self, request: Request, body: Body) -> Results:
        yield self._writes.put_set(request, body).to_object()

    def _whoami(self, request: Request, body: Body) -> Results:
        who = request.principal
        projects = None if who.projects is None else sorted(who.projects)
        yield {"principal": who.name, "role": who.role.value, "projects": projects}

    def _session(self, request: Request, body: Body) -> Results:
        role = optional_text(body, "role")
        if role not in {known.value for known in Role}:
            raise InvalidRequestError('"role" is not one of ' + ", ".join(known.value for known in Role))
        issued = self._authenticator.narrow(request.principal, Role(role), request.bearer)
        yield {"token": issued.token, "expires": issued.expires.isoformat()}


def _place(catalog: Catalog) -> dict[str, Any]:
    location = catalog.project.location
    return {"backend": location.backend, "root": location.root, "prefix": location.prefix}


def _artifact_row(row: ManifestRow) -> Mapping[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "version": row.version,
        "data_sha": row.data_sha,
        "size_bytes": row.size_bytes,
        "last_updated": row.last_updated,
        "versions": row.versions,
        "original_file_sha": row.original_file_sha,
        "original_format": row.original_format,
    }


def _named_tables(body: Body) -> list[str] | None:
    """The names under ``table`` or ``tables``; None is all there are."""
    table, tables = body.get("table"), body.get("tables")
    if tables is None:
        return None if table is None else [required_name(body, "table")]
    if table is not None:
        raise InvalidRequestError("table and tables cannot both be given", hint="leave one of them out")
    if not isinstance(tables, list) or not 0 < len(tables) <= _MAX_TABLES:
        raise InvalidRequestError(f'"tables" is not a list of 1 to {_MAX_TABLES} names')
    return [validate_name(name) for name in tables]


def _prefetched_row(found: Prefetched) -> Mapping[str, Any]:
    return {
        "table": found.table,
        "version": found.version,
        "data_sha": found.data_sha,
        "size_bytes": found.size_bytes,
        "fetched": found.fetched,
        "error": found.error and found.error.code,
        "detail": found.error and found.error.message,
    }


def _history_row(entry: HistoryEntry) -> Mapping[str, Any]:
    return {
        "version": entry.version,
        "data_sha": entry.data_sha,
        "parquet_sha": entry.parquet_sha,
        "timestamp": entry.timestamp,
        "author": entry.author,
        "message": entry.message,
        "commit": entry.commit,
    }
