"""Files of SAS and SPSS: numbers with their formats made into dates and times, labels kept beside the columns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyreadstat

from ..sources import RowSource
from .problems import problem, reading

_PASS_BYTES = 256 * 1024 * 1024
"""How much of a file is made into Python's own values at once: columns are read in several passes over it."""

_FORMAT = re.compile(r"([A-Z][A-Z0-9]*[A-Z]|[A-Z])\d*(\.\d*)?")
_DAY_SECONDS = 86_400

_Read = Callable[..., tuple[dict[str, list[Any]], Any]]


class _System(NamedTuple):
    """How a program stores instants: as numbers since its own first day, told by a column's format.

    Attributes:
        origin: its first day, in days since 1970.
        date_seconds: how many seconds one step of a date is.
    """

    origin: int
    date_seconds: int
    dates: frozenset[str]
    datetimes: frozenset[str]
    times: frozenset[str]


def read_xpt(path: Path) -> RowSource:
    """The rows of a SAS transport file, version 5 or 8."""
    return _rows(path, pyreadstat.read_xport, _sas())


def read_sas7bdat(path: Path) -> RowSource:
    """The rows of a SAS data set."""
    return _rows(path, pyreadstat.read_sas7bdat, _sas())


def read_sav(path: Path) -> RowSource:
    """The rows of an SPSS file."""
    return _rows(path, pyreadstat.read_sav, _spss())


def _sas() -> _System:
    days = {f"{order}{separator}" for order in ("DDMMYY", "MMDDYY", "YYMMDD") for separator in ("", *"BCDNPS")}
    return _System(
        origin=(date(1960, 1, 1) - date(1970, 1, 1)).days,
        date_seconds=_DAY_SECONDS,
        dates=frozenset({"DATE", "WEEKDATE", "WEEKDATX", "B8601DA", "E8601DA", "IS8601DA", *days}),
        datetimes=frozenset({"DATETIME", "DATEAMPM", "MDYAMPM", "B8601DT", "E8601DT", "IS8601DT", "DTDATE", "B8601DN"}),
        times=frozenset({"TIME", "HHMM", "TOD", "TIMEAMPM", "B8601TM", "E8601TM", "IS8601TM"}),
    )


def _spss() -> _System:
    return _System(
        origin=(date(1582, 10, 14) - date(1970, 1, 1)).days,
        date_seconds=1,
        dates=frozenset({"DATE", "ADATE", "EDATE", "JDATE", "SDATE"}),
        datetimes=frozenset({"DATETIME", "YMDHMS"}),
        times=frozenset({"TIME", "DTIME"}),
    )


def _rows(path: Path, read: _Read, system: _System) -> RowSource:
    fields: list[pa.Field] = []
    columns: list[pa.Array] = []
    for values, told in _passes(path, read):
        for name in list(values):
            is_text = told.readstat_variable_types[name] == "string"
            format = told.original_variable_types.get(name) or ""
            column = pa.array(values.pop(name), pa.string()) if is_text else _numbers(values.pop(name), format, system)
            fields.append(pa.field(name, column.type, metadata=_labels(name, told)))
            columns.append(column)
    return RowSource.of(pa.Table.from_arrays(columns, schema=pa.schema(fields)))


def _passes(path: Path, read: _Read) -> Iterator[tuple[dict[str, list[Any]], Any]]:
    """The columns' values, some columns at a time, and what the file tells of them."""
    with reading(path, path.suffix[1:], pyreadstat.ReadstatError, pyreadstat.PyreadstatError, UnicodeError):
        _, told = read(path, metadataonly=True, output_format="dict")
        names = told.column_names
        if not names:
            raise problem(path, "has no columns")
        step = max(1, len(names) * _PASS_BYTES // max(path.stat().st_size, 1))
        for start in range(0, len(names), step):
            wanted = names[start : start + step]
            yield read(path, usecols=wanted, output_format="dict", disable_datetime_conversion=True)


def _labels(name: str, told: Any) -> dict[str, str]:
    """What the file says of a column beside its values, for the column's metadata."""
    found = {
        "label": told.column_names_to_labels.get(name),
        "format": told.original_variable_types.get(name),
    }
    if name in told.variable_value_labels:
        values = {_plain(value): label for value, label in told.variable_value_labels[name].items()}
        found["value_labels"] = json.dumps(values, ensure_ascii=False)
    return {key: value for key, value in found.items() if value}


def _plain(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _numbers(values: list[Any], format: str, system: _System) -> pa.Array:
    numbers = pa.array(values, pa.float64())
    matched = _FORMAT.fullmatch(format.upper())
    name = matched[1] if matched else ""
    if name in system.dates:
        return _dates(numbers, system)
    if name in system.datetimes:
        return _instants(numbers, 1, system.origin)
    return _times(numbers) if name in system.times else numbers


def _dates(numbers: pa.Array, system: _System) -> pa.Array:
    days = _known(numbers) * system.date_seconds / _DAY_SECONDS
    if np.any(days != np.floor(days)):
        # Parts of a day do not show, but they are there.
        return _instants(numbers, system.date_seconds, system.origin)
    return _like(numbers, days + system.origin, pa.int32()).view(pa.date32())


def _instants(numbers: pa.Array, seconds: int, origin: int) -> pa.Array:
    microseconds = np.round(_known(numbers) * seconds * 1e6) + origin * _DAY_SECONDS * 1e6
    return _like(numbers, microseconds, pa.int64()).view(pa.timestamp("us"))


def _times(numbers: pa.Array) -> pa.Array:
    known = _known(numbers)
    within_a_day = bool(np.all((known >= 0) & (known < _DAY_SECONDS)))
    spans = _like(numbers, np.round(known * 1e6), pa.int64())
    return spans.view(pa.time64("us") if within_a_day else pa.duration("us"))


def _known(numbers: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The values, 0 where one is missing."""
    return np.asarray(numbers.fill_null(0.0).to_numpy(zero_copy_only=False))


def _like(numbers: pa.Array, values: Any, kind: pa.DataType) -> pa.Array:
    """`values` as whole numbers, missing where `numbers` are."""
    mask = np.asarray(numbers.is_null().to_numpy(zero_copy_only=False))
    return pa.array(values.astype(np.int64), mask=mask).cast(kind)
