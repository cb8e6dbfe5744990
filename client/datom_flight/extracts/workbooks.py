"""Excel workbooks of one sheet: a table with names in its first row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import python_calamine as calamine

from ..sources import RowSource
from .problems import problem, reading

_LARGEST_WHOLE = 2**53


def read_xlsx(path: Path) -> RowSource:
    """The rows of a workbook's only sheet that is not empty. Types are those of the cells; mixed ones become text."""
    with reading(path, "xlsx", calamine.CalamineError, ValueError):
        workbook = calamine.CalamineWorkbook.from_path(path)
        sheets = {name: workbook.get_sheet_by_name(name).to_python() for name in workbook.sheet_names}
    filled = [name for name, rows in sheets.items() if rows]
    if len(filled) != 1:
        named = ", ".join(f'"{name}"' for name in filled) or "none"
        raise problem(path, f"has {len(filled)} sheets that are not empty: {named}", "save each sheet as a file")
    names, *rows = sheets[filled[0]]
    for number, name in enumerate(names, 1):
        if not isinstance(name, str) or not name or name in names[: number - 1]:
            raise problem(path, f"has no name of its own in row 1 of column {number}", "give each column a name")
    columns = [_column([row[index] for row in rows]) for index in range(len(names))]
    return RowSource.of(pa.Table.from_arrays(columns, names=names))


def _column(values: Sequence[Any]) -> pa.Array:
    cells = [None if value == "" else value for value in values]
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds <= {int, float} and kinds:
        whole = all(cell is None or (cell == int(cell) and abs(cell) <= _LARGEST_WHOLE) for cell in cells)
        return pa.array([cell if cell is None else int(cell) for cell in cells] if whole else cells)
    if kinds == {bool}:
        return pa.array(cells, pa.bool_())
    if kinds == {date}:
        return pa.array(cells, pa.date32())
    if kinds and kinds <= {date, datetime}:
        return pa.array([_midnight(cell) if type(cell) is date else cell for cell in cells], pa.timestamp("us"))
    if kinds == {time}:
        return pa.array(cells, pa.time64("us"))
    if kinds and kinds <= {time, timedelta}:
        return pa.array([_span(cell) if isinstance(cell, time) else cell for cell in cells], pa.duration("us"))
    return pa.array([cell if cell is None else _text(cell) for cell in cells], pa.string())


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time())


def _span(clock: time) -> timedelta:
    return datetime.combine(date.min, clock) - datetime.min


def _text(cell: Any) -> str:
    """A cell of a column that also has others, as a person would type it."""
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float) and cell == int(cell):
        return str(int(cell))
    return cell.isoformat(" ") if isinstance(cell, datetime) else str(cell)
