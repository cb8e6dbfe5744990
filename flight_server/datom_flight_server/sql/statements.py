"""SQL statements: planned once, run as often as asked, for whoever may read what they read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType

import pyarrow as pa

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.messages import ReadRequest
from datom_flight.protocol.names import parse_instant
from datom_flight.protocol.queries import TablePin

from ..auth.base import Policy
from ..model import Principal
from ..versions.payloads import Payloads
from ..versions.pieces import cut
from ..versions.projects import Projects
from ..versions.tables import Selection, StoredTable
from . import simple
from .constants import bind
from .engine import Engine
from .history import History
from .plans import Plan, batch_bytes, pins_metadata
from .recent import Recent
from .references import CheckedSelect, HistoryCall, Reference, check
from .resolving import Pinned, Resolved, Resolver, pins_of
from .selects import SelectParser
from .turns import Job
from .views import Files, Views
from .where import WhereCompiler

__all__ = ["Pinned", "Plan", "Statements"]

_KEPT_OUTCOMES = 256
_KEPT_OUTCOME_BYTES = 64 * 1024
"""Of a query's text, of its parameters, and of rows."""
_HISTORY_SCHEMA = "datom history"
"""Of the views that history functions become; no project's name begins so."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What comes of a query, which is the same for the same data.

    Attributes:
        schema: as a plan has it, once the versions it comes of are noted.
        read: the plain read that it is, where it is one.
        rows: of a query of constants.
    """

    schema: pa.Schema
    parameter_names: tuple[str, ...] = ()
    read: ReadRequest | None = None
    rows: tuple[pa.RecordBatch, ...] = ()


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
        self._outcomes: Recent[tuple[object, ...], _Outcome] = Recent(_KEPT_OUTCOMES)

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
        names: tuple[tuple[str, Pinned], ...] = ()
        outcome = self._outcomes.get(_key(query, parameters))
        if outcome is None:
            resolver = self._resolver(principal, project, as_of, pins=pins)
            outcome = self._outcome(self._checked(query, parameters), resolver, parameters, as_of, is_cancelled)
            names = resolver.names
        return Plan(
            query=query,
            project=project,
            as_of=as_of,
            names=names,
            schema=outcome.schema,
            parameter_names=outcome.parameter_names,
            parameters=parameters,
            simple=outcome.read,
        )

    def run(
        self, principal: Principal, plan: Plan, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a plan, in batches of at most 4 MiB of IPC (or one row), of ``plan.schema`` but for its metadata.

        Closing the generator ends the query.

        Args:
            is_cancelled: whether the caller went away; asked of from this thread while the query computes.

        Raises:
            DatomError: ``not_found`` for what the principal may not see (any more); ``invalid_argument`` for a plan
                that lacks its parameters or was not made for its query; as `Engine.batches` and `StoredTable.batches`.
        """
        if plan.parameter_names and plan.parameters is None:
            raise InvalidRequestError(f"the query has {len(plan.parameter_names)} parameters, and no values are given")
        with closing(self._batches(principal, plan, is_cancelled)) as batches:
            for number, batch in enumerate(batches):
                if number == 0 and not batch.schema.equals(plan.schema):
                    raise InvalidRequestError(
                        "the rows are not of the schema that was planned", hint="plan the query again"
                    )
                yield batch

    def _batches(
        self, principal: Principal, plan: Plan, is_cancelled: Callable[[], bool]
    ) -> Generator[pa.RecordBatch, None, None]:
        known = self._outcomes.get(_key(plan.query, plan.parameters))
        if known is not None and known.rows:
            yield from known.rows
            return
        checked = self._checked(plan.query, plan.parameters)
        resolver = self._resolver(principal, plan.project, plan.as_of, known=dict(plan.names))
        plain = self._plain_read(checked, resolver)
        if plain is not None and plain.read is not None:
            yield from self._rows(resolver, checked, plain.read)
        else:
            yield from self._results(checked, resolver, plan.as_of, is_cancelled)

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
        parameters: pa.RecordBatch | None,
        as_of: str | None,
        is_cancelled: Callable[[], bool],
    ) -> _Outcome:
        for site in checked.sites:
            if isinstance(site.asked, Reference):
                resolver.resolve(site.asked)
        key = _key(checked.select.text, parameters, resolver.settled)
        known = self._outcomes.get(key)
        if known is not None:
            return known
        outcome = self._plain_read(checked, resolver) or self._computed(checked, resolver, as_of, is_cancelled)
        metadata = {**(outcome.schema.metadata or {}), **pins_metadata(pins_of(resolver.names))}
        outcome = replace(outcome, schema=outcome.schema.with_metadata(metadata))
        if not any(isinstance(site.asked, HistoryCall) for site in checked.sites) and _is_small(key, outcome):
            self._outcomes.put(key, outcome)
        return outcome

    def _plain_read(self, checked: CheckedSelect, resolver: Resolver) -> _Outcome | None:
        """What comes of a query that is a plain read of one table; None where it is more."""
        asked = simple.table_of(checked)
        if asked is None:
            return None
        resolved = resolver.resolve(asked)
        with self._open(resolved) as table:
            request = simple.read_request(checked, resolved.pinned, table.schema, self._parser, self._where)
            if request is None:
                return None
            return _Outcome(table.schema_of(request.columns), checked.select.parameters, request)

    def _computed(
        self, checked: CheckedSelect, resolver: Resolver, as_of: str | None, is_cancelled: Callable[[], bool]
    ) -> _Outcome:
        """What DuckDB makes of a query: its schema; of constants, their row as well."""
        caller = resolver.principal
        with self._job(checked, resolver, as_of) as job:
            if not simple.is_constant(checked):
                return _Outcome(self._engine.schema(job, caller, is_cancelled), checked.select.parameters)
            rows = tuple(self._engine.batches(job, caller, is_cancelled))
            return _Outcome(rows[0].schema, checked.select.parameters, rows=rows)

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
            closing(self._engine.batches(job, resolver.principal, is_cancelled)) as batches,
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


def _key(
    query: str, parameters: pa.RecordBatch | None, settled: Mapping[str, Pinned] = MappingProxyType({})
) -> tuple[str, bytes, object]:
    """By which an outcome is known: all that it depends on; without `settled`, of a query that reads no table."""
    return query, b"" if parameters is None else batch_bytes(parameters), tuple(settled.items())


def _is_small(key: tuple[str, bytes, object], outcome: _Outcome) -> bool:
    query, values, _ = key
    sizes = len(query), len(values), *(int(batch.nbytes) for batch in outcome.rows)
    return max(sizes) <= _KEPT_OUTCOME_BYTES
