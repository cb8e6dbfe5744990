"""Ingest: a table's rows become its new version, alone or after those it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa
import pyarrow.flight as fl

from datom_flight.protocol.errors import ConflictError, DatomError, InvalidRequestError
from datom_flight.protocol.names import validate_name
from datom_flight.protocol.writes import Parent, WriteRequest

from ...model import Kind, TableVersion
from ...versions.catalog import Catalog
from ...versions.payloads import Payloads
from ...versions.projects import Projects
from ...versions.tables import Selection, StoredTable
from ..middleware import Request
from ..writes import Writes, rows_of
from . import flight_sql_pb2 as messages
from .catalog import CATALOG, SqlCatalog

_DISCARDED_BYTES = 32 * 1024 * 1024

_Options = messages.CommandStatementIngest.TableDefinitionOptions


class Ingest:
    """Answers CommandStatementIngest. Each one is a write of its own: no transaction holds it back."""

    def __init__(self, catalog: SqlCatalog, projects: Projects, payloads: Payloads, writes: Writes) -> None:
        self._catalog = catalog
        self._projects = projects
        self._payloads = payloads
        self._writes = writes

    def put(
        self, request: Request, asked: messages.CommandStatementIngest, reader: fl.MetadataRecordBatchReader
    ) -> int:
        """Write the rows that `reader` brings; how many came. Nothing is visible before all have.

        Raises:
            DatomError: as `Writes.put`; ``conflict`` when the table exists and must not, or moved on meanwhile,
                ``not_found`` when it must exist and does not.
        """
        try:
            return self._put(request, asked, reader)
        except DatomError:
            _discard(reader)
            raise

    def _put(
        self, request: Request, asked: messages.CommandStatementIngest, reader: fl.MetadataRecordBatchReader
    ) -> int:
        project = self._project(request, asked)
        write = WriteRequest(project, validate_name(asked.table))
        self._writes.authorise(request, write)
        catalog = self._projects.catalog(project)
        found = _existing(catalog, asked.table)
        options = asked.table_definition_options
        if found is None and options.if_not_exist != _Options.TABLE_NOT_EXIST_OPTION_CREATE:
            raise DatomError.of(
                "not_found",
                f'no table "{asked.table}" in project "{project}" to write to',
                hint='ingest with the mode "create" or "create_append"',
            )
        if found is not None and options.if_exists == _Options.TABLE_EXISTS_OPTION_APPEND:
            return self._append(request, catalog, found, reader)
        if found is not None and options.if_exists != _Options.TABLE_EXISTS_OPTION_REPLACE:
            raise ConflictError(
                f'the table "{asked.table}" exists in project "{project}"',
                hint='ingest with the mode "append" or "replace"; the versions there are stay readable',
                fields={"current": found.version},
            )
        if found is None:
            write = WriteRequest(project, asked.table, expected="")
        arriving = _Counted(rows_of(request, reader, write))
        self._writes.write(request, write, reader.schema, iter(arriving))
        return arriving.rows

    def _append(
        self, request: Request, catalog: Catalog, found: TableVersion, reader: fl.MetadataRecordBatchReader
    ) -> int:
        """Write the rows of the version `found`, then those that come.

        The new version keeps the old one's custom metadata and names it as its parent.
        """
        write = WriteRequest(
            found.project,
            found.table,
            metadata=catalog.metadata(found.table, found.version).get("custom"),
            parents=None if found.version is None else (Parent(found.project, found.table, found.version),),
            expected=found.version,
        )
        with StoredTable.open(self._payloads, catalog.store, found) as table:
            arriving = _Counted(_conformed(rows_of(request, reader, write), reader.schema, table.schema, found.table))

            def rows() -> Iterator[pa.RecordBatch]:
                yield from table.batches(Selection())
                yield from arriving

            self._writes.write(request, write, table.schema, rows())
        return arriving.rows

    def _project(self, request: Request, asked: messages.CommandStatementIngest) -> str:
        options = asked.table_definition_options
        if asked.temporary:
            raise InvalidRequestError("there are no temporary tables here", code="unsupported", hint="")
        if not options.if_not_exist or not options.if_exists:
            raise InvalidRequestError("the ingest does not say what to do when the table exists, or does not")
        if asked.options:
            raise InvalidRequestError(f'unknown option "{next(iter(asked.options))[:80]}" of an ingest')
        if asked.catalog not in ("", CATALOG):
            raise DatomError.of("not_found", f'no catalog "{asked.catalog[:80]}"', hint=f'the one is "{CATALOG}"')
        if asked.schema:
            return validate_name(asked.schema, "project")
        project = self._catalog.project_of(request.principal, request.session)
        if project is None:
            raise InvalidRequestError(
                f'"{asked.table[:80]}" is to be written to no project',
                hint="name the schema, or set the session option schema",
            )
        return project


class _Counted:
    """Batches, and how many rows they had."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self.rows = 0
        self._batches = batches

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.rows += batch.num_rows
            yield batch


def _discard(reader: fl.MetadataRecordBatchReader) -> None:
    """Read what still comes, within reason: a driver that cannot write on says that, instead of what it is told."""
    left = _DISCARDED_BYTES
    with suppress(StopIteration, fl.FlightError, pa.ArrowException):
        while left > 0:
            chunk = reader.read_chunk()
            left -= 0 if chunk.data is None else chunk.data.nbytes


def _existing(catalog: Catalog, table: str) -> TableVersion | None:
    try:
        return catalog.resolve(table, Kind.TABLE)
    except DatomError as error:
        if error.code != "not_found":
            raise
        return None


def _conformed(
    batches: Iterator[pa.RecordBatch], arriving: pa.Schema, stored: pa.Schema, table: str
) -> Iterator[pa.RecordBatch]:
    """`batches`, not to be trusted, with the columns and types that `table` has.

    Raises:
        InvalidRequestError: ``invalid_argument`` for other columns, or values that their types do not hold.
    """
    if sorted(arriving.names) != sorted(stored.names):
        odd = sorted(set(arriving.names) ^ set(stored.names)) or sorted(arriving.names)
        raise InvalidRequestError(
            f'the rows do not have the columns of "{table}": '
            + ", ".join(f'"{name[:80]}"' for name in odd[:10])
            + (" and more are" if len(odd) > 10 else " is" if len(odd) == 1 else " are")
            + " in only one of them",
            hint="append rows with the same columns, or replace the table",
        )
    for batch in batches:
        try:
            batch.validate(full=True)
        except (pa.ArrowInvalid, OSError):
            raise InvalidRequestError("a batch is malformed") from None
        columns = [_conformed_column(batch.column(field.name), field) for field in stored]
        yield pa.RecordBatch.from_arrays(columns, schema=stored)


def _conformed_column(column: pa.Array, field: pa.Field) -> pa.Array:
    try:
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        return plain.cast(field.type)
    except pa.ArrowException as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InvalidRequestError(
            f'column "{field.name}" is stored as {field.type}, and what comes is not: {reason}'
        ) from None
