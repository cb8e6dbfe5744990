"""What there is to query: projects as schemas, to each caller what they may see."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datom_flight.protocol.errors import DatomError, NotFoundError
from datom_flight_server.flight.session import Session
from datom_flight_server.flight.sql.catalog import (
    TABLES_SCHEMA,
    TABLES_WITH_SCHEMA_SCHEMA,
    Filter,
    SqlCatalog,
)
from support.catalogs import reader, sql_catalog
from support.stores import write_store

DM = pa.table({"USUBJID": ["01-001", "01-002"], "AGE": pa.array([71, 64], pa.int32())})
WIDE = DM.append_column("SEX", pa.array(["F", "M"]).dictionary_encode())

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_store(tmp_path / "one", {"dm": [DM, WIDE], "adsl_v1": [DM.slice(1)], "adslxv1": [WIDE], "ae (x)": [DM]})
    write_store(tmp_path / "two", {"dm": [DM]})
    shutil.copytree(FIXTURES / "store-product" / "storage", tmp_path / "sets")
    return tmp_path


@pytest.fixture
def catalog(folder: Path) -> SqlCatalog:
    roots = {"STUDY_001": folder / "one", "STUDY_002": folder / "two", "SETS": folder / "sets"}
    return sql_catalog(roots, folder / "cache")


def names(
    catalog: SqlCatalog, *projects: str, session: Session | None = None, wanted: Filter | None = None
) -> list[tuple[str, str]]:
    """Project and name of the tables found."""
    batch = catalog.tables(reader(*projects), session or Session(), wanted or Filter(), with_schemas=False)
    return [(row["db_schema_name"], row["table_name"]) for row in batch.to_pylist()]


def schema_of(catalog: SqlCatalog, table: str, session: Session | None = None) -> pa.Schema:
    """The schema of the one table found."""
    batch = catalog.tables(reader("STUDY_001"), session or Session(), Filter(table=table), with_schemas=True)
    (row,) = batch.to_pylist()
    return pa.ipc.read_schema(pa.BufferReader(row["table_schema"]))


def test_there_is_one_catalog(catalog: SqlCatalog) -> None:
    assert catalog.catalogs().to_pylist() == [{"catalog_name": "datom"}]


def test_there_is_one_type_of_tables(catalog: SqlCatalog) -> None:
    assert catalog.table_types().to_pylist() == [{"table_type": "TABLE"}]


def test_schemas_are_the_projects_that_the_caller_may_see(catalog: SqlCatalog) -> None:
    everything = catalog.schemas(reader(), Filter()).to_pylist()
    assert everything == [
        {"catalog_name": "datom", "db_schema_name": name} for name in ("SETS", "STUDY_001", "STUDY_002")
    ]
    assert catalog.schemas(reader("STUDY_002"), Filter()).column("db_schema_name").to_pylist() == ["STUDY_002"]


def test_tables_come_by_project_and_name_and_sets_are_none(catalog: SqlCatalog) -> None:
    found = names(catalog)
    assert found == sorted(found)
    assert [table for project, table in found if project == "STUDY_001"] == ["adsl_v1", "adslxv1", "ae (x)", "dm"]
    assert {table for project, table in found if project == "SETS"}.isdisjoint({"analysis_set", "release"})


def test_nobody_sees_the_tables_of_others(catalog: SqlCatalog) -> None:
    assert names(catalog, "STUDY_002") == [("STUDY_002", "dm")]
    assert names(catalog, "STUDY_002", wanted=Filter(schema="STUDY_001")) == []
    assert names(catalog, "NOWHERE") == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("adsl_v1", ["adsl_v1", "adslxv1"]),
        ("adsl\\_v1", ["adsl_v1"]),
        ("a%", ["adsl_v1", "adslxv1", "ae (x)"]),
        ("%m", ["dm"]),
        ("ae (x)", ["ae (x)"]),
        ("DM", []),
        ("d.", []),
        ("", []),
        ("%" * 64 + "q", []),
        (None, ["adsl_v1", "adslxv1", "ae (x)", "dm"]),
    ],
)
def test_a_pattern_chooses_tables(catalog: SqlCatalog, pattern: str | None, expected: list[str]) -> None:
    assert [table for _, table in names(catalog, wanted=Filter(schema="STUDY\\_001", table=pattern))] == expected


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"catalog": "datom"}, 1),
        ({"catalog": "other"}, 0),
        ({"catalog": ""}, 0),
        ({"schema": ""}, 0),
        ({"schema": "STUDY%"}, 1),
        ({"types": ["TABLE", "VIEW"]}, 1),
        ({"types": ["VIEW"]}, 0),
    ],
)
def test_an_empty_name_is_a_condition_and_an_absent_one_is_none(
    catalog: SqlCatalog, wanted: dict[str, Any], count: int
) -> None:
    assert len(names(catalog, "STUDY_002", wanted=Filter(**wanted))) == count


def test_the_session_s_own_project_comes_first(catalog: SqlCatalog) -> None:
    wanted = Filter(schema="STUDY%", table="dm")
    assert names(catalog, wanted=wanted) == [("STUDY_001", "dm"), ("STUDY_002", "dm")]
    assert names(catalog, wanted=wanted, session=Session("STUDY_002"))[0] == ("STUDY_002", "dm")


def test_schemas_are_left_out_unless_asked_for(catalog: SqlCatalog) -> None:
    for with_schemas, schema in ((False, TABLES_SCHEMA), (True, TABLES_WITH_SCHEMA_SCHEMA)):
        assert catalog.tables(reader(), Session(), Filter(), with_schemas=with_schemas).schema == schema
        assert catalog.tables(reader("NOWHERE"), Session(), Filter(), with_schemas=with_schemas).schema == schema


def test_a_schema_has_the_stored_types_and_describes_its_columns(catalog: SqlCatalog) -> None:
    schema = schema_of(catalog, "dm")
    assert schema.names == ["USUBJID", "AGE", "SEX"]
    assert pa.types.is_dictionary(schema.field("SEX").type)
    facts = [{key: value for key, value in field.metadata.items() if b"NAME" in key} for field in schema]
    prefix = b"ARROW:FLIGHT:SQL:"
    assert [fact[prefix + b"TYPE_NAME"] for fact in facts] == [b"VARCHAR", b"INTEGER", b"VARCHAR"]
    assert {fact[prefix + b"DB_SCHEMA_NAME"] for fact in facts} == {b"STUDY_001"}
    assert {fact[prefix + b"CATALOG_NAME"] for fact in facts} == {b"datom"}
    assert {fact[prefix + b"TABLE_NAME"] for fact in facts} == {b"dm"}


def test_digits_and_labels_are_described(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            pa.field("DOSE", pa.decimal128(9, 2), metadata={"label": "Dose, in mg"}),
            pa.field("WHEN", pa.timestamp("us", "UTC")),
        ]
    )
    write_store(tmp_path / "one", {"ex": [pa.Table.from_pylist([{"DOSE": 1, "WHEN": 0}], schema=schema)]})
    dose, when = schema_of(sql_catalog({"STUDY_001": tmp_path / "one"}, tmp_path / "cache"), "ex")
    assert dose.metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"DECIMAL(9,2)"
    assert dose.metadata[b"ARROW:FLIGHT:SQL:PRECISION"] == b"9"
    assert dose.metadata[b"ARROW:FLIGHT:SQL:SCALE"] == b"2"
    assert dose.metadata[b"ARROW:FLIGHT:SQL:REMARKS"] == b"Dose, in mg"
    assert when.metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"TIMESTAMPTZ"
    assert b"ARROW:FLIGHT:SQL:REMARKS" not in when.metadata


def test_schemas_are_of_the_session_s_instant(catalog: SqlCatalog) -> None:
    assert schema_of(catalog, "dm", Session(as_of="2026-01-15")).names == ["USUBJID", "AGE"]


def test_a_table_that_cannot_be_read_hides_no_other_and_alone_says_why(folder: Path, catalog: SqlCatalog) -> None:
    for payload in (folder / "one" / "datom" / "adsl_v1").glob("*.parquet"):
        payload.unlink()
    batch = catalog.tables(reader("STUDY_001"), Session(), Filter(), with_schemas=True)
    columns = {
        row["table_name"]: pa.ipc.read_schema(pa.BufferReader(row["table_schema"])).names for row in batch.to_pylist()
    }
    assert columns["adsl_v1"] == []
    assert columns["adslxv1"] == ["USUBJID", "AGE", "SEX"]
    with pytest.raises(DatomError) as caught:
        catalog.tables(reader("STUDY_001"), Session(), Filter(table="adsl\\_v1"), with_schemas=True)
    assert caught.value.code == "not_found"


def test_a_project_that_cannot_be_listed_hides_no_other_and_alone_says_why(folder: Path, catalog: SqlCatalog) -> None:
    (folder / "one" / "datom" / ".metadata" / "manifest.json").unlink()
    assert ("STUDY_002", "dm") in names(catalog)
    with pytest.raises(DatomError) as caught:
        names(catalog, wanted=Filter(schema="STUDY\\_001"))
    assert caught.value.code == "manifest_unreadable"


@pytest.mark.parametrize(
    ("project", "visible", "expected"),
    [
        (None, ["SETS"], "SETS"),
        (None, ["SETS", "STUDY_001"], None),
        (None, ["STUDY_009"], None),
        ("", ["SETS", "STUDY_001"], None),
        ("STUDY_001", ["SETS", "STUDY_001"], "STUDY_001"),
    ],
)
def test_the_project_without_a_prefix_is_the_session_s_or_the_only_one(
    catalog: SqlCatalog, project: str | None, visible: list[str], expected: str | None
) -> None:
    assert catalog.project_of(reader(*visible), Session(project)) == expected


@pytest.mark.parametrize("project", ["STUDY_002", "STUDY_009"])
def test_a_session_s_project_must_be_one_that_the_caller_may_see(catalog: SqlCatalog, project: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        catalog.project_of(reader("STUDY_001", "STUDY_009"), Session(project))
    assert caught.value.message == f'no project "{project}"'
