"""SQL statements: planned once, run as often as asked, for whoever may read what they read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import pyarrow as pa

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.messages import ReadRequest
from datom_flight.protocol.names import parse_instant
from datom_flight.protocol.queries import TablePin

from ..auth.base import Policy
from ..model import Principal
from ..versions.payloads import Payloads
from ..versions.projects import Projects
from ..versions.tables import Selection, StoredTable, cut
from . import simple
from .constants import bind
from .engine import Engine, Job
from .history import History
from .plans import Plan, batch_bytes, pins_metadata
from .recent import Recent
from .references import CheckedSelect, HistoryCall, Reference, check
from .resolving import Pinned, Resolved, Resolver
from .selects import SelectParser
from .views import Files, Views
from .where import WhereCompiler

__all__ = ["Pinned", "Plan", "Statements"]

_KEPT_OUTCOMES = 256
_HISTORY_SCHEMA = "datom history"
"""Of the views that history functions become; no project's name begins so."""


class Statements:
    """Plans and runs queries. Safe to use from many threads.

    Args:
        engine: runs what is more than a plain read; closed by whoever made it.
    """

    def __init__(
        self, projects: Projects, policy: Policy, payloads: Payloads, where: WhereCompiler, engine: Engine
    ) -> None:
        self._projects = projects
        self._policy = policy
        self._payloads = payloads
        self._where = where
        self._engine = engine
        self._parser = SelectParser()
        self._outcomes: Recent[tuple[object, ...], tuple[ReadRequest | None, pa.Schema]] = Recent(_KEPT_OUTCOMES)

    def close(self) -> None:
        """Let go of the parser. Planning afterwards is an error."""
        self._parser.close()

    def expect(self) -> None:
        """Have what runs queries ready soon: a process that takes most of a second to start, and memory."""
        self._engine.start()

    def plan(
        self,
        principal: Principal,
        query: str,
        *,
        project: str | None,
        as_of: str | None = None,
        pins: Sequence[TablePin] | None = None,
        parameters: pa.RecordBatch | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Plan:
        """What `query` is for `principal`: every name in it settled on one version, once.

        Args:
            project: where tables named alone are.
            as_of: ISO 8601; the instant for tables whose version is not written.
            pins: versions for such tables, in place of `as_of`; each needs one.
            parameters: one row of values, columns in order or by name; without it a plan with parameters has the
                schema of NULLs, and cannot be run.
            is_cancelled: whether the caller went away; asked of from this thread.

        Raises:
            DatomError: ``sql_error`` when it is not one SELECT that only reads; ``not_found`` for what the principal
                may not see; ``invalid_argument``; ``too_large``; as `Resolver.resolve` and `Engine.schema`.
        """
        if as_of is not None:
            parse_instant(as_of)
        checked = self._checked(query, parameters)
        resolver = self._resolver(principal, project, as_of, pins=pins)
        request, schema = self._outcome(checked, resolver, _values(parameters), as_of, is_cancelled)
        plan = Plan(
            query=query,
            project=project,
            as_of=as_of,
            names=resolver.names,
            schema=schema,
            parameter_names=checked.select.parameters,
            parameters=parameters,
            simple=request,
        )
        metadata = {**(schema.metadata or {}), **pins_metadata(plan.pins)}
        return replace(plan, schema=schema.with_metadata(metadata))

    def run(
        self, principal: Principal, plan: Plan, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a plan, in batches of at most 4 MiB of IPC (or one row), all of ``plan.schema``.

        Closing the generator ends the query.

        Args:
            is_cancelled: whether the caller went away; asked of from this thread while the query computes.

        Raises:
            DatomError: ``not_found`` for what the principal may not see (any more); ``invalid_argument`` for a plan
                that lacks its parameters or was not made for its query; as `Engine.batches` and `StoredTable.batches`.
        """
        if plan.parameter_names and plan.parameters is None:
            raise InvalidRequestError(f"the query has {len(plan.parameter_names)} parameters, and no values are given")
        checked = self._checked(plan.query, plan.parameters)
        resolver = self._resolver(principal, plan.project, plan.as_of, known=dict(plan.names))
        request, _ = self._plain_read(checked, resolver)
        if request is not None:
            batches = self._rows(resolver, checked, request)
        else:
            batches = self._results(checked, resolver, plan.as_of, is_cancelled)
        with closing(batches):
            for number, batch in enumerate(batches):
                if number == 0 and not batch.schema.equals(plan.schema):
                    raise InvalidRequestError(
                        "the rows are not of the schema that was planned", hint="plan the query again"
                    )
                yield batch.replace_schema_metadata(plan.schema.metadata)

    def _checked(self, query: str, parameters: pa.RecordBatch | None) -> CheckedSelect:
        select = self._parser.parse(query)
        bind(select, parameters)
        return check(select)

    def _resolver(
        self,
        principal: Principal,
        project: str | None,
        as_of: str | None,
        *,
        pins: Sequence[TablePin] | None = None,
        known: Mapping[str, Pinned] | None = None,
    ) -> Resolver:
        return Resolver(self._projects, self._policy, principal, project=project, as_of=as_of, pins=pins, known=known)

    def _outcome(
        self,
        checked: CheckedSelect,
        resolver: Resolver,
        values: bytes,
        as_of: str | None,
        is_cancelled: Callable[[], bool],
    ) -> tuple[ReadRequest | None, pa.Schema]:
        """The plain read that a query is, where it is one, and the schema; the same for the same data."""
        for site in checked.sites:
            if isinstance(site.asked, Reference):
                resolver.resolve(site.asked)
        key = (checked.select.text, values, tuple(resolver.settled.items()))
        known = self._outcomes.get(key)
        if known is not None:
            return known
        request, schema = self._plain_read(checked, resolver)
        if schema is None:
            with self._job(checked, resolver, as_of) as job:
                schema = self._engine.schema(job, resolver.principal.name, is_cancelled)
        if not any(isinstance(site.asked, HistoryCall) for site in checked.sites):
            self._outcomes.put(key, (request, schema))
        return request, schema

    def _plain_read(
        self, checked: CheckedSelect, resolver: Resolver
    ) -> tuple[ReadRequest, pa.Schema] | tuple[None, None]:
        """The read of one table that a query is, and its schema, where it is one."""
        asked = simple.table_of(checked)
        if asked is None:
            return None, None
        resolved = resolver.resolve(asked)
        with self._open(resolved) as table:
            request = simple.read_request(checked, resolved.pinned, table.schema, self._parser, self._where)
            return (None, None) if request is None else (request, table.schema_of(request.columns))

    def _rows(
        self, resolver: Resolver, checked: CheckedSelect, request: ReadRequest
    ) -> Generator[pa.RecordBatch, None, None]:
        asked = checked.sites[0].asked
        assert isinstance(asked, Reference)
        with self._open(resolver.resolve(asked)) as table:
            where = None if request.where is None else self._where.compile(request.where, table.schema)
            selection = Selection(
                columns=request.columns,
                predicate=where.expression if where else None,
                predicate_columns=where.columns if where else (),
                pruning=where.pruning if where else None,
                limit=request.limit,
            )
            yield from table.batches(selection)

    def _results(
        self, checked: CheckedSelect, resolver: Resolver, as_of: str | None, is_cancelled: Callable[[], bool]
    ) -> Generator[pa.RecordBatch, None, None]:
        with (
            self._job(checked, resolver, as_of) as job,
            closing(self._engine.batches(job, resolver.principal.name, is_cancelled)) as batches,
        ):
            for batch in batches:
                yield from cut(batch)

    def _open(self, resolved: Resolved) -> StoredTable:
        return StoredTable.open(self._payloads, resolved.catalog.store, resolved.found)

    @contextmanager
    def _job(self, checked: CheckedSelect, resolver: Resolver, as_of: str | None) -> Iterator[Job]:
        """The query over views of the versions its names stand for."""
        if not checked.sites:
            yield Job(self._parser.text(checked.select.tree))
            return
        with self._engine.folder() as folder:
            files, views = Files(self._payloads, folder), Views()
            history = History(resolver, files, as_of)
            for column in checked.unnamed:
                column["alias"] = self._parser.expression(column)
            for site in checked.sites:
                name = site.name
                if isinstance(site.asked, HistoryCall):
                    schema, rows = _HISTORY_SCHEMA, history.rows(site.asked)
                else:
                    resolved = resolver.resolve(site.asked)
                    schema = site.asked.schema or resolved.found.project
                    rows = files.stored(resolved).query
                site.rename(views.add(schema, name, rows), name)
            yield Job(self._parser.text(checked.select.tree), tuple(views.statements), folder)


def _values(parameters: pa.RecordBatch | None) -> bytes:
    return b"" if parameters is None else batch_bytes(parameters)
