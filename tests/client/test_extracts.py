"""Extracts: files of every format, and the rows and types they come to."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat
import pytest
import xlsxwriter  # type: ignore[import-untyped]

from datom_flight import DatomError
from datom_flight.extracts import FORMATS, extract_format, open_extract
from support.rows import rows

DATA = Path(__file__).parents[1] / "data" / "extracts"

INSTANT = dt.datetime(2026, 1, 15, 12, 30, 1, 500_000)


def table(path: Path) -> pa.Table:
    source = open_extract(path)
    read = pa.Table.from_batches(source.batches(), source.schema)
    assert pa.Table.from_batches(source.batches(), source.schema).equals(read), "it can be read again"
    return read


def refusal(path: Path) -> DatomError:
    with pytest.raises(DatomError) as caught:
        table(path)
    return caught.value


def types(read: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in read.schema}


# Parquet and Arrow


def test_parquet_and_arrow_files_come_as_they_are(tmp_path: Path) -> None:
    given = pa.concat_tables([rows(30), rows(30, first=30)])
    pq.write_table(given, tmp_path / "dm.parquet", row_group_size=20)
    with pa.ipc.new_file(tmp_path / "dm.arrow", rows(50).schema) as file:
        file.write_table(rows(50))
    with pa.ipc.new_stream(tmp_path / "dm.feather", given.schema) as stream:
        stream.write_table(given)
    for name, expected in (("dm.parquet", given), ("dm.arrow", rows(50)), ("dm.feather", given)):
        assert table(tmp_path / name).to_pylist() == expected.to_pylist()
        assert table(tmp_path / name).schema == expected.schema
    assert open_extract(tmp_path / "dm.parquet").rows == 60


# Delimited text


def test_types_of_text_are_inferred_from_all_of_it(tmp_path: Path) -> None:
    lines = [f"{number},2026-01-15,1.5,{number}" for number in range(200_000)]
    (tmp_path / "dm.csv").write_text("\n".join(["A,DAY,X,LATE", *lines, '1,2026-01-16,2,"< 5"', ""]))
    read = table(tmp_path / "dm.csv")
    assert types(read) == {"A": "int64", "DAY": "date32[day]", "X": "double", "LATE": "string"}
    assert read["LATE"][0].as_py() == "0"


def test_codes_of_digits_stay_text(tmp_path: Path) -> None:
    (tmp_path / "dm.tsv").write_text(
        "SITE\tLONG\tEXACT\tMIXED\tAGE\tEMPTY\tNA\n"
        "007\t12345678901234567890\t1234567890123456\t0012.5\t0\t\tNA\n"
        "010\t1\t2\t1.5\t\t\tNA\n"
    )
    assert table(tmp_path / "dm.tsv").to_pydict() == {
        "SITE": ["007", "010"],
        "LONG": ["12345678901234567890", "1"],
        "EXACT": [1234567890123456, 2],
        "MIXED": ["0012.5", "1.5"],
        "AGE": [0, None],
        "EMPTY": ["", ""],
        "NA": ["NA", "NA"],
    }


def test_a_byte_order_mark_and_other_line_ends_are_no_part_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "dm.csv").write_bytes("\ufeffNAME,AGE\r\nJosé,34\r\n".encode())
    assert table(tmp_path / "dm.csv").to_pydict() == {"NAME": ["José"], "AGE": [34]}


def test_lines_within_a_value_stay_in_it(tmp_path: Path) -> None:
    (tmp_path / "dm.csv").write_text('A,B\n1,"two\nlines"\n2,"a ""quote"""\n')
    assert table(tmp_path / "dm.csv")["B"].to_pylist() == ["two\nlines", 'a "quote"']


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as csv"),
        (b"A,B\n1,2,3\n", "cannot be read as csv"),
        (b"A,A\n1,2\n", 'several columns called "A"'),
        (b"A;B\n1,5;2\n", "cannot be read as csv"),
        (b"A;B\n1;2\n", 'has one column, "A;B"'),
        ("NAME\nJosé\n".encode("latin-1"), 'column "NAME" that is not UTF-8'),
    ],
)
def test_text_that_is_no_table_says_why(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "dm.csv").write_bytes(content)
    error = refusal(tmp_path / "dm.csv")
    assert error.code == "invalid_argument"
    assert said in error.message
    assert '"dm.csv"' in error.message


# SAS and SPSS


FRAME = pd.DataFrame(
    {
        "USUBJID": ["01-001", "01-002", ""],
        "AGE": [34.0, np.nan, 55.5],
        "BRTHDT": [dt.date(1960, 1, 2), None, dt.date(2026, 2, 28)],
        "RFSTDTM": [INSTANT, None, dt.datetime(1950, 1, 1)],
        "VISTIM": [dt.time(12, 30), None, dt.time(23, 59, 59)],
        "RACE": [1, 2, 1],
    }
)
LABELS: list[str | None] = [
    "Unique Subject Identifier",
    "Age",
    "Date of Birth",
    "Start of Treatment",
    "Time of Visit",
    "Race",
]


def write_statistics(path: Path) -> Path:
    if path.suffix == ".xpt":
        pyreadstat.write_xport(FRAME, path, column_labels=LABELS, table_name="DM", file_format_version=5)
    if path.suffix == ".sav":
        pyreadstat.write_sav(
            FRAME, path, column_labels=LABELS, variable_value_labels={"RACE": {1: "White", 2: "Asian"}}
        )
    return DATA / "dm.sas7bdat" if path.suffix == ".sas7bdat" else path


@pytest.mark.parametrize("ending", ["xpt", "sas7bdat", "sav"])
def test_files_of_sas_and_spss_have_dates_times_and_labels(tmp_path: Path, ending: str) -> None:
    read = table(write_statistics(tmp_path / f"dm.{ending}"))
    assert read.select(["USUBJID", "AGE", "BRTHDT", "RFSTDTM", "VISTIM"]).to_pydict() == {
        "USUBJID": ["01-001", "01-002", ""],
        "AGE": [34.0, None, 55.5],
        "BRTHDT": [dt.date(1960, 1, 2), None, dt.date(2026, 2, 28)],
        "RFSTDTM": [INSTANT, None, dt.datetime(1950, 1, 1)],
        "VISTIM": [dt.time(12, 30), None, dt.time(23, 59, 59)],
    }
    assert types(read)["BRTHDT"] == "date32[day]"
    assert read.schema.field("BRTHDT").metadata[b"label"] == b"Date of Birth"
    assert read.schema.field("BRTHDT").metadata[b"format"].startswith(b"DATE")


def test_a_time_span_of_over_a_day_stays_one() -> None:
    # Written with ReadStat, for no library of Python's writes this format.
    read = table(DATA / "dm.sas7bdat")
    assert types(read)["DURTIM"] == "duration[us]"
    assert read["DURTIM"].to_pylist() == [dt.timedelta(hours=12.5), None, dt.timedelta(hours=25)]


def test_labels_of_values_stay_beside_the_values(tmp_path: Path) -> None:
    read = table(write_statistics(tmp_path / "dm.sav"))
    assert read["RACE"].to_pylist() == [1.0, 2.0, 1.0]
    assert read.schema.field("RACE").metadata[b"value_labels"] == b'{"1": "White", "2": "Asian"}'


def test_a_file_is_read_in_several_passes_when_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_statistics(tmp_path / "dm.xpt")
    whole = table(path)
    monkeypatch.setattr("datom_flight.extracts.readstat._PASS_BYTES", path.stat().st_size // 3)
    assert table(path).equals(whole)
    assert whole.column_names == list(FRAME.columns)


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_a_damaged_file_says_that_it_is(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"dm.{ending}"
    path.write_bytes(b"\x00\x01\x02 not a table \xff\xfe" * 100)
    error = refusal(path)
    assert error.code == "invalid_argument"
    assert f'"dm.{ending}"' in error.message


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    for ending in FORMATS:
        with pytest.raises(FileNotFoundError):
            open_extract(tmp_path / f"dm.{ending}")


# Excel


def write_workbook(path: Path, *sheets: list[list[Any]]) -> Path:
    with xlsxwriter.Workbook(path, {"default_date_format": "yyyy-mm-dd"}) as workbook:
        instant, clock = (workbook.add_format({"num_format": f}) for f in ("yyyy-mm-dd hh:mm:ss", "hh:mm:ss"))
        for cells in sheets:
            sheet = workbook.add_worksheet()
            for at, row in enumerate(cells):
                for column, value in enumerate(row):
                    form = {dt.datetime: instant, dt.time: clock}.get(type(value))
                    sheet.write(at, column, value, form) if form else sheet.write(at, column, value)
    return path


def test_a_workbook_s_cells_give_the_types(tmp_path: Path) -> None:
    day, instant, clock = dt.date(2026, 1, 15), dt.datetime(2026, 1, 15, 12, 30), dt.time(12, 30)
    path = write_workbook(
        tmp_path / "dm.xlsx",
        [
            ["ID", "N", "X", "DAY", "WHEN", "CLOCK", "FLAG", "MIXED", "EMPTY", "EITHER"],
            ["007", 1, 1.5, day, instant, clock, True, 5, None, day],
            ["b", 2, 2, day, instant, clock, False, "<5", None, instant],
            ["c", None, None, None, None, None, None, 1.25, None, None],
        ],
        [],
    )
    read = table(path)
    assert types(read) == {
        "ID": "string",
        "N": "int64",
        "X": "double",
        "DAY": "date32[day]",
        "WHEN": "timestamp[us]",
        "CLOCK": "time64[us]",
        "FLAG": "bool",
        "MIXED": "string",
        "EMPTY": "string",
        "EITHER": "timestamp[us]",
    }
    assert list(read.slice(0, 1).to_pylist()[0].values()) == [
        "007", 1, 1.5, day, instant, clock, True, "5", None, dt.datetime(2026, 1, 15),
    ]  # fmt: skip
    assert read["MIXED"].to_pylist() == ["5", "<5", "1.25"]
    assert read["N"].to_pylist() == [1, 2, None]


@pytest.mark.parametrize(
    ("sheets", "said"),
    [
        ([[["A"], [1]], [["B"], [2]]], '2 sheets that are not empty: "Sheet1", "Sheet2"'),
        ([[]], "0 sheets"),
        ([[["A", None], [1, 2]]], "row 1 of column 2"),
        ([[["A", "A"], [1, 2]]], "row 1 of column 2"),
        ([[["A", 5], [1, 2]]], "row 1 of column 2"),
    ],
)
def test_a_workbook_that_is_not_one_table_says_why(tmp_path: Path, sheets: Any, said: str) -> None:
    assert said in refusal(write_workbook(tmp_path / "dm.xlsx", *sheets)).message


# Which can be read


def test_an_ending_that_is_not_known_names_those_that_are(tmp_path: Path) -> None:
    for name in ("dm.pdf", "dm", "dm.csv.gz"):
        with pytest.raises(DatomError) as caught:
            extract_format(tmp_path / name)
        assert caught.value.code == "unsupported"
        assert ".sas7bdat" in caught.value.hint
    assert extract_format("DM.XPT") == "xpt"


def test_a_reader_that_is_not_installed_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datom_flight.extracts.find_spec", lambda name: None)
    with pytest.raises(DatomError) as caught:
        extract_format("dm.xlsx")
    assert "python-calamine" in caught.value.message
    assert caught.value.hint == "pip install 'datom-flight[files]'"
    assert extract_format("dm.csv") == "csv"
