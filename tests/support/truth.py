"""What DuckDB says of a store's own parquet files, and the queries it is asked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from . import tpch

QUERIES = Path(__file__).parent.parent / "data" / "sql"

_HEADER = re.compile(r"query (rowsort|nosort)( empty)?")


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a ``.test`` file, which are written as SQLLogicTest's are, without results.

    Attributes:
        place: the file's name and the line of the query's header.
        ordered: ``nosort``: the rows are compared in their order; ``rowsort``: in any.
        empty: it has no rows, and says so.
    """

    place: str
    text: str
    ordered: bool
    empty: bool = False


def queries() -> list[Query]:
    """All of them: those of the files, and those of TPC-H."""
    found = [query for path in sorted(QUERIES.glob("*.test")) for query in _queries(path)]
    return found + [Query(f"tpch:{number}", text, ordered=True) for number, text in tpch.QUERIES.items()]


def _queries(path: Path) -> Iterator[Query]:
    number = 1
    for block in path.read_text().split("\n\n"):
        lines = block.strip("\n").split("\n")
        written = [line for line in lines if not line.startswith("#")]
        if written and written != [""]:
            header = _HEADER.fullmatch(written[0])
            place = f"{path.stem}:{number + lines.index(written[0])}"
            assert header, f"{place}: {written[0]!r} is no header of a query"
            yield Query(place, "\n".join(written[1:]), header[1] == "nosort", header[2] is not None)
        number += block.count("\n") + 2


def study() -> dict[str, pa.Table]:
    """Tables of a study, with all that clinical data have: gaps, odd numbers, odd texts, every type."""
    return {"dm": _dm(), "lb": _lb(), "ae": _ae(), "sv": _sv(), "kinds": _kinds(), "nothing": _dm().slice(0, 0)} | {
        "odd names (1)": pa.table(
            {
                "select": pa.array([1, 2, 3], pa.int32()),
                "Größe in cm": [170.5, None, 182.0],
                'say "hi"': ["a", "b'c", None],
                "a.b": pa.array([True, False, None]),
            }
        )
    }


def _dm() -> pa.Table:
    rows = 40
    nan, inf = math.nan, math.inf
    weights = [70.5, 81.25, None, 54.0, nan, 99.9, inf, 64.0, -0.0, 61.5]
    races = ["WHITE", "ASIAN", None, "BLACK OR AFRICAN AMERICAN", "", "Ünïcödé 日本", "O'Brien", "white", "100%", "a_b"]
    first = date(2025, 11, 3)
    return pa.table(
        {
            "USUBJID": [f"01-{n:03d}" for n in range(1, rows + 1)],
            "SITEID": pa.array([n % 4 + 1 for n in range(rows)], pa.int16()),
            "AGE": pa.array([None if n % 11 == 3 else 40 + n * 7 % 37 for n in range(rows)], pa.int32()),
            "SEX": pa.array([["F", "M", None][n % 7 % 3] for n in range(rows)]).dictionary_encode(),
            "RACE": [races[n % 10] for n in range(rows)],
            "WEIGHT": [weights[n % 10] for n in range(rows)],
            "HEIGHT": pa.array([None if n % 9 == 8 else 1.5 + n / 64 for n in range(rows)], pa.float32()),
            "RFSTDTC": pa.array([None if n % 8 == 5 else first + timedelta(days=n * 5 % 90) for n in range(rows)]),
            "RANDDT": pa.array(
                [
                    None if n % 13 == 7 else datetime(2025, 12, 31, 22, 15, 0, n * 1000) + timedelta(minutes=n * 37)
                    for n in range(rows)
                ],
                pa.timestamp("us"),
            ),
            "LASTDTM": pa.array(
                [
                    None if n % 6 == 4 else datetime(2026, 3, 29, 0, 30, tzinfo=UTC) + timedelta(hours=n)
                    for n in range(rows)
                ],
                pa.timestamp("us", "UTC"),
            ),
            "DOSE": pa.array(
                [None if n % 10 == 9 else Decimal(n * 125) / 100 for n in range(rows)], pa.decimal128(9, 2)
            ),
            "CONSENT": pa.array([[True, False, None][n % 5 % 3] for n in range(rows)]),
        }
    )


def _lb() -> pa.Table:
    rows = 360
    tests = [("ALT", "U/L", 7, 56), ("AST", "U/L", 10, 40), ("GLUC", "mmol/L", 4, 6), ("HGB", "g/L", 120, 170)]
    code, unit, low, high = zip(*[tests[n % 4] for n in range(rows)], strict=True)
    value = [None if n % 17 == 16 else lo * (0.5 + n * 13 % 40 / 16) for n, lo in zip(range(rows), low, strict=True)]
    return pa.table(
        {
            "USUBJID": [f"01-{n // 8 % 45 + 1:03d}" for n in range(rows)],
            "LBSEQ": pa.array([n % 8 + 1 for n in range(rows)], pa.int32()),
            "LBTESTCD": pa.array(code).dictionary_encode(),
            "LBORRES": [None if v is None else f"{v:.1f}" if n % 29 else "<LLOQ" for n, v in enumerate(value)],
            "LBSTRESN": pa.array(value, pa.float64()),
            "LBSTRESU": pa.array(unit),
            "LBSTNRLO": pa.array(low, pa.int32()),
            "LBSTNRHI": pa.array(high, pa.int32()),
            "VISITNUM": pa.array(
                [Decimal(n // 4 % 2 + 1) + Decimal(n % 3) / 10 for n in range(rows)], pa.decimal128(4, 1)
            ),
            "LBDTC": pa.array([date(2025, 12, 1) + timedelta(days=n % 50) for n in range(rows)]),
            "LBBLFL": [None if n % 8 else "Y" for n in range(rows)],
        }
    )


def _ae() -> pa.Table:
    rows = 50
    terms = ["HEADACHE", "Nausea", "FATIGUE", "Nausea, severe", None]
    return pa.table(
        {
            "USUBJID": [f"01-{n * n % 43 + 1:03d}" for n in range(rows)],
            "AESEQ": pa.array(range(1, rows + 1), pa.int64()),
            "AETERM": [terms[n % 5] for n in range(rows)],
            "AESEV": pa.array([["MILD", "MODERATE", "SEVERE"][n % 7 % 3] for n in range(rows)]).dictionary_encode(),
            "AESTDTC": pa.array([date(2025, 12, 1) + timedelta(days=n * 3) for n in range(rows)]),
            "AEENDTC": pa.array(
                [None if n % 4 == 0 else date(2025, 12, 5) + timedelta(days=n * 3) for n in range(rows)]
            ),
            "AESER": pa.array([n % 9 == 0 for n in range(rows)]),
        }
    )


def _sv() -> pa.Table:
    rows = 60
    return pa.table(
        {
            "USUBJID": [f"01-{n % 20 + 1:03d}" for n in range(rows)],
            "VISIT": [["SCREENING", "WEEK 2", "WEEK 10"][n // 20] for n in range(rows)],
            "SVSTDTC": pa.array([date(2025, 11, 20) + timedelta(days=14 * (n // 20) + n % 5) for n in range(rows)]),
        }
    )


def _kinds() -> pa.Table:
    moments = [datetime(1969, 12, 31, 23, 59, 59), datetime(2026, 2, 28, 12, 0, 1), None, datetime(2024, 2, 29)]
    zoned = [None if moment is None else moment.replace(tzinfo=UTC) for moment in moments]
    columns: dict[str, pa.Array] = {
        "i8": pa.array([-128, 127, None, 0], pa.int8()),
        "i16": pa.array([-32768, 32767, None, 0], pa.int16()),
        "i32": pa.array([-(2**31) + 1, 2**31 - 1, None, 0], pa.int32()),
        "i64": pa.array([-(2**53), 2**53 - 1, None, 0], pa.int64()),
        "u8": pa.array([0, 255, None, 1], pa.uint8()),
        "u16": pa.array([0, 65535, None, 1], pa.uint16()),
        "u32": pa.array([0, 2**32 - 1, None, 1], pa.uint32()),
        "u64": pa.array([0, 2**53, None, 1], pa.uint64()),
        "f32": pa.array([1.5, math.nan, None, -math.inf], pa.float32()),
        "f64": pa.array([1e300, math.nan, None, 5e-324], pa.float64()),
        "dec_small": pa.array([Decimal("1.5"), Decimal("-9.9"), None, Decimal("0.0")], pa.decimal128(2, 1)),
        "dec_large": pa.array([Decimal("1e20"), Decimal("-1.0000000001"), None, Decimal(0)], pa.decimal128(38, 10)),
        "yes": pa.array([True, False, None, True]),
        "txt": pa.array(["a", "", None, "ß𝄞"]),
        "large_txt": pa.array(["A", " pad ", None, "tab\tnew\nline"], pa.large_string()),
        "fct": pa.array(["x", "y", None, "x"]).dictionary_encode(),
        "day": pa.array([date(1, 1, 1), date(9999, 12, 31), None, date(2024, 2, 29)]),
        "at_ms": pa.array(moments, pa.timestamp("ms")),
        "at_us": pa.array(moments, pa.timestamp("us")),
        "at_ns": pa.array(moments, pa.timestamp("ns")),
        "at_utc": pa.array(zoned, pa.timestamp("us", "UTC")),
        "clock": pa.array([time(0), time(23, 59, 59, 999999), None, time(12, 30)], pa.time64("us")),
    }
    return pa.table(columns)


@contextmanager
def reading(roots: Mapping[str, Path], project: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB itself over the current versions' parquet files of the stores at `roots`.

    Tables named alone are those of `project`; times are in UTC.
    """
    with duckdb.connect(":memory:", config={"threads": "2"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, root in roots.items():
            connection.execute(f'CREATE SCHEMA "{name}"')
            for documents in sorted((root / "datom").glob("*/.metadata")):
                data_sha = json.loads((documents / "metadata.json").read_text())["data_sha"]
                path = documents.parent / f"{data_sha}.parquet"
                connection.execute(f'CREATE VIEW "{name}"."{path.parent.name}" AS FROM read_parquet(\'{path}\')')
        connection.execute(f'USE "{project}"')
        yield connection


def differences(actual: pa.Table, expected: duckdb.DuckDBPyRelation, ordered: bool) -> list[str]:
    """What of a result is not as DuckDB has it: names, SQL types, rows."""
    wanted = expected.to_arrow_table()
    found = []
    if actual.column_names != expected.columns:
        found.append(f"names {actual.column_names}, expected {expected.columns}")
    types, types_wanted = _types(actual), _types(wanted)
    if types != types_wanted:
        found.append(f"types {types}, expected {types_wanted}")
    rows, rows_wanted = _rows(actual, ordered), _rows(wanted, ordered)
    if rows != rows_wanted:
        place = next(
            (n for n, (one, other) in enumerate(zip(rows, rows_wanted, strict=False)) if one != other),
            min(len(rows), len(rows_wanted)),
        )
        found.append(
            f"{len(rows)} rows, expected {len(rows_wanted)}; row {place}: {rows[place : place + 1]}, "
            f"expected {rows_wanted[place : place + 1]}"
        )
    return found


def _types(table: pa.Table) -> list[str]:
    return [str(_plain(kind)) for kind in table.schema.types]


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without what a plain read keeps of the stored one and SQL does not have."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_timestamp(kind):
        # DuckDB has one name of this zone, other people another
        zone = "UTC" if kind.tz == "Etc/UTC" else kind.tz
        return pa.timestamp("ns" if kind.unit == "ns" else "us", zone)
    return kind


def _rows(table: pa.Table, ordered: bool) -> list[str]:
    rows = [repr(row) for row in zip(*(_values(column) for column in table.columns), strict=True)]
    return rows if ordered else sorted(rows)


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        # a datetime has no nanoseconds, and one zone has several names
        return list(
            column.cast(pa.timestamp("ns", "UTC" if column.type.tz else None), safe=False).cast(pa.int64()).to_pylist()
        )
    return list(column.to_pylist())
