"""The commands that ask what there is: each answered by one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pyarrow as pa

from ..middleware import Request
from . import flight_sql_pb2 as messages
from .catalog import (
    CATALOGS_SCHEMA,
    FOREIGN_KEYS_SCHEMA,
    PRIMARY_KEYS_SCHEMA,
    SCHEMAS_SCHEMA,
    TABLE_TYPES_SCHEMA,
    TABLES_SCHEMA,
    TABLES_WITH_SCHEMA_SCHEMA,
    Filter,
    SqlCatalog,
)
from .info import SCHEMA as INFO_SCHEMA
from .info import sql_info
from .messages import unpacked
from .types import SCHEMA as TYPES_SCHEMA
from .types import type_info


class Answer(NamedTuple):
    """The schema of an answer, and what finds the answer."""

    schema: pa.Schema
    find: Callable[[], pa.RecordBatch]


class Metadata:
    """Answers the commands about what there is."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog
        self._answers: Mapping[str, Callable[[Request, bytes], Answer]] = {
            "CommandGetSqlInfo": self._info,
            "CommandGetXdbcTypeInfo": self._types,
            "CommandGetCatalogs": self._catalogs,
            "CommandGetDbSchemas": self._schemas,
            "CommandGetTables": self._tables,
            "CommandGetTableTypes": self._table_types,
            # nothing in a store says what is a key
            "CommandGetPrimaryKeys": lambda request, command: _nothing(PRIMARY_KEYS_SCHEMA),
            "CommandGetExportedKeys": lambda request, command: _nothing(FOREIGN_KEYS_SCHEMA),
            "CommandGetImportedKeys": lambda request, command: _nothing(FOREIGN_KEYS_SCHEMA),
            "CommandGetCrossReference": lambda request, command: _nothing(FOREIGN_KEYS_SCHEMA),
        }

    def handles(self, name: str) -> bool:
        """Whether the message `name` is one of these commands."""
        return name in self._answers

    def answer(self, request: Request, name: str, command: bytes) -> Answer:
        """What the command `name`, packed, asks for; raises InvalidRequestError: ``invalid_argument``."""
        request.call.action = name
        return self._answers[name](request, command)

    def _info(self, request: Request, command: bytes) -> Answer:
        asked = unpacked(command, messages.CommandGetSqlInfo)
        return Answer(INFO_SCHEMA, lambda: sql_info(asked.info))

    def _types(self, request: Request, command: bytes) -> Answer:
        asked = unpacked(command, messages.CommandGetXdbcTypeInfo)
        return Answer(TYPES_SCHEMA, lambda: type_info(asked.data_type if asked.HasField("data_type") else None))

    def _catalogs(self, request: Request, command: bytes) -> Answer:
        return Answer(CATALOGS_SCHEMA, self._catalog.catalogs)

    def _table_types(self, request: Request, command: bytes) -> Answer:
        return Answer(TABLE_TYPES_SCHEMA, self._catalog.table_types)

    def _schemas(self, request: Request, command: bytes) -> Answer:
        asked = unpacked(command, messages.CommandGetDbSchemas)
        wanted = Filter(
            catalog=asked.catalog if asked.HasField("catalog") else None,
            schema=asked.db_schema_filter_pattern if asked.HasField("db_schema_filter_pattern") else None,
        )
        return Answer(SCHEMAS_SCHEMA, lambda: self._catalog.schemas(request.principal, wanted))

    def _tables(self, request: Request, command: bytes) -> Answer:
        asked = unpacked(command, messages.CommandGetTables)
        wanted = Filter(
            catalog=asked.catalog if asked.HasField("catalog") else None,
            schema=asked.db_schema_filter_pattern if asked.HasField("db_schema_filter_pattern") else None,
            table=asked.table_name_filter_pattern if asked.HasField("table_name_filter_pattern") else None,
            types=asked.table_types,
        )
        return Answer(
            TABLES_WITH_SCHEMA_SCHEMA if asked.include_schema else TABLES_SCHEMA,
            lambda: self._catalog.tables(request.principal, request.session, wanted, with_schemas=asked.include_schema),
        )


def _nothing(schema: pa.Schema) -> Answer:
    return Answer(schema, lambda: pa.RecordBatch.from_pylist([], schema=schema))
