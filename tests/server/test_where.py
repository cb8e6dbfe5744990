"""What a condition may say, which rows it keeps, and how what it may not say is refused."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight_server.sql.functions import FUNCTIONS
from datom_flight_server.sql.where import Filter, WhereCompiler

NAN = float("nan")

TABLE = pa.table(
    {
        "USUBJID": ["01-701-1015", "01-701-1023", "01-702-1028", None],
        "AGE": pa.array([63, 64, 71, None], pa.int32()),
        "SEX": pa.array(["F", "M", None, "F"]).dictionary_encode(),
        "WEIGHT": pa.array([54.4, NAN, None, -0.0]),
        "BIG": pa.array([2**53, 2**53 + 1, -1, None], pa.int64()),
        "UNSIGNED": pa.array([0, 2**64 - 1, 5, None], pa.uint64()),
        "DOSE": pa.array([Decimal("54.00"), Decimal("0.10"), None, Decimal("81.00")], pa.decimal128(10, 2)),
        "DTC": pa.array([date(2014, 1, 2), date(2012, 8, 5), None, date(2013, 7, 19)]),
        "SEEN": pa.array(
            [datetime(2014, 1, 2, 10, 30, tzinfo=UTC), datetime(2012, 8, 5, tzinfo=UTC), None, None],
            pa.timestamp("us", "Europe/Berlin"),
        ),
        "LOCAL": pa.array(
            [datetime(2014, 1, 2, 10, 30), datetime(1969, 12, 31, 23, 0), None, None], pa.timestamp("ms")
        ),
        "RESULT": ["5", "NEGATIVE", None, " 7 "],
        "FLAG": [True, False, None, True],
        "LASTS": pa.array([timedelta(days=2), timedelta(hours=1), None, None], pa.duration("s")),
        "TEXT": ["a%b", "a\\b", "a\nb", "é"],
        "a b": [1, 2, 3, 4],
        "x.y": [1, 2, 3, 4],
        "Twin": [1, 2, 3, 4],
        "TWIN": [4, 3, 2, 1],
        "LIST": [[1], [2], None, []],
    }
)


@pytest.fixture(scope="module")
def compiler() -> Iterator[WhereCompiler]:
    made = WhereCompiler()
    yield made
    made.close()


def rows(compiler: WhereCompiler, text: str, table: pa.Table = TABLE) -> list[int]:
    """The numbers of the rows that `text` keeps."""
    numbered = table.append_column("#", pa.array(range(table.num_rows)))
    kept: list[int] = numbered.filter(compiler.compile(text, table.schema).expression)["#"].to_pylist()
    return kept


def refusal(compiler: WhereCompiler, text: str) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        compiler.compile(text, TABLE.schema)
    return caught.value


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("AGE >= 64", [1, 2]),
        ("AGE >= 64 AND SEX = 'M'", [1]),
        ("AGE = 63 OR SEX = 'F'", [0, 3]),
        ("NOT (AGE = 63)", [1, 2]),
        ("AGE + 1 > 64.5", [1, 2]),
        ("AGE BETWEEN 64 AND 70", [1]),
        ("AGE IS NULL", [3]),
        ("AGE % 2 = 0", [1]),
        ("AGE / 2 = 31.5", [0]),
        ("AGE // 2 = 31", [0]),
        ("AGE IS DISTINCT FROM 63", [1, 2, 3]),
        ("CASE WHEN AGE > 63 THEN SEX ELSE 'none' END = 'none'", [0, 3]),
        ("coalesce(SEX, 'U') = 'U'", [2]),
        ("nullif(AGE, 63) IS NULL", [0, 3]),
        ("USUBJID LIKE '01-701-%'", [0, 1]),
        ("SEX || '!' = 'F!'", [0, 3]),
        ("upper(SEX) = 'M'", [1]),
        ("FLAG", [0, 3]),
        ("FLAG IS NOT TRUE", [1, 2]),
        ("DTC >= '2013-01-01'", [0, 3]),
        ("DTC + 30 > DATE '2014-01-31'", [0]),
        ("DTC - DATE '2013-07-19' = 0", [3]),
        ("year(DTC) = 2012", [1]),
        ("SEEN >= '2014-01-02 11:30:00+01:00'", [0]),
        ("LOCAL < '1970-01-01'", [1]),
        ("date_trunc('month', LOCAL) = '2014-01-01'", [0]),
        ("LASTS > INTERVAL '1 day'", [0]),
        ("DOSE = 0.1", [1]),
        ("regexp_matches(USUBJID, '1[0-9]28$')", [2]),
        ("CAST(AGE AS VARCHAR) = '63'", [0]),
        ("TRUE", [0, 1, 2, 3]),
        ("NULL", []),
    ],
)
def test_a_condition_keeps_the_rows_for_which_it_is_true(compiler: WhereCompiler, text: str, kept: list[int]) -> None:
    assert rows(compiler, text) == kept


def test_nan_equals_nan_and_is_above_every_number(compiler: WhereCompiler) -> None:
    assert rows(compiler, "WEIGHT > 1000") == [1]
    assert rows(compiler, "WEIGHT = 'NaN'") == [1]
    assert rows(compiler, "WEIGHT < 'NaN'") == [0, 3]
    assert rows(compiler, "NOT (WEIGHT < 1000)") == [1]
    assert rows(compiler, "WEIGHT IN ('NaN', 1)") == [1]
    assert rows(compiler, "0 / WEIGHT IN ('NaN')") == [1, 3]


def test_the_two_zeros_are_equal(compiler: WhereCompiler) -> None:
    assert rows(compiler, "WEIGHT = 0") == rows(compiler, "WEIGHT IN (0)") == [3]


def test_an_in_list_with_null_is_unknown_for_what_is_not_in_it(compiler: WhereCompiler) -> None:
    assert rows(compiler, "SEX IN ('F', NULL)") == [0, 3]
    assert rows(compiler, "SEX NOT IN ('F', NULL)") == []
    assert rows(compiler, "SEX NOT IN ('F')") == [1]


def test_large_whole_numbers_are_compared_exactly(compiler: WhereCompiler) -> None:
    assert rows(compiler, "BIG = 9007199254740993") == [1]
    assert rows(compiler, "BIG > 9007199254740992") == [1]
    assert rows(compiler, "BIG = 9007199254740993.0") == [1]
    assert rows(compiler, "UNSIGNED > BIG") == [1, 2]
    assert rows(compiler, "UNSIGNED = 18446744073709551615") == [1]


def test_a_literal_outside_the_columns_range_is_compared_all_the_same(compiler: WhereCompiler) -> None:
    assert rows(compiler, "AGE < 99999999999") == [0, 1, 2]
    assert rows(compiler, "UNSIGNED = -1") == []
    assert rows(compiler, "AGE <> 63.5") == [0, 1, 2]


def test_overflow_and_division_by_zero_fail_instead_of_wrapping(compiler: WhereCompiler) -> None:
    for text in ("BIG * BIG > 0", "AGE // 0 = 1", "abs(BIG - 9223372036854775807) > 0 AND -BIG - BIG * BIG < 0"):
        with pytest.raises(pa.ArrowInvalid):
            TABLE.filter(compiler.compile(text, TABLE.schema).expression)


def test_what_an_earlier_condition_excludes_cannot_fail_a_later_one(compiler: WhereCompiler) -> None:
    assert rows(compiler, "RESULT <> 'NEGATIVE' AND CAST(RESULT AS DOUBLE) > 5") == [3]
    assert rows(compiler, "RESULT = 'NEGATIVE' OR CAST(RESULT AS DOUBLE) > 5") == [1, 3]
    assert rows(compiler, "CASE WHEN RESULT = 'NEGATIVE' THEN 0 ELSE CAST(RESULT AS BIGINT) END = 0") == [1]
    with pytest.raises(pa.ArrowInvalid, match="NEGATIVE"):
        rows(compiler, "CAST(RESULT AS DOUBLE) > 5")


@pytest.mark.parametrize("unit", ["day", "s", "ms", "us"])
def test_a_date_beyond_the_calendar_is_an_error_and_never_another_year(compiler: WhereCompiler, unit: str) -> None:
    days = {
        "0001-01-01": -719_162,
        "1969-12-31": -1,
        "2024-02-29": 19_782,
        "9999-12-31": 2_932_896,
        "40000": 13_900_000,
    }
    per_day = {"day": 1, "s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}[unit]
    raw, kind = (pa.int32(), pa.date32()) if unit == "day" else (pa.int64(), pa.timestamp(unit))
    table = pa.table({"d": pa.array([day * per_day for day in days.values()], raw).cast(kind)})
    assert rows(compiler, "year(d) IN (1, 1969, 2024, 9999)", table.slice(0, 4)) == [0, 1, 2, 3]
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        rows(compiler, "year(d) > 2000", table)


def test_like_knows_no_escape_unless_one_is_given(compiler: WhereCompiler) -> None:
    assert rows(compiler, r"TEXT LIKE 'a\b'") == [1]
    assert rows(compiler, r"TEXT LIKE 'a\%b' ESCAPE '\'") == [0]
    assert rows(compiler, "TEXT LIKE 'a_b'") == [0, 1, 2]
    assert rows(compiler, "TEXT LIKE '_'") == [3]
    assert rows(compiler, "TEXT ILIKE 'É'") == [3]


def test_a_name_is_taken_exactly_before_it_is_taken_in_any_case(compiler: WhereCompiler) -> None:
    assert compiler.compile("age = 1", TABLE.schema).columns == ("AGE",)
    assert compiler.compile("Twin = 1", TABLE.schema).columns == ("Twin",)
    assert "could be several columns" in refusal(compiler, "twin = 1").message


def test_odd_names_are_written_in_double_quotes(compiler: WhereCompiler) -> None:
    assert rows(compiler, '"a b" = 2 OR "x.y" = 3') == [1, 2]
    assert '"x.y"' in refusal(compiler, "x.y = 1").hint


def test_the_columns_read_are_told_in_the_schemas_order(compiler: WhereCompiler) -> None:
    made = compiler.compile("SEX = 'F' AND AGE > 1 AND age < 90 AND DTC = DTC", TABLE.schema)
    assert made.columns == ("AGE", "SEX", "DTC")
    assert TABLE.select(list(made.columns)).filter(made.expression).num_rows == 1


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("AGE", 1, "not a condition but a value of type INTEGER"),
        ("AGE >", 6, "ends too early"),
        ("AGE >> >", 8, "syntax error"),
        ("AGE = = 1", 7, "syntax error"),
        ("", 0, "empty"),
        ("  \n ", 0, "empty"),
        ("AGR = 1", 1, 'no column "AGR"'),
        ("AGE = 'x'", 7, '"x" is not a value of type INTEGER'),
        ("DTC = '2014-02-30'", 7, "is not a value of type DATE"),
        ("LOCAL = '2014-01-01T00:00:00+02:00'", 9, "is not a value of type TIMESTAMP"),
        ("AGE = SEX", 1, "INTEGER and VARCHAR do not go together"),
        ("FLAG = 1", 1, "BOOLEAN and INTEGER do not go together"),
        ("FLAG AND AGE", 10, "not a condition"),
        ("AGE IN (SELECT 1)", 8, "a subquery"),
        ("EXISTS (SELECT 1)", 1, "a subquery"),
        ("sum(AGE) OVER () > 1", 1, "a window function"),
        ("sum(AGE) > 1", 1, 'no function "sum"'),
        ("count(*) > 1", 1, 'no function "count_star"'),
        ("read_csv('/etc/passwd') = 'x'", 1, 'no function "read_csv"'),
        ("getenv('HOME') = 'x'", 1, 'no function "getenv"'),
        ("random() < 0.5", 1, 'no function "random"'),
        ("AGE = ?", 7, "a parameter"),
        ("AGE = $1", 7, "a parameter"),
        ("*", 1, "a star"),
        ("COLUMNS(*) = 1", 9, "a star"),
        ("list_filter([1], x -> TRUE) = 1", 13, "list_value"),
        ("SEX COLLATE NOCASE = 'f'", 1, "a collation"),
        ("LIST[1] = 1", 5, "cannot be part"),
        ("LIST = LIST", 1, "cannot be compared"),
        ("#1 = 1", 1, "a positional reference"),
        ("main.upper(SEX) = 'F'", 1, "a schema"),
        ("upper(DISTINCT SEX) = 'F'", 1, "DISTINCT"),
        ("1=1) UNION SELECT (1", 4, '")" closes nothing'),
        ("TRUE) OR (TRUE", 5, '")" closes nothing'),
        ("TRUE -- ", 6, "a comment"),
        ("TRUE /* x */", 6, "a comment"),
        ("TRUE; SELECT 1", 5, '";"'),
        ("TRUE ORDER BY 1", 6, "syntax error"),
        ("TRUE GROUP BY AGE", 6, "syntax error"),
        ("TRUE LIMIT 1", 6, "syntax error"),
        ("(AGE = 1", 9, '")" is missing'),
        ("TRY_CAST(SEX AS INTEGER) = 1", 1, "TRY_CAST"),
        ("CAST(SEX AS STRUCT(a INT)) = 1", 13, "not a type"),
        ("CAST(WEIGHT AS VARCHAR) = '1'", 1, "CAST from DOUBLE to VARCHAR is not supported"),
        ("TEXT LIKE SEX", 11, "must be a constant text"),
        ("regexp_matches(TEXT, '(')", 1, "not a regular expression"),
        ("TEXT LIKE 'a|' ESCAPE '|'", 6, "ends with the escape"),
        ("DTC + INTERVAL '1 month' > DTC", 1, "months"),
        ("AGE = 1\x00", 8, "NUL"),
        ("current_date > DTC", 1, 'no column "current_date"'),
        ("AGE\n >\n foo", 2, 'no column "foo"'),
        ("TEXT = 'é' AND foo = 1", 16, 'no column "foo"'),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_place(
    compiler: WhereCompiler, text: str, column: int, says: str
) -> None:
    error = refusal(compiler, text)
    assert error.code == "invalid_argument"
    assert says in error.message
    assert error.fields.get("column", 0) == column


def test_a_refusal_tells_the_line_the_position_and_the_text(compiler: WhereCompiler) -> None:
    error = refusal(compiler, "AGE > 1\n  AND  WIEGHT > 2")
    assert error.fields == {"position": 16, "line": 2, "column": 8, "text": "WIEGHT"}
    assert error.message.startswith("where, line 2 column 8: ")
    assert error.hint.startswith('nearest: "WEIGHT"')


def test_an_unknown_function_is_answered_with_the_known_ones(compiler: WhereCompiler) -> None:
    hint = refusal(compiler, "soundex(SEX) = 'F'").hint
    assert all(name in hint for name in ("upper", "regexp_matches", "date_trunc"))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000 + "AGE = 1" + ")" * 100_000,
        "(" * 10_000,
        "NOT " * 5_000 + "FLAG",
        "- " * 5_000 + "AGE = 1",
        "abs(" * 1_000 + "AGE" + ")" * 1_000 + " = 1",
        "CASE WHEN FLAG THEN " * 1_000 + "TRUE" + " END" * 1_000,
        "nullif(" * 80 + "AGE" + ", 1)" * 80 + " = 1",
        " OR ".join(f"AGE = {number}" for number in range(10_000)),
        " AND ".join(f"AGE <> {number} AND CAST(RESULT AS BIGINT) = {number}" for number in range(160)),
        "AGE" + " + 1" * 10_000 + " = 1",
        "AGE IN (" + ", ".join(map(str, range(10_001))) + ")",
        "SEX = '" + "x" * 600_000 + "'",
        "SEX || '" + "x" * 5_000 + "' = 'x'",
        "SEX LIKE '" + "x_" * 5_000 + "'",
        "regexp_matches(SEX, '" + "(a|b)*" * 5_000 + "')",
    ],
    ids=lambda text: text[:20],
)
def test_what_is_too_large_is_refused_quickly(compiler: WhereCompiler, text: str) -> None:
    started = clock.monotonic()
    assert refusal(compiler, text).code == "too_large"
    assert clock.monotonic() - started < 3


def test_text_cannot_be_made_to_grow(compiler: WhereCompiler) -> None:
    assert "longer than the old" in refusal(compiler, "replace(SEX, 'F', 'FFFF') = 'x'").message


def test_ten_thousand_literals_may_stand_in_a_list(compiler: WhereCompiler) -> None:
    for column, literals in (
        ("AGE", [str(number) for number in range(10_000)]),
        ("WEIGHT", [f"{number}.5" for number in range(10_000)]),
        ("USUBJID", [f"'01-{number}-1015'" for number in range(10_000)]),
    ):
        made = compiler.compile(f"{column} IN ({', '.join(literals)})", TABLE.schema)
        assert made.columns == (column,)


def test_threads_share_a_compiler(compiler: WhereCompiler) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda number: rows(compiler, f"AGE = {number % 3 + 62} OR AGE = 71"), range(200))
    assert list(answers) == [([] if number % 3 == 0 else [number % 3 - 1]) + [2] for number in range(200)]


# Statistics


def row_groups(table: pa.Table, made: Filter, size: int = 2) -> list[int]:
    """The row groups that statistics leave to be read."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, row_group_size=size)
    fragment = ds.ParquetFileFormat().make_fragment(pa.BufferReader(buffer.getvalue()))
    return [group.id for group in fragment.subset(made.pruning, schema=table.schema).row_groups]


STORED = pa.table(
    {
        "i": pa.array([1, 2, 3, 4, 5, None, None, None], pa.int32()),
        "s": pa.array(["a", "b", "c", "d", "é", None, None, None], pa.large_string()),
        "f": pa.array([1.0, NAN, 3.0, 4.0, NAN, NAN, 1.0, None]),
        "d": pa.array([date(2020, 1, day) for day in range(1, 9)]),
        "t": pa.array([datetime(2020, 1, day, tzinfo=UTC) for day in range(1, 9)], pa.timestamp("us", "UTC")),
        "n": pa.array([Decimal(number) for number in range(8)], pa.decimal128(10, 2)),
    }
)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("i = 3", [1]),
        ("i > 3", [1, 2]),
        ("3 < i", [1, 2]),
        ("i > 2.5", [1, 2]),
        ("i IN (1, 5, 99)", [0, 2]),
        ("i BETWEEN 2 AND 3", [0, 1]),
        ("i = 3.5", [2]),
        ("i IS NULL", [2, 3]),
        ("i IS NOT NULL", [0, 1, 2]),
        ("s = 'c'", [1]),
        ("s LIKE 'é%'", [2]),
        ("d >= '2020-01-07'", [3]),
        ("d = TIMESTAMP '2020-01-03 00:00:00'", [1]),
        ("t < '2020-01-03 00:00:00'", [0]),
        ("n = 2", [1]),
        ("i > 1 AND s = 'c' AND abs(i) > 0", [1]),
        ("i = 1 OR i = 5", [0, 2]),
        ("i = 1 OR abs(i) = 5", [0, 1, 2, 3]),
        ("FALSE", []),
    ],
)
def test_statistics_leave_only_row_groups_that_may_match(compiler: WhereCompiler, text: str, read: list[int]) -> None:
    assert row_groups(STORED, compiler.compile(text, STORED.schema)) == read


@pytest.mark.parametrize("text", ["f > 5", "f >= 5", "f <> 1", "f = 'NaN'", "NOT (f < 5)", "f IN ('NaN')", "isnan(f)"])
def test_statistics_never_rule_out_a_nan_that_matches(compiler: WhereCompiler, text: str) -> None:
    made = compiler.compile(text, STORED.schema)
    assert {0, 2} <= set(row_groups(STORED, made))
    assert {1, 4, 5} <= set(rows(compiler, text, STORED))


def test_statistics_of_floats_are_used_where_nan_does_not_matter(compiler: WhereCompiler) -> None:
    assert 1 not in row_groups(STORED, compiler.compile("f < 2", STORED.schema))
    assert 1 not in row_groups(STORED, compiler.compile("f IN (1, 2)", STORED.schema))


# The page for users


def test_every_function_is_on_the_page_about_conditions(repository_docs: str) -> None:
    for name in FUNCTIONS:
        if name[0].isalpha() and not name.startswith(("to_", "not_")) and not name.endswith("_escape"):
            assert f"`{name}`" in repository_docs, name


def test_every_example_on_the_page_about_conditions_compiles(compiler: WhereCompiler, repository_docs: str) -> None:
    block = repository_docs.split("```sql\n")[1].split("```")[0]
    schema = pa.schema(
        {
            "AGE": pa.int32(), "SEX": pa.dictionary(pa.int8(), pa.string()), "LBTESTCD": pa.string(),
            "LBORRES": pa.string(), "LBSTRESN": pa.float64(), "USUBJID": pa.string(), "RFSTDTC": pa.date32(),
            "RFENDTC": pa.date32(), "VISIT DATE": pa.timestamp("us", "UTC"), "DTHFL": pa.bool_(),
        }
    )  # fmt: skip
    examples = [line for line in block.splitlines() if line.strip()]
    assert len(examples) > 8
    for example in examples:
        compiler.compile(example, schema)


@pytest.fixture(scope="module")
def repository_docs(request: pytest.FixtureRequest) -> str:
    page: str = (request.config.rootpath / "docs" / "where.md").read_text("utf-8")
    return page
