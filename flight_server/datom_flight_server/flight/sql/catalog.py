"""What there is to query: one catalog, whose schemas are the projects that the caller may see, with their tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datom_flight.protocol.errors import DatomError

from ...auth.base import Policy
from ...model import Kind, Principal, Role
from ...sql.types import normal_type, type_name
from ...versions.payloads import Payloads
from ...versions.projects import Projects
from ...versions.tables import StoredTable
from ..session import Session
from .messages import schema_bytes

CATALOG = "datom"

TABLE_TYPE = "TABLE"

CATALOGS_SCHEMA = pa.schema([pa.field("catalog_name", pa.string(), nullable=False)])
SCHEMAS_SCHEMA = pa.schema(
    [pa.field("catalog_name", pa.string()), pa.field("db_schema_name", pa.string(), nullable=False)]
)
TABLE_TYPES_SCHEMA = pa.schema([pa.field("table_type", pa.string(), nullable=False)])
TABLES_SCHEMA = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string()),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("table_type", pa.string(), nullable=False),
    ]
)
TABLES_WITH_SCHEMA_SCHEMA = TABLES_SCHEMA.append(pa.field("table_schema", pa.binary(), nullable=False))
PRIMARY_KEYS_SCHEMA = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string()),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("column_name", pa.string(), nullable=False),
        pa.field("key_name", pa.string()),
        pa.field("key_sequence", pa.int32(), nullable=False),
    ]
)
FOREIGN_KEYS_SCHEMA = pa.schema(
    [
        pa.field("pk_catalog_name", pa.string()),
        pa.field("pk_db_schema_name", pa.string()),
        pa.field("pk_table_name", pa.string(), nullable=False),
        pa.field("pk_column_name", pa.string(), nullable=False),
        pa.field("fk_catalog_name", pa.string()),
        pa.field("fk_db_schema_name", pa.string()),
        pa.field("fk_table_name", pa.string(), nullable=False),
        pa.field("fk_column_name", pa.string(), nullable=False),
        pa.field("key_sequence", pa.int32(), nullable=False),
        pa.field("fk_key_name", pa.string()),
        pa.field("pk_key_name", pa.string()),
        pa.field("update_rule", pa.uint8(), nullable=False),
        pa.field("delete_rule", pa.uint8(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which tables are asked for. None is no condition; an empty text is "what has no such name", and nothing here.

    Attributes:
        catalog: the name itself.
        schema, table: patterns with ``%``, ``_`` and the escape ``\\``.
        types: table types; empty is all.
    """

    catalog: str | None = None
    schema: str | None = None
    table: str | None = None
    types: Sequence[str] = ()


class SqlCatalog:
    """Answers what there is, to each caller what they may see."""

    def __init__(self, projects: Projects, policy: Policy, payloads: Payloads) -> None:
        self._projects = projects
        self._policy = policy
        self._payloads = payloads

    def schemas_of(self, principal: Principal) -> list[str]:
        """The projects that `principal` may see, in name order."""
        return [name for name in self._projects.names() if self._policy.visible(principal, name)]

    def project_of(self, principal: Principal, session: Session) -> str | None:
        """The project whose tables need no prefix: the session's, else the only one there is for the caller.

        Raises:
            DatomError: ``not_found`` when the session's is none that `principal` may see; as `Projects.catalog`.
        """
        if session.project:
            self._policy.authorise(principal, session.project, Role.READER)
            self._projects.catalog(session.project)
            return session.project
        schemas = self.schemas_of(principal)
        return schemas[0] if len(schemas) == 1 else None

    def catalogs(self) -> pa.RecordBatch:
        """The one catalog."""
        return pa.RecordBatch.from_pylist([{"catalog_name": CATALOG}], schema=CATALOGS_SCHEMA)

    def table_types(self) -> pa.RecordBatch:
        """The one type of tables."""
        return pa.RecordBatch.from_pylist([{"table_type": TABLE_TYPE}], schema=TABLE_TYPES_SCHEMA)

    def schemas(self, principal: Principal, wanted: Filter) -> pa.RecordBatch:
        """The projects whose names match, in name order."""
        names = self._matching(principal, wanted)
        return pa.RecordBatch.from_pylist(
            [{"catalog_name": CATALOG, "db_schema_name": name} for name in names], schema=SCHEMAS_SCHEMA
        )

    def tables(self, principal: Principal, session: Session, wanted: Filter, *, with_schemas: bool) -> pa.RecordBatch:
        """The tables whose names match, by project and name; the session's own project comes first, since drivers
        that ask for one table without a schema take the first of that name.

        Args:
            with_schemas: also of each its Arrow schema, of the version current now or at the session's instant. That of
                a table that cannot be read has no columns, unless it is the only one asked for.

        Raises:
            DatomError: what is wrong with the only project, or with the only table, that is asked for.
        """
        schema = TABLES_WITH_SCHEMA_SCHEMA if with_schemas else TABLES_SCHEMA
        found = list(self._tables(principal, session, wanted))
        rows: list[dict[str, str | bytes]] = [
            {"catalog_name": CATALOG, "db_schema_name": project, "table_name": table, "table_type": TABLE_TYPE}
            for project, table in found
        ]
        if with_schemas:
            for row, (project, table) in zip(rows, found, strict=True):
                row["table_schema"] = self._schema(project, table, session.instant, alone=len(found) == 1)
        return pa.RecordBatch.from_pylist(rows, schema=schema)

    def _tables(self, principal: Principal, session: Session, wanted: Filter) -> Iterator[tuple[str, str]]:
        if wanted.types and TABLE_TYPE not in wanted.types:
            return
        projects = self._matching(principal, wanted)
        for project in sorted(projects, key=lambda name: (name != session.project, name)):
            try:
                rows = list(self._projects.catalog(project).artifacts())
            except DatomError:
                # a project that cannot be listed hides no other; asked for alone, it says why
                if len(projects) == 1:
                    raise
                continue
            tables = sorted(row.name for row in rows if row.kind == Kind.TABLE.value)
            for table in _like(tables, wanted.table):
                yield project, table

    def _matching(self, principal: Principal, wanted: Filter) -> list[str]:
        if wanted.catalog not in (None, CATALOG):
            return []
        return _like(self.schemas_of(principal), wanted.schema)

    def _schema(self, project: str, table: str, as_of: str | None, *, alone: bool) -> bytes:
        try:
            catalog = self._projects.catalog(project)
            found = catalog.resolve(table, Kind.TABLE, as_of=as_of)
            with StoredTable.open(self._payloads, catalog.store, found) as stored:
                schema = stored.schema
        except DatomError:
            # as with projects above
            if alone:
                raise
            schema = pa.schema([])
        fields = [_described(field, project, table) for field in schema]
        return schema_bytes(pa.schema(fields, metadata=schema.metadata))


def _like(names: list[str], pattern: str | None) -> list[str]:
    if pattern is None or not names:
        return names
    matches = pc.match_like(pa.array(names, pa.string()), pattern).to_pylist()
    return [name for name, is_match in zip(names, matches, strict=True) if is_match]


def _described(field: pa.Field, project: str, table: str) -> pa.Field:
    kind = normal_type(field.type)
    facts = {
        "CATALOG_NAME": CATALOG,
        "DB_SCHEMA_NAME": project,
        "TABLE_NAME": table,
        "TYPE_NAME": type_name(kind),
        "IS_AUTO_INCREMENT": "0",
        "IS_CASE_SENSITIVE": str(int(pa.types.is_string(kind) or pa.types.is_large_string(kind))),
        "IS_READ_ONLY": "1",
        "IS_SEARCHABLE": "1",
    }
    if pa.types.is_decimal(kind):
        facts |= {"PRECISION": str(kind.precision), "SCALE": str(kind.scale)}
    label = (field.metadata or {}).get(b"label")
    if label is not None:
        facts["REMARKS"] = label
    described = {f"ARROW:FLIGHT:SQL:{key}": value for key, value in facts.items()}
    return field.with_metadata({**(field.metadata or {}), **described})
