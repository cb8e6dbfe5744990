"""Which tables a query reads, and what a query may not say."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.sql.allowed import FUNCTIONS, OPERATORS
from datom_flight_server.sql.references import CheckedSelect, HistoryCall, Reference, check
from datom_flight_server.sql.selects import SelectParser


@pytest.fixture(scope="module")
def parser() -> Iterator[SelectParser]:
    made = SelectParser()
    yield made
    made.close()


def checked(parser: SelectParser, query: str) -> CheckedSelect:
    return check(parser.parse(query))


def names(parser: SelectParser, query: str) -> list[str]:
    """The tables a query reads, as it writes them."""
    return [
        ".".join(part for part in (site.asked.schema, site.asked.table) if part)
        for site in checked(parser, query).sites
        if isinstance(site.asked, Reference)
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT 1", []),
        ("SELECT * FROM dm", ["dm"]),
        ("FROM dm", ["dm"]),
        ("TABLE dm", ["dm"]),
        ("SELECT * FROM dm;", ["dm"]),
        ("-- a comment\nSELECT * FROM dm /* and another */", ["dm"]),
        ("SELECT * FROM STUDY_001.dm", ["STUDY_001.dm"]),
        ('SELECT * FROM "my set (1)".dm', ["my set (1).dm"]),
        ("SELECT * FROM datom.STUDY_001.dm", ["STUDY_001.dm"]),
        ("SELECT * FROM dm, lb", ["dm", "lb"]),
        ("SELECT * FROM dm d JOIN lb USING (USUBJID) LEFT JOIN ae ON true", ["dm", "lb", "ae"]),
        ("SELECT * FROM (SELECT * FROM (SELECT * FROM dm))", ["dm"]),
        ("SELECT (SELECT max(x) FROM lb), 1 IN (SELECT y FROM ae) FROM dm", ["lb", "ae", "dm"]),
        ("SELECT * FROM dm WHERE EXISTS (SELECT 1 FROM lb WHERE lb.a = dm.a)", ["dm", "lb"]),
        ("SELECT * FROM dm, LATERAL (SELECT * FROM lb WHERE lb.a = dm.a)", ["dm", "lb"]),
        ("SELECT * FROM dm UNION ALL SELECT * FROM lb EXCEPT SELECT * FROM ae", ["dm", "lb", "ae"]),
        ("VALUES ((SELECT max(a) FROM dm))", ["dm"]),
        ("SELECT * FROM range((SELECT count(*) FROM dm))", ["dm"]),
        ("PIVOT dm ON SEX IN ('F', 'M') USING count(*)", ["dm"]),
        ("UNPIVOT dm ON a, b INTO NAME n VALUE v", ["dm"]),
        ("DESCRIBE dm", ["dm"]),
        ("SHOW dm", ["dm"]),
        ("SHOW STUDY_001.dm", ["STUDY_001.dm"]),
        ("SELECT * FROM (SHOW dm), lb", ["dm", "lb"]),
        ("SELECT * FROM dm, json_each((SELECT x FROM lb))", ["dm", "lb"]),
        ("SELECT a.split('-'), d.b.list_transform(lambda x: x + (SELECT 1 FROM lb)) FROM dm d", ["dm", "lb"]),
        ("SUMMARIZE SELECT * FROM dm", ["dm"]),
        ("SELECT sum(a) OVER (ORDER BY (SELECT 1 FROM lb)) FROM dm", ["lb", "dm"]),
        ("SELECT * FROM dm ORDER BY (SELECT max(a) FROM lb) LIMIT (SELECT 3 FROM ae)", ["lb", "ae", "dm"]),
        ("SELECT a FROM dm GROUP BY (SELECT 1 FROM lb) HAVING (SELECT true FROM ae)", ["dm", "lb", "ae"]),
        ("SELECT [x FOR x IN (SELECT list(a) FROM dm)]", ["dm"]),
        ("SELECT list_transform([1], lambda x: (SELECT max(a) FROM dm))", ["dm"]),
        ("SELECT count(*) FILTER (WHERE a IN (SELECT a FROM lb)) FROM dm", ["lb", "dm"]),
    ],
)
def test_every_table_a_query_reads_is_found(parser: SelectParser, query: str, expected: list[str]) -> None:
    assert sorted(names(parser, query)) == sorted(expected)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("WITH dm AS (SELECT 1 AS a) SELECT * FROM dm", []),
        ("WITH dm AS (SELECT 1 AS a) SELECT * FROM DM", []),
        ("WITH dm AS (SELECT * FROM dm) SELECT * FROM dm", ["dm"]),
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM a, b, c", ["c"]),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a, b", ["b"]),
        ("SELECT * FROM (WITH dm AS (SELECT 1) SELECT * FROM dm), dm", ["dm"]),
        ("WITH dm AS (SELECT 1) SELECT * FROM STUDY_001.dm, dm", ["STUDY_001.dm"]),
        ("WITH dm AS (SELECT 1 AS a) SELECT * FROM dm UNION SELECT * FROM dm", []),
        ("(WITH dm AS (SELECT 1 AS a) SELECT * FROM dm) UNION SELECT * FROM dm", ["dm"]),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r", []),
        ("WITH RECURSIVE dm AS (SELECT 1 AS n FROM dm UNION ALL SELECT n FROM dm WHERE false) FROM dm", ["dm"]),
        ("WITH RECURSIVE dm AS (SELECT * FROM dm) SELECT * FROM dm", ["dm"]),
        (
            "WITH RECURSIVE r(n) USING KEY (n) AS (SELECT 1 UNION SELECT n + 1 FROM recurring.r WHERE n < 3) FROM r",
            [],
        ),
        ("SELECT * FROM recurring.r", ["recurring.r"]),
        ("WITH a AS (SELECT 1) SELECT (SELECT (SELECT max(x) FROM a) FROM b)", ["b"]),
        ("WITH a AS MATERIALIZED (SELECT * FROM dm), b AS NOT MATERIALIZED (FROM a) FROM b", ["dm"]),
    ],
)
def test_names_given_by_with_are_no_tables_where_they_hold(
    parser: SelectParser, query: str, expected: list[str]
) -> None:
    assert sorted(names(parser, query)) == sorted(expected)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("FROM dm AT (VERSION => '8a3b21cc')", Reference(None, "dm", "8a3b21cc")),
        ("FROM S.dm d AT (VERSION => '8a3b21cc')", Reference("S", "dm", "8a3b21cc")),
        ("FROM dm AS d(a, b) AT (VERSION => '8a3b')", Reference(None, "dm", "8a3b")),
        ("FROM dm AT (TIMESTAMP => '2026-01-15')", Reference(None, "dm", as_of="2026-01-15")),
        ("FROM dm AT (TIMESTAMP => DATE '2026-01-15')", Reference(None, "dm", as_of="2026-01-15")),
        ("FROM dm AT (TIMESTAMP => TIMESTAMP '2026-01-15 12:00')", Reference(None, "dm", as_of="2026-01-15 12:00")),
        ("FROM dm AT (TIMESTAMP => '2026-01-15'::TIMESTAMPTZ)", Reference(None, "dm", as_of="2026-01-15")),
        ('FROM "dm@8a3b21cc"', Reference(None, "dm", "8a3b21cc")),
        ('FROM "STUDY_001"."dm@8a3b21cc"', Reference("STUDY_001", "dm", "8a3b21cc")),
        ("WITH dm AS (SELECT 1) FROM dm AT (VERSION => '8a')", Reference(None, "dm", "8a")),
    ],
)
def test_a_version_is_written_with_at_or_after_an_at_sign(
    parser: SelectParser, query: str, expected: Reference
) -> None:
    assert [site.asked for site in checked(parser, query).sites] == [expected]


def test_history_functions_are_found_with_their_arguments(parser: SelectParser) -> None:
    found = checked(parser, "FROM datom_diff('dm', '8a', '77', key := 'A,B') d, DATOM_TABLES()")
    assert [site.asked for site in found.sites] == [
        HistoryCall("datom_diff", ("dm", "8a", "77"), (("key", "A,B"),)),
        HistoryCall("datom_tables", ()),
    ]
    for query in ("SHOW TABLES", "SELECT name FROM (SHOW TABLES) AS t"):
        assert [site.asked for site in checked(parser, query).sites] == [HistoryCall("datom_tables", ())]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT (SELECT max(a) FROM dm), (SELECT 1 FROM dm) AS x, b FROM lb", ["(SELECT max(a) FROM dm)"]),
        ("SELECT x FROM (SELECT EXISTS (FROM dm), 1 + 1)", ["EXISTS(SELECT * FROM dm)"]),
        ("WITH dm AS (SELECT 1 AS a) SELECT (SELECT max(a) FROM dm)", []),
        ("SELECT COLUMNS(*) + (SELECT max(a) FROM dm) FROM lb", []),
        ("SELECT a, b + 1, * FROM dm", []),
    ],
)
def test_columns_without_a_name_keep_the_one_they_would_have(
    parser: SelectParser, query: str, expected: list[str]
) -> None:
    assert [parser.expression(column) for column in checked(parser, query).unnamed] == expected


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("SELECT * FROM dm AT (VERSION => 'a' || 'b')", 33),
        ("SELECT * FROM dm AT (VERSION => 12345678)", 33),
        ("SELECT * FROM dm AT (TIMESTAMP => now())", 35),
        ("SELECT * FROM \"dm@8a\" AT (VERSION => '8a')", 15),
        ('SELECT * FROM "dm@"', 15),
        ('SELECT * FROM "@8a"', 15),
        ('SELECT * FROM "my set@".dm', 15),
        ("SELECT * FROM dm AT (VERSION => '')", 33),
        ("SELECT a.getenv() FROM dm", 8),
        ("SELECT upper(a).getenv() FROM dm", 17),
        ("SELECT main.current_setting('x')", 8),
        ("SELECT a.read_text('x') FROM dm", 8),
        ("SELECT * FROM main.json_each('{}')", 15),
        ("SELECT * FROM a.b.c", 15),
        ("SELECT * FROM datom.a.b.c", 15),
        ("SELECT 1,\n  getenv('HOME')", 13),
        ("SELECT * FROM datom_versions(AGE)", 30),
        ("SELEC 1", 1),
        ("SELECT 'é', 1 +", None),
    ],
)
def test_a_refusal_names_the_place(parser: SelectParser, query: str, place: int | None) -> None:
    with pytest.raises(DatomError) as caught:
        checked(parser, query)
    assert caught.value.code == "sql_error"
    if place is not None:
        assert caught.value.fields["position"] == place


@pytest.mark.parametrize(
    "query",
    [
        "SELECT " + "(" * 200 + "1" + ")" * 200,
        "SELECT " + "- " * 5000 + "1",
        "SELECT 1" + " + 1" * 5000,
        "SELECT " + "NOT " * 5000 + "true",
        "SELECT * FROM dm" + " JOIN dm USING (a)" * 3000,
        "SELECT " + "[" * 300 + "1" + "]" * 300,
        "SELECT '" + "x" * 600_000 + "'",
        "SELECT " + "1," * 60_000 + "1",
    ],
    ids=["brackets", "minus", "plus", "not", "joins", "lists", "bytes", "words"],
)
def test_what_is_too_deep_or_too_long_is_too_large(parser: SelectParser, query: str) -> None:
    with pytest.raises(DatomError) as caught:
        checked(parser, query)
    assert caught.value.code == "too_large"


def test_a_long_in_list_and_many_alternatives_are_fine(parser: SelectParser) -> None:
    assert names(parser, f"SELECT * FROM dm WHERE a IN ({', '.join(map(str, range(10_000)))})") == ["dm"]
    assert names(parser, "SELECT * FROM dm WHERE a = 0" + " OR a = 1" * 3000) == ["dm"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM dm AS d (a, b) WHERE a BETWEEN 1 AND 2 ORDER BY b DESC NULLS LAST LIMIT 3 OFFSET 1",
        "WITH a AS (SELECT 1 AS x) SELECT x, count(*) FROM a GROUP BY ROLLUP (x) HAVING count(*) > 0",
        "SELECT * EXCLUDE (a) REPLACE (b + 1 AS b), COLUMNS('x.*') FROM dm",
        "SELECT row_number() OVER w FROM dm WINDOW w AS (PARTITION BY a ORDER BY b ROWS 2 PRECEDING)",
        "SELECT a FROM dm QUALIFY rank() OVER (ORDER BY a) = 1",
        "SELECT DISTINCT ON (a) a, b FROM dm ASOF JOIN lb ON dm.d >= lb.d",
        "SELECT CAST(a AS DECIMAL(10, 2)), TRY_CAST(b AS DATE), c::VARCHAR[], INTERVAL '3 days', {'a': 1}.a FROM dm",
        "SELECT [x * 2 FOR x IN l IF x > 1], list_filter(l, lambda y: y > 2) FROM dm",
        "PIVOT dm ON a IN ('x', 'y') USING sum(b) GROUP BY c",
        "SELECT * FROM dm TABLESAMPLE reservoir(10 ROWS) REPEATABLE (42)",
        "SELECT 'it''s', $$dollars$$, E'tab\\t', 1.5, 1e3, 0x1F, NULL, true",
    ],
)
def test_what_runs_is_what_was_checked(parser: SelectParser, query: str) -> None:
    again = parser.text(parser.parse(query).tree)
    assert parser.text(parser.parse(again).tree) == again


def test_every_function_of_this_duckdb_was_looked_at(parser: SelectParser) -> None:
    with duckdb.connect(":memory:") as connection:
        known = connection.execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() "
            "WHERE function_type IN ('scalar', 'aggregate', 'macro', 'window')"
        ).fetchall()
    new = {name for (name,) in known} - FUNCTIONS - OPERATORS - REFUSED
    new = {name for name in new if not name.startswith(("__internal", "collate_", "icu_"))}
    assert not new, "functions that nobody has allowed or refused yet"
    assert not FUNCTIONS & REFUSED


_REFUSED_NAMES = """
__cast array_to_string_comma_default assert_true bitstring_byte_comparable can_cast_implicitly cast_to_type
col_description combine combine_aggr constant_or_null create_sort_key current_connection_id current_query
current_query_id current_setting current_transaction_id currval decimal_average decimal_division finalize
format_pg_type format_type get_block_size get_type getvariable has_any_column_privilege has_column_privilege
has_database_privilege has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege
has_schema_privilege has_sequence_privilege has_server_privilege has_table_privilege has_tablespace_privilege
hive_partition_component in_search_path index_key inet_client_addr inet_client_port inet_server_addr
inet_server_port invoke is_histogram_other_bin json_copy_strftime_if_date json_copy_strftime_if_timestamp
json_deserialize_sql json_serialize_plan json_serialize_sql make_type map_to_pg_oid nextval obj_description
parse_duckdb_log_message pg_collation_is_visible pg_conf_load_time pg_conversion_is_visible pg_function_is_visible
pg_get_constraintdef pg_get_expr pg_get_viewdef pg_has_role pg_is_other_temp_schema pg_my_temp_schema
pg_opclass_is_visible pg_operator_is_visible pg_opfamily_is_visible pg_postmaster_start_time pg_sleep
pg_table_is_visible pg_ts_config_is_visible pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible
pg_type_is_visible remap_struct replace_type setseed setval shobj_description sleep_ms stats sum_no_overflow
timetz_byte_comparable to_aggregate_state txid_current variant_array_length variant_bytes_to_variant
variant_comparator variant_contains variant_exists variant_extract_string variant_group_array variant_group_object
variant_keys variant_normalize variant_to_parquet_variant variant_type vector_type write_log
"""
REFUSED = frozenset(_REFUSED_NAMES.split())
