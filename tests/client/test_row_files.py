"""Rows as files and text."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from datom_flight import DatomError
from datom_flight.rows import ROW_WRITERS, encode_rows, file_format, preview, write_rows
from support.rows import rows

EVERY_TYPE = pa.table(
    {
        "text": ['a,"b"', None],
        "factor": pa.array(["x", "y"]).dictionary_encode(),
        "whole": pa.array([1, None], pa.int64()),
        "number": [float("nan"), 1.5],
        "flag": [True, None],
        "day": [dt.date(2026, 1, 15), None],
        "local": pa.array([dt.datetime(2026, 1, 15, 12, 30), None], pa.timestamp("ms")),
        "utc": pa.array([1, None], pa.timestamp("ns", "UTC")),
        "clock": pa.array([dt.time(12, 30), None], pa.time64("us")),
        "span": pa.array([1500, None], pa.duration("ms")),
        "exact": pa.array([Decimal("1.50"), None], pa.decimal128(5, 2)),
        "nothing": pa.nulls(2),
    }
)


def several_dictionaries() -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Batches of one stream, each with a dictionary of its own."""
    parts = [rows(10, first) for first in (0, 10, 20)]
    return parts[0].schema, [batch for part in parts for batch in part.to_batches()]


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather"])
def test_binary_files_keep_every_type_and_all_levels(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"dm.{ending}"
    write_rows(path, *several_dictionaries())
    table = pq.read_table(path) if ending == "parquet" else feather.read_table(path)
    assert table["SITE"].to_pylist() == rows(30)["SITE"].to_pylist()
    assert pa.types.is_dictionary(table.schema.field("SITE").type)


def test_the_schema_s_metadata_is_kept(tmp_path: Path) -> None:
    table = rows(3).replace_schema_metadata({"datom.version": "a" * 64})
    for ending in ("parquet", "arrow"):
        write_rows(tmp_path / f"dm.{ending}", table.schema, table.to_batches())
    assert pq.read_schema(tmp_path / "dm.parquet").metadata[b"datom.version"] == b"a" * 64
    assert feather.read_table(tmp_path / "dm.arrow").schema.metadata[b"datom.version"] == b"a" * 64


def test_json_is_one_array_of_objects(tmp_path: Path) -> None:
    write_rows(tmp_path / "all.json", EVERY_TYPE.schema, EVERY_TYPE.to_batches())
    assert json.loads((tmp_path / "all.json").read_text()) == [
        {
            "text": 'a,"b"',
            "factor": "x",
            "whole": 1,
            "number": None,
            "flag": True,
            "day": "2026-01-15",
            "local": "2026-01-15T12:30:00.000",
            "utc": "1970-01-01T00:00:00.000000001Z",
            "clock": "12:30:00",
            "span": 1.5,
            "exact": "1.50",
            "nothing": None,
        },
        {**dict.fromkeys(EVERY_TYPE.column_names), "factor": "y", "number": 1.5},
    ]


def test_csv_holds_every_type(tmp_path: Path) -> None:
    write_rows(tmp_path / "all.csv", EVERY_TYPE.schema, EVERY_TYPE.to_batches())
    first, second = pa_csv.read_csv(tmp_path / "all.csv").to_pylist()
    assert (first["text"], first["factor"], first["span"], second["whole"]) == ('a,"b"', "x", 1.5, None)


@pytest.mark.parametrize("ending", list(ROW_WRITERS))
def test_no_rows_make_a_file_with_the_columns_only(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"none.{ending}"
    write_rows(path, rows(0).schema, [])
    if ending == "json":
        assert json.loads(path.read_text()) == []
    elif ending == "csv":
        assert path.read_text() == '"USUBJID","AGE","SITE"\n'
    else:
        table = pq.read_table(path) if ending == "parquet" else feather.read_table(path)
        assert table.schema.equals(rows(0).schema)
        assert table.num_rows == 0


@pytest.mark.parametrize("ending", list(ROW_WRITERS))
def test_a_read_that_fails_leaves_no_half_file_and_the_old_one_in_place(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"dm.{ending}"
    path.write_text("before")

    def breaks() -> Iterator[pa.RecordBatch]:
        yield from rows(5).to_batches()
        raise DatomError.of("truncated", "cut")

    with pytest.raises(DatomError, match="cut"):
        write_rows(path, rows(5).schema, breaks())
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_types_a_format_cannot_hold_are_unsupported() -> None:
    nested = pa.table({"x": [[1, 2]]})
    with pytest.raises(DatomError) as caught:
        encode_rows(ROW_WRITERS["csv"], io.BytesIO(), nested.schema, nested.to_batches())
    assert caught.value.code == "unsupported"
    assert ".parquet" in caught.value.hint


def test_the_format_is_the_file_s_ending() -> None:
    assert file_format("x/DM.PARQUET") == "parquet"
    for path in ("dm", "dm.sas7bdat", ".csv"):
        with pytest.raises(DatomError, match="known format"):
            file_format(path)


def test_a_preview_has_the_columns_that_fit() -> None:
    table = pa.table({"a": [1, 22], "b": ["x", None], "c": ["long enough", "y"]})
    text, hidden = preview(table.schema, table.to_batches(), None)
    assert (text, hidden) == (" a  b  c\n 1  x  long enough\n22  -  y", 0)
    assert preview(table.schema, table.to_batches(), 10) == (" a  b\n 1  x\n22  -", 1)
    assert preview(table.schema, [], None) == ("a  b  c", 0)


def test_a_preview_keeps_two_columns_of_one_name() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert preview(table.schema, table.to_batches(), None)[0] == "a  a\n1  2"
