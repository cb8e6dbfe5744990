"""What people try on a server that runs SQL: to read files, settings, secrets and others' tables, to write, to stay.

In queries, ``<FILE>`` stands for the path of a text file with a secret in it, ``<CSV>`` and ``<PARQUET>`` for tables
with it, ``<HIDDEN>`` for a version of a table that the caller may not see, and ``⏎`` for the end of a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

ENVIRONMENT_NAME = "DATOM_CANARY"
HIDDEN_PROJECT = "STUDY_009"

_DEEP = 10_000


@dataclass(frozen=True, slots=True)
class Trick:
    """A query that must be refused.

    Attributes:
        codes: one of them says how.
        told: a regular expression that matches the message: it is refused for what it is, not for a slip in it.
        parameter: what its ``?`` is bound to.
        name: its name in the list of tests.
    """

    query: str
    codes: tuple[str, ...]
    told: str = ""
    parameter: str | None = None
    name: str = ""

    def filled(self, places: Mapping[str, str]) -> Trick:
        """The same with what stands for its placeholders."""
        query, parameter = self.query.replace("⏎", "\n"), self.parameter
        for placeholder, value in places.items():
            query = query.replace(placeholder, value)
            parameter = parameter and parameter.replace(placeholder, value)
        return replace(self, query=query, parameter=parameter)

    def __str__(self) -> str:
        return self.name or re.sub(r"[^ -~]", "?", self.query)[:100]


_FILES = """
SELECT * FROM read_csv('<CSV>')
SELECT * FROM read_csv_auto('<CSV>')
SELECT * FROM read_csv(['<CSV>', '<FILE>'])
SELECT * FROM read_csv(?)
SELECT * FROM sniff_csv('<CSV>')
SELECT * FROM read_parquet('<PARQUET>')
SELECT * FROM parquet_scan('<PARQUET>')
SELECT * FROM parquet_metadata('<PARQUET>')
SELECT * FROM parquet_schema('<PARQUET>')
SELECT * FROM parquet_file_metadata('<PARQUET>')
SELECT * FROM parquet_full_metadata('<PARQUET>')
SELECT * FROM parquet_kv_metadata('<PARQUET>')
SELECT * FROM parquet_bloom_probe('<PARQUET>', 'SECRET', 'x')
SELECT * FROM read_json('<FILE>')
SELECT * FROM read_json_auto('<FILE>')
SELECT * FROM read_json_objects('<FILE>')
SELECT * FROM read_ndjson('<FILE>')
SELECT * FROM read_ndjson_objects('<FILE>')
SELECT * FROM read_ndjson_auto('<FILE>')
SELECT * FROM read_text('<FILE>')
SELECT content FROM read_text('/proc/self/environ')
SELECT * FROM read_blob('/etc/passwd')
SELECT * FROM read_text('file://<FILE>')
SELECT * FROM read_text('/dev/stdin')
SELECT * FROM glob('/**')
SELECT * FROM glob('<CSV>')
SELECT * FROM sqlite_scan('<FILE>', 't')
SELECT * FROM postgres_scan('host=127.0.0.1', 'public', 't')
SELECT * FROM postgres_query('db', 'SELECT 1')
SELECT * FROM mysql_scan('host=127.0.0.1', 'db', 't')
SELECT * FROM iceberg_scan('<FILE>')
SELECT * FROM delta_scan('<FILE>')
SELECT * FROM st_read('<FILE>')
SELECT * FROM read_xlsx('<FILE>')
SELECT * FROM read_avro('<FILE>')
SELECT * FROM read_duckdb('<FILE>')
SELECT * FROM arrow_scan(1, 2, 3)
SELECT * FROM arrow_scan_dumb(94000000000000, 94000000000000, 94000000000000)
SELECT * FROM pandas_scan(94000000000000)
SELECT * FROM python_map_function(1)
SELECT * FROM read_csv('http://169.254.169.254/latest/meta-data/')
SELECT * FROM read_parquet('s3://bucket/x.parquet')
SELECT * FROM read_text('https://example.org/')
"""

_FILES_AS_TABLES = """
SELECT * FROM '<CSV>'
FROM '<PARQUET>'
SELECT * FROM "<CSV>"
SELECT * FROM '/etc/passwd'
SELECT * FROM '/proc/self/environ'
SELECT * FROM 'http://169.254.169.254/latest/meta-data/x.csv'
SELECT * FROM 's3://bucket/*.parquet'
SELECT * FROM 'file:<CSV>'
SELECT * FROM './../*.csv'
SELECT * FROM "../../../../etc/passwd"
SUMMARIZE '<CSV>'
DESCRIBE '<PARQUET>'
"""

_STATEMENTS = """
COPY (SELECT 1) TO '<FILE>'
COPY dm TO '<FILE>' (FORMAT csv)
COPY dm FROM '<CSV>'
COPY (SELECT * FROM dm) TO 'x.parquet' (FORMAT parquet)
COPY FROM DATABASE datom TO temp
EXPORT DATABASE '/root/x'
IMPORT DATABASE '/root/x'
ATTACH '<FILE>' AS x
ATTACH ':memory:' AS x
ATTACH 'postgres:host=127.0.0.1' AS pg (TYPE postgres)
DETACH datom
USE temp
INSTALL httpfs
INSTALL 'https://example.org/x.duckdb_extension'
FORCE INSTALL httpfs FROM community
LOAD httpfs
LOAD '/root/x.duckdb_extension'
UPDATE EXTENSIONS
PRAGMA database_list
PRAGMA show_tables
PRAGMA version
PRAGMA memory_limit='100GB'
PRAGMA table_info('dm')
PRAGMA enable_profiling
PRAGMA profiling_output='/root/x'
PRAGMA import_database('/root/x')
CALL pragma_version()
CALL enable_logging()
CALL start_ui()
SET memory_limit='100GB'
SET GLOBAL enable_external_access=true
SET SESSION threads=64
SET allowed_directories=['/']
SET lock_configuration=false
SET VARIABLE x = getenv('DATOM_CANARY')
SET search_path='temp'
SET home_directory='/root'
SET secret_directory='/root'
SET custom_extension_repository='http://127.0.0.1'
RESET memory_limit
RESET GLOBAL enable_external_access
CREATE SECRET s (TYPE s3, KEY_ID 'x', SECRET 'y')
CREATE PERSISTENT SECRET s (TYPE s3)
DROP SECRET s
CREATE TABLE x (a INTEGER)
CREATE TEMP TABLE x AS SELECT 1
CREATE OR REPLACE TABLE dm AS SELECT 1
CREATE VIEW x AS SELECT 1
CREATE OR REPLACE VIEW datom.main.dm AS SELECT 1
CREATE SCHEMA x
CREATE SEQUENCE x
CREATE TYPE x AS ENUM ('a')
CREATE INDEX x ON dm (AGE)
CREATE MACRO f(a) AS a + 1
CREATE MACRO f() AS TABLE SELECT * FROM read_text('<FILE>')
CREATE FUNCTION f(a) AS getenv(a)
DROP TABLE dm
DROP SCHEMA STUDY_001 CASCADE
ALTER TABLE dm ADD COLUMN x INTEGER
ALTER TABLE dm RENAME TO x
TRUNCATE dm
COMMENT ON TABLE dm IS 'x'
INSERT INTO dm VALUES (1)
INSERT INTO dm SELECT * FROM dm RETURNING *
INSERT OR REPLACE INTO dm VALUES (1)
UPDATE dm SET AGE = 1
UPDATE dm SET AGE = 1 RETURNING *
DELETE FROM dm
DELETE FROM dm RETURNING *
MERGE INTO dm USING dm AS s ON true WHEN MATCHED THEN DELETE
BEGIN
BEGIN TRANSACTION READ WRITE
COMMIT
ROLLBACK
CHECKPOINT
FORCE CHECKPOINT
VACUUM
ANALYZE
PREPARE p AS SELECT 1
EXECUTE p
EXECUTE p(1)
DEALLOCATE p
EXPLAIN SELECT 1
EXPLAIN ANALYZE SELECT * FROM read_text('<FILE>')
EXPLAIN (FORMAT json) COPY dm TO '<FILE>'
SHOW ALL TABLES
SHOW DATABASES
SELECT * INTO x FROM dm
GRANT ALL ON dm TO ann
SHUTDOWN
"""

_WITHIN = """
WITH x AS (INSERT INTO dm VALUES (1) RETURNING *) SELECT * FROM x
WITH x AS (DELETE FROM dm RETURNING *) SELECT * FROM x
WITH x AS (UPDATE dm SET AGE = 1 RETURNING *) SELECT * FROM x
WITH x AS MATERIALIZED (COPY dm TO '<FILE>') SELECT 1
WITH x AS (CREATE TABLE y (a INTEGER)) SELECT 1
WITH x AS (SELECT 1) INSERT INTO dm SELECT * FROM x
WITH x AS (SELECT 1) DELETE FROM dm
SELECT * FROM (DELETE FROM dm RETURNING *)
SELECT * FROM (SHOW ALL TABLES)
SELECT * FROM (DESCRIBE dm), (SHOW ALL TABLES)
SELECT * FROM (CALL pragma_version())
SELECT (PRAGMA version)
"""

_SEVERAL = """
SELECT 1; SELECT 2
SELECT 1; DROP TABLE dm
SELECT 1;;SELECT 2
; DROP TABLE dm; SELECT 1
SELECT 1 /* ; */ ; /**/ COPY dm TO '<FILE>'
SELECT 1 -- x⏎; INSTALL httpfs
SELECT 1; SELECT getenv('DATOM_CANARY')
BEGIN; SELECT 1; COMMIT
SET x = 1; SELECT 1
SELECT 'a;b'; ATTACH '<FILE>'
SELECT $$a;b$$; ATTACH '<FILE>'
"""

_FUNCTIONS = """
SELECT getenv('DATOM_CANARY')
SELECT GETENV('DATOM_CANARY')
SELECT "getenv"('DATOM_CANARY')
SELECT main.getenv('DATOM_CANARY')
SELECT system.main.getenv('DATOM_CANARY')
SELECT pg_catalog.getenv('DATOM_CANARY')
SELECT 'DATOM_CANARY'.getenv()
SELECT getenv(?)
SELECT getenv/* x */('DATOM_CANARY')
SELECT getenv⏎('DATOM_CANARY')
SELECT getenv($$DATOM_CANARY$$)
SELECT getenv(E'DATOM\\x5fCANARY')
SELECT U&"getenv"('DATOM_CANARY')
SELECT U&"g\\0065tenv"('DATOM_CANARY')
SELECT "get\u200benv"('DATOM_CANARY')
SELECT \uff47\uff45\uff54\uff45\uff4e\uff56('DATOM_CANARY')
SELECT g\u0435tenv('DATOM_CANARY')
SELECT \u202egetenv('DATOM_CANARY')
SELECT current_setting('temp_directory')
SELECT current_setting('secret_directory')
SELECT current_setting('allowed_directories')
SELECT getvariable('x')
SELECT nextval('x')
SELECT currval('x')
SELECT setseed(0.5)
SELECT write_log('x')
SELECT parse_duckdb_log_message('FileSystem', 'x')
SELECT which_secret('s3://bucket', 's3')
SELECT json_serialize_sql('SELECT 1')
SELECT json_serialize_plan('SELECT 1')
SELECT json_execute_serialized_sql('{}')
SELECT json_deserialize_sql('{}')
SELECT from_substrait('x')
SELECT checkpoint()
SELECT current_query()
SELECT current_connection_id()
SELECT txid_current()
SELECT sleep_ms(100000)
SELECT pg_sleep(100000)
SELECT pg_read_file('/etc/passwd')
SELECT load_extension('x')
SELECT readfile('<FILE>')
SELECT load_file('<FILE>')
SELECT xp_cmdshell('id')
SELECT system('id')
SELECT shell('id')
SELECT has_table_privilege('dm', 'select')
SELECT pg_get_viewdef('dm')
SELECT pg_conf_load_time()
SELECT inet_server_addr()
SELECT stats(1)
SELECT add_parquet_key('x', 'y')
SELECT file_exists('<FILE>')
SELECT create_sort_key('a', 'ASC')
"""

_TABLE_FUNCTIONS = """
SELECT * FROM query('SELECT 1')
SELECT * FROM query(?)
SELECT * FROM query_table('dm')
SELECT * FROM query_table(['dm', 'duckdb_settings'])
SELECT * FROM query_table(?)
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_secrets()
SELECT * FROM duckdb_tables()
SELECT * FROM duckdb_views()
SELECT * FROM duckdb_databases()
SELECT * FROM duckdb_schemas()
SELECT * FROM duckdb_columns()
SELECT * FROM duckdb_functions()
SELECT * FROM duckdb_extensions()
SELECT * FROM duckdb_variables()
SELECT * FROM duckdb_temporary_files()
SELECT * FROM duckdb_memory()
SELECT * FROM duckdb_external_file_cache()
SELECT * FROM duckdb_logs()
SELECT * FROM duckdb_prepared_statements()
SELECT * FROM duckdb_connections()
SELECT * FROM duckdb_keywords()
SELECT * FROM which_secret('s3://x', 's3')
SELECT * FROM pragma_database_size()
SELECT * FROM pragma_storage_info('dm')
SELECT * FROM pragma_table_info('dm')
SELECT * FROM pragma_version()
SELECT * FROM pragma_platform()
SELECT * FROM pragma_user_agent()
SELECT * FROM pg_timezone_names()
SELECT * FROM force_checkpoint()
SELECT * FROM enable_logging()
SELECT * FROM truncate_duckdb_logs()
SELECT * FROM test_all_types()
SELECT * FROM seq_scan('dm')
SELECT * FROM summary((SELECT 1))
SELECT * FROM main.read_text('<FILE>')
SELECT * FROM system.main.duckdb_settings()
SELECT * FROM "duckdb_settings"()
SELECT * FROM DuckDB_Settings()
SELECT * FROM dm, LATERAL read_text('<FILE>')
SELECT * FROM range(1), duckdb_secrets()
SELECT * FROM (VALUES (1)) v, glob('/*')
SELECT * FROM dm POSITIONAL JOIN read_text('<FILE>')
SELECT * FROM sql_auto_complete('SEL')
SELECT * FROM datom_tables(), duckdb_settings()
SELECT * FROM datom_files('<FILE>')
"""

_PLACES = """
WITH x AS (SELECT getenv('DATOM_CANARY')) SELECT * FROM x
WITH x AS (SELECT getenv('DATOM_CANARY')) SELECT 1
WITH RECURSIVE x(a) AS (SELECT 'a' UNION ALL SELECT getenv(a) FROM x) SELECT * FROM x LIMIT 3
SELECT (SELECT getenv('DATOM_CANARY'))
SELECT * FROM (SELECT getenv('DATOM_CANARY'))
SELECT 1 UNION ALL SELECT getenv('DATOM_CANARY')
SELECT 1 FROM dm WHERE EXISTS (SELECT getenv('DATOM_CANARY'))
SELECT 1 FROM dm WHERE AGE IN (SELECT length(getenv('DATOM_CANARY')))
SELECT CASE WHEN false THEN getenv('DATOM_CANARY') END
SELECT 1 WHERE false AND getenv('DATOM_CANARY') = 'x'
SELECT AGE FROM dm ORDER BY getenv('DATOM_CANARY')
SELECT count(*) FROM dm GROUP BY getenv('DATOM_CANARY')
SELECT count(*) FROM dm HAVING getenv('DATOM_CANARY') > ''
SELECT AGE FROM dm QUALIFY rank() OVER (ORDER BY getenv('DATOM_CANARY')) = 1
SELECT sum(AGE) OVER (PARTITION BY getenv('DATOM_CANARY')) FROM dm
SELECT sum(AGE) OVER (ROWS length(getenv('DATOM_CANARY')) PRECEDING) FROM dm
SELECT sum(AGE) OVER w FROM dm WINDOW w AS (PARTITION BY getenv('DATOM_CANARY'))
SELECT count(*) FILTER (getenv('DATOM_CANARY') > '') FROM dm
SELECT string_agg(AGE, getenv('DATOM_CANARY')) FROM dm
SELECT list(AGE ORDER BY getenv('DATOM_CANARY')) FROM dm
SELECT DISTINCT ON (getenv('DATOM_CANARY')) AGE FROM dm
SELECT AGE FROM dm LIMIT length(getenv('DATOM_CANARY'))
SELECT AGE FROM dm OFFSET length(getenv('DATOM_CANARY'))
SELECT AGE FROM dm LIMIT (SELECT length(content) FROM read_text('<FILE>'))
VALUES (getenv('DATOM_CANARY'))
SELECT * FROM (VALUES (getenv('DATOM_CANARY')))
SELECT * FROM dm a JOIN dm b ON getenv('DATOM_CANARY') > ''
SELECT * FROM dm, LATERAL (SELECT getenv('DATOM_CANARY'))
SELECT * FROM dm ASOF JOIN dm b ON length(getenv('DATOM_CANARY')) >= b.AGE
SELECT * FROM range(length(getenv('DATOM_CANARY')))
SELECT unnest([getenv('DATOM_CANARY')])
SELECT [getenv(x) FOR x IN ['DATOM_CANARY']]
SELECT list_transform(['DATOM_CANARY'], lambda x: getenv(x))
SELECT list_transform(['DATOM_CANARY'], x -> getenv(x))
SELECT list_reduce(['DATOM_CANARY'], lambda a, b: getenv(a), '')
SELECT list_filter([1], lambda x: (SELECT true FROM read_text('<FILE>')))
SELECT {'a': getenv('DATOM_CANARY')}
SELECT MAP {'a': getenv('DATOM_CANARY')}
SELECT ARRAY[getenv('DATOM_CANARY')]
SELECT getenv('DATOM_CANARY')::INTEGER
SELECT CAST(getenv('DATOM_CANARY') AS INTEGER)
SELECT TRY(getenv('DATOM_CANARY'))
SELECT COALESCE(NULL, getenv('DATOM_CANARY'))
SELECT getenv('DATOM_CANARY') COLLATE NOCASE
SELECT * REPLACE (getenv('DATOM_CANARY') AS AGE) FROM dm
SELECT COLUMNS(lambda c: c = getenv('DATOM_CANARY')) FROM dm
SELECT COLUMNS(getenv('DATOM_CANARY')) FROM dm
PIVOT dm ON SEX IN ('F') USING max(getenv('DATOM_CANARY'))
PIVOT (SELECT getenv('DATOM_CANARY') AS x, 'F' AS SEX) ON SEX IN ('F') USING max(x)
UNPIVOT (SELECT getenv('DATOM_CANARY') AS x) ON x INTO NAME n VALUE v
SELECT * FROM dm PIVOT (max(getenv('DATOM_CANARY')) FOR SEX IN ('F'))
SELECT format('{}', getenv('DATOM_CANARY'))
SELECT error(getenv('DATOM_CANARY'))
SELECT 'x'::INTEGER + length(getenv('DATOM_CANARY'))
SELECT count(*) FROM dm GROUP BY GROUPING SETS ((getenv('DATOM_CANARY')), ())
DESCRIBE SELECT * FROM read_text('<FILE>')
SUMMARIZE SELECT * FROM read_text('<FILE>')
FROM dm SELECT getenv('DATOM_CANARY')
"""

_CATALOGS = """
SELECT * FROM information_schema.tables
SELECT * FROM "information_schema"."columns"
SELECT * FROM INFORMATION_SCHEMA.SCHEMATA
SELECT * FROM pg_catalog.pg_tables
SELECT * FROM pg_catalog.pg_settings
SELECT * FROM datom.information_schema.tables
SELECT * FROM system.information_schema.tables
SELECT * FROM temp.main.x
SELECT * FROM system.main.duckdb_settings
"""

_OTHERS = """
SELECT * FROM STUDY_009.dm
SELECT * FROM study_009.DM
SELECT * FROM "STUDY_009"."dm"
SELECT * FROM datom.STUDY_009.dm
SELECT * FROM DATOM."STUDY_009"."dm"
SELECT * FROM "STUDY_001/../STUDY_009".dm
SELECT * FROM STUDY_009."dm@<HIDDEN>"
SELECT * FROM STUDY_009.dm AT (VERSION => '<HIDDEN>')
SELECT * FROM STUDY_009.dm AT (TIMESTAMP => '2099-01-01')
SELECT * FROM datom_tables('STUDY_009')
SELECT * FROM datom_tables('study_009')
SELECT * FROM datom_versions('STUDY_009.dm')
SELECT * FROM datom_lineage('STUDY_009.dm')
SELECT * FROM datom_lineage('STUDY_009.dm', '<HIDDEN>')
SELECT * FROM datom_column_changes('STUDY_009.dm', '<HIDDEN>')
SELECT * FROM datom_diff('STUDY_009.dm', '<HIDDEN>')
SELECT * FROM dm UNION ALL SELECT * FROM STUDY_009.dm
WITH dm AS (SELECT * FROM STUDY_009.dm) SELECT * FROM dm
WITH x AS (SELECT * FROM STUDY_009.dm) SELECT 1
SELECT (SELECT max(SECRET) FROM STUDY_009.dm)
SELECT 1 WHERE false AND EXISTS (FROM STUDY_009.dm)
SELECT * FROM dm JOIN STUDY_009.dm AS other USING (AGE)
DESCRIBE SELECT * FROM STUDY_009.dm
SUMMARIZE STUDY_009.dm
SELECT * FROM main.dm
SELECT * FROM memory.dm
SELECT * FROM temp.dm
SELECT * FROM datom.main.dm
SELECT * FROM "STUDY_001@2".dm
SELECT * FROM "datom history"."datom_tables"
SELECT * FROM sqlite_master
SELECT * FROM duckdb_settings
SELECT * FROM pg_tables
SELECT * FROM sys
SELECT * FROM connection
SELECT * FROM setup
SELECT * FROM "STUDY_001"";DROP".dm
SELECT * FROM "..".dm
SELECT * FROM ".".dm
"""

_NAMES = """
SELECT * FROM datom_versions('dm''; COPY dm TO ''/etc/passwd''')
SELECT * FROM "dm"";DROP TABLE dm;--"
SELECT * FROM "dm') UNION SELECT getenv('DATOM_CANARY')--"
SELECT * FROM "dm' AS x, read_text('/etc/passwd')--"
SELECT * FROM STUDY_001."dm"".x"
SELECT * FROM datom_tables('STUDY_001"; DROP')
SELECT * FROM "*"
SELECT * FROM "dm*"
SELECT * FROM "%"
SELECT * FROM "STUDY_009.dm"
SELECT * FROM "STUDY_009/dm"
SELECT * FROM "../STUDY_009/dm"
SELECT * FROM STUDY_001."../STUDY_009/dm"
"""

_HISTORY_ARGUMENTS = """
SELECT * FROM datom_versions(getenv('DATOM_CANARY'))
SELECT * FROM datom_versions((SELECT content FROM read_text('<FILE>')))
SELECT * FROM datom_diff('dm', getenv('DATOM_CANARY'))
SELECT * FROM datom_diff('dm', 'a', key := getenv('DATOM_CANARY'))
SELECT * FROM datom_lineage('dm', 'a' || getenv('DATOM_CANARY'))
"""

_AT_CLAUSES = """
SELECT * FROM dm AT (VERSION => getenv('DATOM_CANARY'))
SELECT * FROM dm AT (VERSION => (SELECT content FROM read_text('<FILE>')))
SELECT * FROM dm AT (TIMESTAMP => now() - INTERVAL 1 DAY)
SELECT * FROM dm AT (TIMESTAMP => (SELECT max(d) FROM dm))
"""

_NO_SUCH_THING = """
SELECT filename FROM dm
SELECT max(dm.filename) FROM dm
SELECT max(file_row_number) FROM dm
SELECT max(file_index), count(*) FROM dm
SELECT max(rowid) FROM dm
SELECT max(COLUMNS('filename')) FROM dm
SELECT CAST('x' AS STUDY_009.mytype)
SELECT 'a' COLLATE "../x"
SELECT TIMESTAMPTZ '2020-01-01' AT TIME ZONE '../../etc/passwd'
SELECT USUBJID::INTEGER FROM dm
SELECT @x
SELECT :x
SELECT {fn getenv('DATOM_CANARY')}
SELECT E'\\x00'
SELECT NULL::INTEGER[100000][100000][100000][100000]
EXEC xp_cmdshell 'id'
SELECT 1 INTO OUTFILE '/root/x'
' OR '1'='1
admin'--
1; DROP TABLE dm
"""

_OTHER_VERSIONS = """
SELECT * FROM dm AT (VERSION => '<HIDDEN>')
SELECT * FROM "dm@<HIDDEN>"
SELECT * FROM STUDY_001."dm@<HIDDEN>"
SELECT * FROM datom_lineage('dm', '<HIDDEN>')
SELECT * FROM datom_diff('dm', '<HIDDEN>', key := 'USUBJID"; DROP')
SELECT * FROM datom_column_changes('dm', '<HIDDEN>')
SELECT * FROM dm AT (VERSION => ''' OR 1=1 --')
"""

_BOUND = {
    "SELECT * FROM read_csv(?)": "<CSV>",
    "SELECT getenv(?)": ENVIRONMENT_NAME,
    "SELECT * FROM query(?)": "SELECT 1",
    "SELECT * FROM query_table(?)": "dm",
}

_NO_FUNCTION = "no (table )?function .* that a query may call"
_KINDS = (
    (_FILES, ("sql_error",), "no table function"),
    (_FILES_AS_TABLES, ("invalid_name",), "a character that names do not have"),
    (_STATEMENTS, ("sql_error",), "is not a SELECT|this SHOW is not supported|syntax error|statements, expected one"),
    (
        _WITHIN,
        ("sql_error",),
        "is not a SELECT|only SELECT may stand here|A CTE body must be|this SHOW is|syntax error",
    ),
    (_SEVERAL, ("sql_error",), "is not a SELECT|statements, expected one"),
    (_FUNCTIONS, ("sql_error",), _NO_FUNCTION),
    (_TABLE_FUNCTIONS, ("sql_error",), _NO_FUNCTION),
    (_PLACES, ("sql_error",), _NO_FUNCTION),
    (_HISTORY_ARGUMENTS, ("sql_error",), "takes constant texts"),
    (_AT_CLAUSES, ("sql_error",), "AT takes a constant"),
    (_CATALOGS, ("sql_error",), "is not served|is not a table"),
    (_OTHERS, ("not_found",), "not_found: no "),
    (_NAMES, ("invalid_name",), "a character that names do not have"),
    (_NO_SUCH_THING, ("sql_error",), ""),
    (_OTHER_VERSIONS, ("version_not_found",), 'no version ".*" of "dm"'),
)


def tricks() -> Iterator[Trick]:
    """What is refused before anything runs, or as soon as it does."""
    for block, codes, told in _KINDS:
        for query in block.strip().splitlines():
            yield Trick(query, codes, told, _BOUND.get(query))
    yield from _huge()


def _huge() -> Iterator[Trick]:
    """Texts that are too long, too deep, or nothing that a parser should see."""
    deep = {
        "brackets": "SELECT " + "(" * _DEEP + "1" + ")" * _DEEP,
        "open brackets": "SELECT " + "(" * _DEEP,
        "open lists": "SELECT " + "[" * 50_000,
        "calls": "SELECT " + "abs(" * _DEEP + "1" + ")" * _DEEP,
        "NOT": "SELECT " + "NOT " * _DEEP + "true",
        "signs": "SELECT " + "- " * _DEEP + "1",
        "sums": "SELECT 1" + " + 1" * _DEEP,
        "texts": "SELECT 'x'" + " || 'x'" * _DEEP,
        "lists": "SELECT " + "[" * _DEEP + "1" + "]" * _DEEP,
        "casts": "SELECT 1" + "::INTEGER" * _DEEP,
        "types": "SELECT NULL::INTEGER" + "[]" * _DEEP,
        "structs": "SELECT NULL::" + "STRUCT(a " * _DEEP + "INTEGER" + ")" * _DEEP,
        "CASE": "SELECT " + "CASE WHEN true THEN " * _DEEP + "1" + " END" * _DEEP,
        "subqueries": "SELECT * FROM " + "(SELECT * FROM " * _DEEP + "dm" + ")" * _DEEP,
        "scalars": "SELECT " + "(SELECT " * _DEEP + "1" + ")" * _DEEP,
        "joins": "SELECT * FROM dm" + " CROSS JOIN dm" * _DEEP,
        "tables": "SELECT * FROM dm" + ", dm" * _DEEP,
        "EXCEPT": "SELECT 1" + " EXCEPT SELECT 1" * _DEEP,
        "UNION": "SELECT 1" + " UNION ALL SELECT 1" * _DEEP,
        "WITH": "WITH x0 AS (SELECT 1)" + "".join(f", x{i + 1} AS (FROM x{i})" for i in range(_DEEP)) + " SELECT 1",
        "words": "SELECT " + "1," * 30_000 + "1",
        "a megabyte of text": "SELECT '" + "x" * 1_000_000 + "'",
        "a megabyte of comment": "SELECT 1 /* " + "x" * 1_000_000 + " */",
    }
    for name, query in deep.items():
        yield Trick(query, ("too_large",), "the query (has|is nested)", name=f"{_DEEP} {name}")
    broken = {
        "NUL": "SELECT 'a\0b'",
        "NUL in a name": "SELECT getenv\0('DATOM_CANARY')",
        "NUL after the end": "SELECT 1\0; DROP TABLE dm",
        "nothing": "  ⏎ ",
        "a comment": "-- nothing",
        "a semicolon": ";",
        "an open text": "SELECT '" + "x" * 500_000,
        "an open comment": "SELECT 1 /*" + "/*" * 200_000,
        "a year": "SELECT DATE '99999-01-01' + INTERVAL 999999999 YEAR",
        "a regular expression": "SELECT regexp_matches('a', '((((a{100}){100}){100}){100})')",
        "grouping sets": f"SELECT 1 FROM dm GROUP BY CUBE ({', '.join(f'AGE + {i}' for i in range(40))})",
    }
    for name, query in broken.items():
        yield Trick(query, ("sql_error",), name=name)
    # a driver prepares it first, when it has no value yet
    yield Trick("SELECT * FROM dm AT (VERSION => ?)", ("sql_error", "version_not_found"), "", "<HIDDEN>")
    yield Trick('SELECT * FROM "' + "x" * 500_000 + '"', ("invalid_name",), "500000 characters", name="a long name")


_BOMBS = """
SELECT repeat('x', 1000000000)
SELECT repeat('x', 1000000) FROM range(1000000)
SELECT printf('%1000000000d', 1)
SELECT format('{:>1000000000}', 1)
SELECT * FROM range(1000000000000)
SELECT * FROM repeat('x', 1000000000000)
SELECT * FROM dm CROSS JOIN range(1000000000000)
SELECT 1 FROM dm a, dm b, dm c, dm d, dm e, dm f, dm g, dm h, dm i, dm j, dm k, dm l, dm m, dm n, dm o, dm p, dm q
SELECT count(*) FROM range(1000000000000) a, range(1000000000000) b
SELECT list(range) FROM range(10000000000)
SELECT string_agg(repeat('x', 1000), ',') FROM range(10000000)
SELECT list_resize([1], 10000000000)
SELECT length(list_transform(range(1000000000), lambda x: x + 1))
SELECT range, hash(range) AS h FROM range(1000000000) ORDER BY h
SELECT sha256(repeat('x', 100000)) FROM range(100000000)
WITH RECURSIVE t(i, s) AS (SELECT 1, 'x' UNION ALL SELECT i + 1, s || s FROM t WHERE i < 60) SELECT max(s) FROM t
WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT a.i FROM t a, range(10)) SELECT count(*) FROM t
WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT count(*) FROM t
SELECT sum(hash(a.range * b.range)) FROM range(100000) a, range(100000) b, range(100000) c
SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))
"""


def bombs() -> Iterator[Trick]:
    """What begins to run, and must end at a limit: which one comes first is the machine's affair."""
    for query in _BOMBS.strip().splitlines():
        yield Trick(query, ("too_large", "timeout"), "bytes of memory|the result has more|still computing after")
    doubled = "".join(f", a{i + 1} AS (SELECT l.a FROM a{i} l, a{i} r)" for i in range(30))
    query = f"WITH a0 AS (SELECT 1 AS a UNION ALL SELECT 1){doubled} SELECT count(*) FROM a30"
    yield Trick(query, ("too_large", "timeout"), "bytes of memory|still computing", name="a billion laughs")
