"""Files of delimited text: types are inferred from all the values, and never at the cost of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from ..sources import RowSource
from .problems import problem, reading

# As numbers, codes like "007" would lose their zeros, and long ones their last digits.
_CODE = r"^[+-]?0[0-9]"
_CODE_OR_LONG = r"^[+-]?(0[0-9]|[0-9]{16,}$)"


def read_csv(path: Path) -> RowSource:
    """The rows of a comma-separated file in UTF-8, with names in its first line."""
    return _read(path, "csv", ",")


def read_tsv(path: Path) -> RowSource:
    """As `read_csv`, with tabs between."""
    return _read(path, "tsv", "\t")


def _read(path: Path, kind: str, delimiter: str) -> RowSource:
    # As a whole: what type a column has is known after its last value only.
    with reading(path, kind, pa.ArrowException):
        table = _parse(path, delimiter, {})
        twins = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        if twins:
            raise problem(path, f'has several columns called "{twins[0]}"', "give each column a name of its own")
        if table.num_columns == 1 and any(mark in table.column_names[0] for mark in ",;\t|"):
            raise problem(path, f'has one column, "{table.column_names[0]}"', f"separate columns as .{kind} does")
        texts = _parse(path, delimiter, {field.name: pa.string() for field in table.schema if _is_suspect(field.type)})
    for index, field in enumerate(table.schema):
        if pa.types.is_binary(field.type):
            raise problem(path, f'has text in column "{field.name}" that is not UTF-8', "save the file as UTF-8")
        if _is_suspect(field.type) and _is_text(texts.column(index), field.type):
            table = table.set_column(index, field.name, texts.column(index))
    return RowSource.of(table)


def _parse(path: Path, delimiter: str, types: Mapping[str, pa.DataType]) -> pa.Table:
    return pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(column_types=types),
    )


def _is_suspect(kind: pa.DataType) -> bool:
    return bool(pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(texts: pa.ChunkedArray, inferred: pa.DataType) -> bool:
    if pa.types.is_null(inferred):
        return True
    pattern = _CODE if pa.types.is_integer(inferred) else _CODE_OR_LONG
    return bool(pc.any(pc.match_substring_regex(texts, pattern)).as_py())
