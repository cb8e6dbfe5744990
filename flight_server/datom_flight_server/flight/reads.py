"""Rows over Flight: from a descriptor to tickets, from a ticket to a stream."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from datom_flight.protocol.errors import DatomError, InvalidRequestError
from datom_flight.protocol.messages import (
    ReadRequest,
    decode_object,
    encode_object,
    optional_text,
)
from datom_flight.protocol.names import validate_name

from ..auth.base import Policy
from ..model import Kind, Role, TableVersion
from ..sql.where import WhereCompiler
from ..versions.catalog import Catalog
from ..versions.payloads import Payloads
from ..versions.projects import Projects
from ..versions.tables import Selection, StoredTable
from .admission import Streams
from .middleware import Request
from .placement import Placement
from .streams import table_stream

_KNOWN_TICKETS = 4096
_SHORT_TICKET_BYTES = 1024
_DESCRIPTOR_KEYS = ("project", "table", "version", "as_of", "columns", "where", "limit")


def read_request(descriptor: fl.FlightDescriptor) -> ReadRequest:
    """What a descriptor asks for: a path ``[project, table(, version)]`` or a JSON command.

    Raises:
        InvalidRequestError: ``invalid_argument``, ``invalid_name`` or ``too_large``.
    """
    if descriptor.descriptor_type == fl.DescriptorType.CMD:
        return ReadRequest.from_object(decode_object(descriptor.command, "descriptor", _DESCRIPTOR_KEYS))
    if descriptor.descriptor_type != fl.DescriptorType.PATH:
        raise InvalidRequestError("the descriptor is neither a path nor a command")
    try:
        path = [part.decode("utf-8") for part in descriptor.path]
    except UnicodeDecodeError:
        raise InvalidRequestError("the descriptor's path is not UTF-8") from None
    if len(path) not in (2, 3):
        raise InvalidRequestError(
            f"the descriptor's path has {len(path)} parts", hint="give [project, table] or [project, table, version]"
        )
    return ReadRequest.from_object(dict(zip(("project", "table", "version"), path, strict=False)))


class Reads:
    """Answers GetFlightInfo, GetSchema, DoGet and ListFlights for tables."""

    def __init__(
        self,
        projects: Projects,
        policy: Policy,
        payloads: Payloads,
        where: WhereCompiler,
        streams: Streams,
        placement: Placement,
    ) -> None:
        self._projects = projects
        self._policy = policy
        self._payloads = payloads
        self._where = where
        self._streams = streams
        self._placement = placement
        # the same tickets come again and again
        self._asked = lru_cache(_KNOWN_TICKETS)(ReadRequest.from_json)

    def info(self, request: Request, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        """The schema, exact totals and tickets of what `descriptor` asks for; every ticket names the full version."""
        return self.info_of(request, read_request(descriptor), descriptor)

    def info_of(self, request: Request, asked: ReadRequest, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        """`info` for the rows `asked`, whatever `descriptor` says."""
        catalog, table = self._open(request, asked)
        with table:
            selection = self._selection(asked, table)
            schema = table.schema_of(selection.columns)
            ranges = table.ranges(selection)
            places = self._placement.locations(table.version.data_sha, [first for first, _ in ranges])
            endpoints = [
                fl.FlightEndpoint(_ticket(asked, table.version, row_groups if len(ranges) > 1 else None), locations)
                for row_groups, locations in zip(ranges, places, strict=True)
            ]
            facts = _facts(table.version) | {"rows": table.num_rows}
            if table.version.object_sha is None:
                facts["verified"] = False
            if not catalog.project.governed and catalog.claims_governance():
                facts["warnings"] = ["governance_attached"]
            return fl.FlightInfo(
                schema,
                descriptor,
                endpoints,
                total_records=_total_rows(table, selection),
                total_bytes=table.size_bytes,
                ordered=True,
                app_metadata=encode_object(facts),
            )

    def schema(self, request: Request, descriptor: fl.FlightDescriptor) -> pa.Schema:
        """The schema of what `descriptor` asks for."""
        asked = read_request(descriptor)
        _, table = self._open(request, asked)
        with table:
            return table.schema_of(asked.columns)

    def stream(self, request: Request, ticket: bytes) -> tuple[pa.Schema, Iterator[Any]]:
        """The rows a ticket stands for: their schema, and what a `GeneratorStream` of it sends."""
        asked = self._asked(ticket) if len(ticket) <= _SHORT_TICKET_BYTES else ReadRequest.from_json(ticket)
        _, table = self._open(request, asked)
        try:
            selection = self._selection(asked, table)
            schema = table.schema_of(selection.columns)
        except BaseException:
            table.close()
            raise
        return schema, table_stream(table, selection, self._streams.running(request))

    def listing(self, request: Request, criteria: bytes) -> Iterator[fl.FlightInfo]:
        """A FlightInfo, without schema, of every table the caller may see.

        Args:
            criteria: empty, or JSON with ``project`` and ``pattern`` (a glob on the table's name).
        """
        asked = decode_object(criteria, "criteria", ("project", "pattern")) if criteria else {}
        pattern = optional_text(asked, "pattern")
        if asked.get("project") is not None:
            name = validate_name(asked["project"], "project")
            self._policy.authorise(request.principal, name, Role.READER)
            yield from self._tables(self._projects.catalog(name), pattern)
            return
        for name in self._projects.names():
            if self._policy.visible(request.principal, name):
                try:
                    yield from self._tables(self._projects.catalog(name), pattern)
                except DatomError:
                    # a project that cannot be listed hides no other; asked for by name, it says why
                    continue

    def _tables(self, catalog: Catalog, pattern: str | None) -> Iterator[fl.FlightInfo]:
        project = catalog.project.name
        for row in catalog.artifacts(pattern):
            if row.kind != Kind.TABLE.value:
                continue
            facts = {"project": project, "table": row.name, "version": row.version, "data_sha": row.data_sha}
            yield fl.FlightInfo(
                None,
                fl.FlightDescriptor.for_path(project, row.name),
                [fl.FlightEndpoint(ReadRequest(project, row.name, row.version).to_json(), [])],
                total_bytes=row.size_bytes,
                ordered=True,
                app_metadata=encode_object(facts),
            )

    def _open(self, request: Request, asked: ReadRequest) -> tuple[Catalog, StoredTable]:
        request.call.about(asked.project, asked.table)
        self._policy.authorise(request.principal, asked.project, Role.READER)
        catalog = self._projects.catalog(asked.project)
        found = catalog.resolve(asked.table, Kind.TABLE, asked.version, asked.as_of, asked.data_sha)
        request.call.about(asked.project, asked.table, found.version)
        return catalog, StoredTable.open(self._payloads, catalog.store, found)

    def _selection(self, asked: ReadRequest, table: StoredTable) -> Selection:
        where = self._where.compile(asked.where, table.schema) if asked.where is not None else None
        return Selection(
            columns=asked.columns,
            predicate=where.expression if where else None,
            predicate_columns=where.columns if where else (),
            pruning=where.pruning if where else None,
            limit=asked.limit,
            row_groups=asked.row_groups,
        )


def _facts(found: TableVersion) -> dict[str, Any]:
    return {
        "project": found.project,
        "table": found.table,
        "version": found.version,
        "data_sha": found.data_sha,
        "parquet_sha": found.object_sha,
    }


def _total_rows(table: StoredTable, selection: Selection) -> int:
    if selection.limit == 0:
        return 0
    if selection.predicate is not None:
        return -1
    return table.num_rows if selection.limit is None else min(selection.limit, table.num_rows)


def _ticket(asked: ReadRequest, found: TableVersion, row_groups: tuple[int, int] | None) -> bytes:
    return ReadRequest(
        project=found.project,
        table=found.table,
        version=found.version,
        columns=asked.columns,
        where=asked.where,
        limit=asked.limit,
        row_groups=row_groups,
        data_sha=None if found.version else found.data_sha,
    ).to_json()
