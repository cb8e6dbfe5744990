"""The stock ADBC driver, unmodified: what analysts have works."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as dbapi
import pandas as pd
import pyarrow as pa
import pytest
from adbc_driver_manager import Error, NotSupportedError, OperationalError, ProgrammingError

from support.adbc import adbc, erase_option, get_option, rows, set_option
from support.answers import assert_reveals_nothing
from support.server import Server, await_condition, running, write_config
from support.stores import write_store
from support.tls import write_certificate
from support.writable import empty_place

DM = pa.table(
    {
        "USUBJID": ["01-001", "01-002", "01-003"],
        "AGE": pa.array([71, 64, 58], pa.int32()),
        "SEX": pa.array(["F", "M", "F"]).dictionary_encode(),
    }
)
IN_001 = {"x-datom-project": "STUDY_001"}
SELECT = "SELECT USUBJID FROM dm WHERE AGE > ? AND SEX = ? ORDER BY 1"

LB_ROWS = 2_500_000


def lab() -> pa.Table:
    """A little over 100 MB as Arrow has it."""
    number = pa.array(range(LB_ROWS), pa.int64())
    text = pa.DictionaryArray.from_arrays(
        pa.array([index % 1000 for index in range(LB_ROWS)], pa.int32()),
        pa.array([f"a result of the laboratory, {index:04d}" for index in range(1000)]),
    )
    return pa.table({"LBSEQ": number, "LBORRES": text.dictionary_decode()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adbc")
    write_store(folder / "one", {"dm": [DM.slice(0, 2), DM], "adsl_v1": [DM], "adslxv1": [DM.slice(1)], "lb": [lab()]})
    write_store(folder / "two", {"dm": [DM.slice(0, 1)]})
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    projects = {
        "STUDY_001": {"data": f"file://{folder / 'one'}"},
        "STUDY_002": {"data": f"file://{folder / 'two'}"},
        "STUDY_W": empty_place(folder / "writable", "STUDY_W").settings,
    }
    with running(write_config(folder, projects)) as server:
        yield server


@pytest.fixture
def conn(server: Server) -> Iterator[Any]:
    with adbc(server, headers=IN_001) as connection:
        yield connection


@pytest.fixture
def developer(server: Server) -> Iterator[Any]:
    with adbc(server, server.token("developer", "STUDY_W"), autocommit=True) as connection:
        yield connection


def refusal(server: Server, caught: pytest.ExceptionInfo[Error]) -> str:
    """What the driver shows of an error, which must reveal nothing."""
    assert_reveals_nothing(str(caught.value), server)
    return str(caught.value)


def test_it_connects_with_a_token(conn: Any) -> None:
    assert rows(conn, "SELECT count(*) FROM dm") == [(3,)]


def test_it_connects_with_user_and_password(server: Server) -> None:
    options = {"username": "anybody", "password": server.token("reader", "STUDY_002")}
    with dbapi.connect(server.url, db_kwargs=options, autocommit=True) as connection:
        assert rows(connection, "SELECT USUBJID FROM dm") == [("01-001",)]


def test_it_connects_over_tls(folder: Path) -> None:
    certificate, key = write_certificate(folder / "tls")
    config = write_config(
        folder / "tls",
        {"STUDY_001": {"data": f"file://{folder / 'one'}"}},
        server={"listen": "grpc+tls://127.0.0.1:0", "certificate": str(certificate), "key": str(key)},
    )
    with running(config) as server:
        for name, value in (("TLS_ROOT_CERTS", certificate.read_text()), ("TLS_SKIP_VERIFY", "true")):
            with adbc(server, options={name: value}) as connection:
                assert rows(connection, "SELECT count(*) FROM dm") == [(3,)]


def test_a_bad_token_is_refused_at_the_first_query(server: Server) -> None:
    with (
        adbc(server, "not.a.token", autocommit=True) as connection,
        pytest.raises(ProgrammingError, match="unauthenticated") as caught,
    ):
        rows(connection, "SELECT 1")
    refusal(server, caught)


def test_it_says_what_it_talks_to(conn: Any) -> None:
    info = conn.adbc_get_info()
    assert info["vendor_name"] == "datom-flight"
    assert info["vendor_arrow_version"] == pa.__version__


@pytest.mark.parametrize("depth", ["catalogs", "db_schemas", "tables", "all"])
def test_it_finds_what_there_is_at_every_depth(conn: Any, depth: str) -> None:
    (catalog,) = conn.adbc_get_objects(depth=depth).read_all().to_pylist()
    assert catalog["catalog_name"] == "datom"
    if depth == "catalogs":
        return
    schemas = {schema["db_schema_name"]: schema["db_schema_tables"] for schema in catalog["catalog_db_schemas"]}
    assert {"STUDY_001", "STUDY_002", "STUDY_W"} <= set(schemas)
    if depth == "db_schemas":
        return
    tables = {table["table_name"]: table["table_columns"] for table in schemas["STUDY_001"]}
    assert list(tables) == ["adsl_v1", "adslxv1", "dm", "lb"]
    if depth == "all":
        assert [column["column_name"] for column in tables["dm"]] == ["USUBJID", "AGE", "SEX"]
        assert [column["xdbc_type_name"] for column in tables["dm"]] == ["VARCHAR", "INTEGER", "VARCHAR"]


def test_it_finds_only_what_the_caller_may_see(server: Server) -> None:
    with adbc(server, server.token("reader", "STUDY_002"), autocommit=True) as connection:
        (catalog,) = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
        assert [schema["db_schema_name"] for schema in catalog["catalog_db_schemas"]] == ["STUDY_002"]
        with pytest.raises(OperationalError, match="not_found") as caught:
            rows(connection, "SELECT * FROM STUDY_001.dm")
    refusal(server, caught)


def test_it_filters_what_there_is(conn: Any) -> None:
    found = conn.adbc_get_objects(
        depth="tables", db_schema_filter="STUDY_001", table_name_filter="adsl%", table_types_filter=["TABLE"]
    )
    (catalog,) = found.read_all().to_pylist()
    (schema,) = catalog["catalog_db_schemas"]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["adsl_v1", "adslxv1"]


def test_a_table_s_schema_is_its_own_even_where_its_name_is_a_pattern(conn: Any) -> None:
    schema = conn.adbc_get_table_schema("adsl_v1", db_schema_filter="STUDY_001")
    assert schema.names == DM.schema.names
    assert schema.metadata[b"datom.table"] == b"adsl_v1"


def test_a_table_s_schema_without_a_schema_is_of_the_current_one(server: Server) -> None:
    for project in ("STUDY_001", "STUDY_002"):
        with adbc(server, headers={"x-datom-project": project}, autocommit=True) as connection:
            assert connection.adbc_get_table_schema("dm").metadata[b"datom.project"] == project.encode()


def test_there_is_one_type_of_tables(conn: Any) -> None:
    assert conn.adbc_get_table_types() == ["TABLE"]


def test_a_whole_table_keeps_its_stored_types_and_says_what_it_is(conn: Any) -> None:
    with conn.cursor() as cursor:
        cursor.execute("SELECT * FROM dm")
        assert cursor.rowcount == 3
        table = cursor.fetch_arrow_table()
    assert table.schema.equals(DM.schema)
    assert table.to_pydict() == DM.to_pydict()
    assert table.schema.metadata[b"datom.table"] == b"dm"
    (pin,) = json.loads(table.schema.metadata[b"datom.pins"])
    assert pin["version"].encode() == table.schema.metadata[b"datom.version"]


def test_a_query_computes(conn: Any) -> None:
    assert rows(conn, "SELECT SEX, avg(AGE) FROM dm GROUP BY SEX ORDER BY SEX") == [("F", 64.5), ("M", 64.0)]


def test_a_query_crosses_projects(conn: Any) -> None:
    joined = "SELECT count(*) FROM STUDY_001.dm JOIN datom.STUDY_002.dm AS other USING (USUBJID)"
    assert rows(conn, joined) == [(1,)]


def test_parameters_are_bound(conn: Any) -> None:
    with conn.cursor() as cursor:
        for age, sex, expected in ((60, "F", ["01-001"]), (50, "F", ["01-001", "01-003"]), (60, "M", ["01-002"])):
            cursor.execute(SELECT, (age, sex))
            assert [row[0] for row in cursor.fetchall()] == expected
    assert rows(conn, SELECT, pa.record_batch({"a": [60], "b": ["F"]})) == [("01-001",)]


def test_parameters_are_never_text_of_the_query(conn: Any) -> None:
    assert rows(conn, SELECT, (0, "F' OR '1'='1")) == []


@pytest.mark.parametrize("parameters", [(60,), (60, "F", 1)])
def test_too_few_or_too_many_parameters_are_refused(server: Server, conn: Any, parameters: tuple[Any, ...]) -> None:
    with pytest.raises(Error) as caught:
        rows(conn, SELECT, parameters)
    assert "sql_error" in refusal(server, caught) or "invalid_argument" in refusal(server, caught)


def test_many_rows_of_parameters_are_refused(server: Server, conn: Any) -> None:
    with pytest.raises(Error, match="one row of parameters") as caught:
        rows(conn, SELECT, pa.record_batch({"0": [60, 50], "1": ["F", "M"]}))
    refusal(server, caught)


@pytest.mark.parametrize("query", [SELECT, "INSERT INTO dm VALUES (?, ?)"])
def test_executemany_is_refused_saying_that_the_server_is_read_only(server: Server, conn: Any, query: str) -> None:
    with conn.cursor() as cursor, pytest.raises(OperationalError, match="read-only") as caught:
        cursor.executemany(query, [(60, "F"), (50, "M")])
    assert "sql_error" in refusal(server, caught)


@pytest.mark.parametrize(
    "query", ["INSERT INTO dm VALUES ('x', 1, 'F')", "CREATE TABLE x (a INT)", "DROP TABLE dm", "SELECT 1; SELECT 2"]
)
def test_what_is_not_one_select_is_refused(server: Server, conn: Any, query: str) -> None:
    with pytest.raises(OperationalError, match="sql_error") as caught:
        rows(conn, query)
    refusal(server, caught)


def test_no_rows_have_a_schema(conn: Any) -> None:
    for query in ("SELECT * FROM dm WHERE AGE > 1000", "SELECT AGE + 1 AS older FROM dm WHERE AGE > 1000"):
        with conn.cursor() as cursor:
            cursor.execute(query)
            table = cursor.fetch_arrow_table()
        assert table.num_rows == 0
        assert table.num_columns in (1, 3)


def test_the_schema_comes_without_the_rows(conn: Any) -> None:
    with conn.cursor() as cursor:
        assert cursor.adbc_execute_schema("SELECT AGE, upper(USUBJID) AS id FROM dm").names == ["AGE", "id"]


@pytest.mark.parametrize("query", ["SELECT * FROM lb", "SELECT LBSEQ * 2 AS LBSEQ, LBORRES || '' AS LBORRES FROM lb"])
def test_100_megabytes_come_in_one_result(conn: Any, query: str) -> None:
    with conn.cursor() as cursor:
        cursor.execute(query)
        table = cursor.fetch_arrow_table()
    assert table.num_rows == LB_ROWS
    assert table.nbytes > 100_000_000
    assert max(batch.nbytes for batch in table.to_batches()) < 8 * 1024 * 1024


def test_partitions_are_read_by_another_process_after_the_connection_is_gone(server: Server) -> None:
    with adbc(server, headers=IN_001) as connection, connection.cursor() as cursor:
        whole, _ = cursor.adbc_execute_partitions("SELECT * FROM lb")
        computed, _ = cursor.adbc_execute_partitions("SELECT AGE FROM dm WHERE AGE > 60")
    assert len(whole) > 1
    program = """
import json, sys
import adbc_driver_flightsql.dbapi as dbapi
url, token, *partitions = json.load(sys.stdin)
options = {"adbc.flight.sql.authorization_header": "Bearer " + token}
with dbapi.connect(url, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
    for partition in partitions:
        cursor.adbc_read_partition(bytes.fromhex(partition))
        print(cursor.fetch_arrow_table().num_rows)
"""
    given = json.dumps([server.url, server.token(), *(partition.hex() for partition in [*whole, *computed])])
    done = subprocess.run(
        [sys.executable, "-c", program], input=given, capture_output=True, text=True, timeout=60, check=True
    )
    *counts, last = [int(line) for line in done.stdout.split()]
    assert sum(counts) == LB_ROWS
    assert last == 2


def test_cancelling_ends_the_stream(server: Server, conn: Any) -> None:
    with conn.cursor() as cursor:
        cursor.execute("SELECT a.LBSEQ FROM lb AS a, lb AS b")
        reader = cursor.fetch_record_batch()
        reader.read_next_batch()
        streams = server.log.count(" do_get ")
        cursor.adbc_cancel()
        with pytest.raises((Error, OSError)):
            reader.read_all()
    await_condition(lambda: server.log.count(" do_get ") > streams, 20, "the cancelled stream has ended")
    assert rows(conn, "SELECT count(*) FROM dm") == [(3,)]


def test_cancelling_ends_a_query_that_has_given_nothing_yet(server: Server, conn: Any) -> None:
    streams = server.log.count(" do_get ")
    with conn.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM lb AS a, lb AS b WHERE a.LBSEQ % 7 = b.LBSEQ % 11")
        timer = threading.Timer(0.5, cursor.adbc_cancel)
        timer.start()
        with pytest.raises((Error, OSError)):
            cursor.fetchall()
        timer.join()
    await_condition(lambda: server.log.count(" do_get ") > streams, 20, "the cancelled query has ended")
    assert rows(conn, "SELECT count(*) FROM dm") == [(3,)]


def test_pandas_and_polars_read(conn: Any) -> None:
    import polars as pl

    with conn.cursor() as cursor:
        cursor.execute("SELECT * FROM dm")
        assert cursor.fetch_df()["AGE"].tolist() == [71, 64, 58]
    assert pd.read_sql("SELECT * FROM dm WHERE AGE > 60", conn)["USUBJID"].tolist() == ["01-001", "01-002"]
    frame = pl.read_database("SELECT * FROM dm", conn)
    assert frame["SEX"].cast(pl.String).to_list() == ["F", "M", "F"]
    assert pl.read_database(SELECT, conn, execute_options={"parameters": [60, "F"]}).height == 1


# As the library connects it


def test_the_library_connects_it_as_it_is_itself(server: Server) -> None:
    with server.connect("STUDY_001") as own, own.adbc() as connection:
        assert rows(connection, "SELECT count(*) FROM dm") == [(3,)]
        assert connection.adbc_current_db_schema == "STUDY_001"
        assert rows(connection, SELECT, (60, "F")) == [("01-001",)]
        assert pd.read_sql("SELECT * FROM dm", connection)["AGE"].tolist() == [71, 64, 58]
        connection.adbc_current_db_schema = "STUDY_002"
        assert rows(connection, "SELECT count(*) FROM dm") == [(1,)]
    with server.connect("STUDY_001") as own, own.adbc(as_of="2026-01-15") as connection:
        assert rows(connection, "SELECT count(*) FROM dm") == [(2,)]
    with server.connect() as own, own.adbc() as connection, pytest.raises(OperationalError, match="no project"):
        rows(connection, "SELECT count(*) FROM dm")


def test_the_library_s_connection_commits_by_itself_unless_told_otherwise(server: Server) -> None:
    with server.connect("STUDY_W", token=server.token("developer", "STUDY_W")) as own:
        with own.adbc() as connection:
            assert ingest(connection, "moving", DM, "create") == 3
            own.write("moving", DM.slice(0, 1))
            assert rows(connection, "SELECT count(*) FROM moving") == [(1,)]
        next_second()
        with own.adbc(autocommit=False) as connection:
            next_second()
            own.write("moving", DM.slice(0, 2))
            assert rows(connection, "SELECT count(*) FROM moving") == [(1,)]
            connection.commit()
            assert rows(connection, "SELECT count(*) FROM moving") == [(2,)]


def test_the_library_s_connection_has_no_more_rights_than_it_has_itself(server: Server) -> None:
    with (
        server.connect("STUDY_W", token=server.token("developer", "STUDY_W"), role="reader") as own,
        own.adbc() as connection,
        pytest.raises(ProgrammingError, match="permission_denied"),
    ):
        ingest(connection, "forbidden", DM, "create")


def test_the_library_s_connection_trusts_whom_it_trusts_itself_and_waits_no_longer(folder: Path) -> None:
    certificate, key = write_certificate(folder / "own_tls")
    config = write_config(
        folder / "own_tls",
        {"STUDY_001": {"data": f"file://{folder / 'one'}"}},
        server={"listen": "grpc+tls://127.0.0.1:0", "certificate": str(certificate), "key": str(key)},
    )
    with running(config, tls_root_certs=certificate.read_bytes()) as server:
        for trusted in (certificate.read_bytes(), str(certificate)):
            with server.connect("STUDY_001", tls_root_certs=trusted) as own, own.adbc() as connection:
                assert rows(connection, "SELECT count(*) FROM dm") == [(3,)]
        with (
            server.connect("STUDY_001", timeout=4) as own,
            own.adbc() as connection,
            pytest.raises(Error, match=r"(?i)deadline|timeout"),
        ):
            rows(connection, "SELECT count(*) FROM lb AS a, lb AS b WHERE a.LBSEQ % 7 = b.LBSEQ % 11")


def test_the_current_catalog_and_schema_are_the_server_s(server: Server) -> None:
    with adbc(server) as connection:
        assert connection.adbc_current_catalog == "datom"
        connection.adbc_current_catalog = "datom"
        with pytest.raises(ProgrammingError):
            connection.adbc_current_db_schema  # noqa: B018
        with pytest.raises(OperationalError, match="no project is chosen"):
            rows(connection, "SELECT * FROM dm")
        for project, count in (("STUDY_001", 3), ("STUDY_002", 1), ("STUDY_001", 3)):
            connection.adbc_current_db_schema = project
            assert connection.adbc_current_db_schema == project
            assert rows(connection, "SELECT count(*) FROM dm") == [(count,)]


def test_a_schema_or_catalog_that_is_not_there_is_refused(server: Server, conn: Any) -> None:
    for option in ("adbc_current_db_schema", "adbc_current_catalog"):
        with pytest.raises(ProgrammingError, match="invalid value") as caught:
            setattr(conn, option, "NOWHERE")
        refusal(server, caught)
    with pytest.raises(ProgrammingError, match="invalid name"):
        set_option(conn, "other", "x")
    assert conn.adbc_current_db_schema == "STUDY_001"


def test_the_schema_of_a_caller_with_one_project_is_that_one(server: Server) -> None:
    with adbc(server, server.token("reader", "STUDY_002")) as connection:
        assert connection.adbc_current_db_schema == "STUDY_002"
        assert rows(connection, "SELECT count(*) FROM dm") == [(1,)]


def test_options_hold_with_cookies_and_after_user_and_password(server: Server) -> None:
    with adbc(server, options={"WITH_COOKIE_MIDDLEWARE": "true"}) as connection:
        connection.adbc_current_db_schema = "STUDY_002"
        assert rows(connection, "SELECT count(*) FROM dm") == [(1,)]
    options = {"username": "anybody", "password": server.token()}
    with dbapi.connect(server.url, db_kwargs=options, autocommit=True) as connection:
        connection.adbc_current_db_schema = "STUDY_002"
        assert rows(connection, "SELECT count(*) FROM dm") == [(1,)]


def test_options_are_those_of_one_connection(server: Server) -> None:
    with adbc(server) as one, adbc(server) as two:
        one.adbc_current_db_schema = "STUDY_001"
        two.adbc_current_db_schema = "STUDY_002"
        assert (rows(one, "SELECT count(*) FROM dm"), rows(two, "SELECT count(*) FROM dm")) == ([(3,)], [(1,)])


def test_an_instant_pins_the_connection_until_it_is_taken_back(conn: Any) -> None:
    with conn.cursor() as cursor:
        for pin, count in (("2026-01-15", 2), ("2026-02-15T00:00:00Z", 3), ("", 3)):
            if pin:
                set_option(conn, "datom.as_of", pin)
                assert get_option(conn, "datom.as_of") == pin
            else:
                erase_option(conn, "datom.as_of")
            # the cursor prepared it but once
            cursor.execute("SELECT count(*) FROM dm")
            assert cursor.fetchall() == [(count,)]
    with pytest.raises(ProgrammingError, match="invalid value"):
        set_option(conn, "datom.as_of", "yesterday")


def test_a_header_pins_the_connection(server: Server) -> None:
    with adbc(server, headers={**IN_001, "x-datom-as-of": "2026-01-15"}) as connection:
        assert rows(connection, "SELECT count(*) FROM dm") == [(2,)]
        assert get_option(connection, "datom.as_of") == "2026-01-15"


def test_an_instant_before_the_first_version_finds_none(server: Server) -> None:
    with (
        adbc(server, headers={**IN_001, "x-datom-as-of": "2025-01-01"}, autocommit=True) as connection,
        pytest.raises(OperationalError, match="version_not_found") as caught,
    ):
        rows(connection, "SELECT * FROM dm")
    refusal(server, caught)


def test_a_header_that_is_no_instant_is_refused(server: Server) -> None:
    with (
        adbc(server, headers={"x-datom-as-of": "yesterday"}, autocommit=True) as connection,
        pytest.raises(OperationalError, match="invalid_argument") as caught,
    ):
        rows(connection, "SELECT 1")
    refusal(server, caught)


def test_commit_and_rollback_begin_anew(conn: Any) -> None:
    assert rows(conn, "SELECT count(*) FROM dm") == [(3,)]
    conn.commit()
    conn.rollback()
    assert rows(conn, "SELECT count(*) FROM dm") == [(3,)]


def ingest(connection: Any, name: str, data: pa.Table, mode: str, **options: Any) -> int:
    with connection.cursor() as cursor:
        return int(cursor.adbc_ingest(name, data, mode=mode, **options))


def next_second() -> None:
    """Return when versions are written with another timestamp than now: they have whole seconds."""
    second = int(time.time())
    await_condition(lambda: int(time.time()) > second, 5, "another second has begun")


def test_a_transaction_reads_as_of_its_beginning_until_it_ends(server: Server, developer: Any) -> None:
    ingest(developer, "snapshot", DM, "create")
    with adbc(server, headers={"x-datom-project": "STUDY_W"}) as reader, reader.cursor() as cursor:

        def count() -> int:
            cursor.execute("SELECT count(*) FROM snapshot")
            return int(cursor.fetchone()[0])

        assert count() == 3
        next_second()
        ingest(developer, "snapshot", DM, "append")
        assert count() == 3
        reader.rollback()
        assert count() == 6
        next_second()
        ingest(developer, "snapshot", DM, "append")
        assert count() == 6
        reader.adbc_connection.set_autocommit(True)
        assert count() == 9


def test_a_transaction_older_than_the_table_says_what_to_do(server: Server, developer: Any) -> None:
    with adbc(server, headers={"x-datom-project": "STUDY_W"}) as reader:
        rows(reader, "SELECT 1")
        next_second()
        ingest(developer, "later", DM, "create")
        with pytest.raises(OperationalError, match="commit to see later versions") as caught:
            rows(reader, "SELECT * FROM later")
        refusal(server, caught)
        reader.commit()
        assert rows(reader, "SELECT count(*) FROM later") == [(3,)]


def test_ingest_creates_appends_and_replaces(developer: Any) -> None:
    assert ingest(developer, "modes", DM, "create") == 3
    assert ingest(developer, "modes", DM.slice(0, 1), "append") == 1
    assert ingest(developer, "modes", DM.slice(1, 2), "create_append") == 2
    assert rows(developer, "SELECT list(USUBJID) FROM modes") == [
        (["01-001", "01-002", "01-003", "01-001", "01-002", "01-003"],)
    ]
    assert ingest(developer, "modes", DM.slice(0, 1), "replace") == 1
    assert rows(developer, "SELECT count(*) FROM modes") == [(1,)]
    assert ingest(developer, "modes_new", DM, "create_append") == 3
    assert ingest(developer, "modes_newer", DM, "replace") == 3


def test_every_ingest_is_a_version_and_an_append_names_its_parent(server: Server, developer: Any) -> None:
    ingest(developer, "history", DM, "create")
    ingest(developer, "history", DM, "append")
    with server.connect("STUDY_W") as conn:
        newest, first = conn.history("history")
        (parent,) = conn.parents("history") or []
        assert (parent["source"], parent["table"], parent["version"]) == ("STUDY_W", "history", first.version)
        assert conn.read("history").num_rows == 6
        assert conn.read("history", version=first.version).to_pydict() == DM.to_pydict()
        assert newest.author is not None
        assert "ann" in newest.author


def test_an_append_keeps_the_stored_types_and_order_of_columns(server: Server, developer: Any) -> None:
    ingest(developer, "types", DM, "create")
    other = pa.table(
        {"SEX": ["U"], "USUBJID": pa.array(["01-004"], pa.large_string()), "AGE": pa.array([40], pa.int64())}
    )
    assert ingest(developer, "types", other, "append") == 1
    with server.connect("STUDY_W") as conn:
        table = conn.read("types")
    assert table.schema.types == DM.schema.types
    assert table.slice(3).to_pylist() == [{"USUBJID": "01-004", "AGE": 40, "SEX": "U"}]


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (DM.drop_columns(["SEX"]), '"SEX"'),
        (DM.append_column("RACE", pa.array(["A", "B", "C"])), '"RACE"'),
        (DM.set_column(1, "AGE", pa.array(["old", "older", "oldest"])), '"AGE"'),
        (DM.set_column(1, "AGE", pa.array([2**40, 1, 2])), '"AGE"'),
    ],
)
def test_an_append_of_other_columns_or_values_is_refused(
    server: Server, developer: Any, data: pa.Table, named: str
) -> None:
    ingest(developer, "refused", DM, "replace")
    with pytest.raises(OperationalError, match="invalid_argument") as caught:
        ingest(developer, "refused", data, "append")
    assert named in refusal(server, caught)
    assert rows(developer, "SELECT count(*) FROM refused") == [(3,)]


def test_create_of_a_table_that_exists_and_append_to_one_that_does_not_are_refused(
    server: Server, developer: Any
) -> None:
    ingest(developer, "exists", DM, "create")
    with pytest.raises(OperationalError, match="conflict") as caught:
        ingest(developer, "exists", DM, "create")
    refusal(server, caught)
    with pytest.raises(OperationalError, match="not_found") as caught:
        ingest(developer, "nowhere", DM, "append")
    refusal(server, caught)


def test_ingest_takes_a_schema_and_the_catalog(server: Server) -> None:
    with adbc(server, server.token("developer"), autocommit=True) as connection:
        with pytest.raises(OperationalError, match="name the schema"):
            ingest(connection, "placed", DM, "create")
        assert ingest(connection, "placed", DM, "create", catalog_name="datom", db_schema_name="STUDY_W") == 3
        assert rows(connection, "SELECT count(*) FROM STUDY_W.placed") == [(3,)]
        with pytest.raises(OperationalError, match="not_found"):
            ingest(connection, "placed", DM, "append", catalog_name="other", db_schema_name="STUDY_W")


def test_ingest_of_a_temporary_table_is_not_supported(server: Server, developer: Any) -> None:
    with pytest.raises(NotSupportedError, match="temporary") as caught:
        ingest(developer, "temporary", DM, "create", temporary=True)
    assert "unsupported" in str(caught.value)


def test_a_reader_ingests_nothing_and_nobody_into_what_they_may_not_see(server: Server, developer: Any) -> None:
    with (
        adbc(server, server.token("reader", "STUDY_W"), autocommit=True) as connection,
        pytest.raises(ProgrammingError, match="permission_denied") as caught,
    ):
        ingest(connection, "forbidden", DM, "create")
    refusal(server, caught)
    with pytest.raises(OperationalError, match="not_found") as hidden:
        ingest(developer, "forbidden", DM, "create", db_schema_name="STUDY_001")
    refusal(server, hidden)
