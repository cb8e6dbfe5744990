"""What R itself read from the fixture stores, and a comparison with what came over Flight that forgives nothing."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

FIXTURES = Path(__file__).parent.parent / "data" / "fixtures"
EXPECTED = FIXTURES / "expected"

UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, slots=True)
class Store:
    """A store that R wrote, and R's own answers about it.

    Attributes:
        name: the folder under ``fixtures/``.
        project: the name it is served by here.
        prefix: where in its root it lies.
        answers: the folder under ``expected/``.
    """

    name: str
    project: str
    prefix: str
    answers: str

    @property
    def root(self) -> Path:
        """The folder that holds ``{prefix}/datom``."""
        return FIXTURES / self.name / "storage"

    @property
    def data(self) -> Path:
        """The ``datom`` folder itself."""
        return self.root / self.prefix / "datom"

    @property
    def index(self) -> dict[str, Any]:
        """Every artifact and version, with hashes and sizes."""
        body: dict[str, Any] = json.loads((EXPECTED / self.answers / "index.json").read_text())
        return body

    def answer(self, *path: str) -> Any:
        """One of R's answers, by its path under the store's folder in ``expected/``."""
        return json.loads(EXPECTED.joinpath(self.answers, *path).read_text())

    def answers_named(self, artifact: str, what: str) -> Iterator[tuple[str | None, Any]]:
        """``(version, answer)`` for each ``{what}_*.json`` of `artifact`; version None is the current one."""
        for path in sorted((EXPECTED / self.answers / artifact).glob(f"{what}_*.json")):
            version = path.stem.removeprefix(f"{what}_")
            yield (None if version == "current" else version), json.loads(path.read_text())


STORES = (
    Store("store-basic", "STUDY_001", "study-001", "store-basic"),
    Store("store-product", "STUDY_001_ADAM", "", "store-product"),
    Store("store-product2", "SUBMISSION", "a/b", "store-product2"),
    Store("store-011", "STUDY_OLD", "", "store-011-by-R-0.2.0"),
    Store("store-011-upgraded", "STUDY_UPGRADED", "", "store-011-upgraded"),
)


def assert_same_table(table: pa.Table, expected: Mapping[str, Any]) -> None:
    """Fail unless `table` holds exactly what R read: names, order, types, and every value to the last bit."""
    assert table.num_rows == expected["nrow"]
    assert table.column_names == [column["name"] for column in expected["columns"]]
    for column in expected["columns"]:
        actual = table.column(column["name"])
        try:
            READERS[column["rtype"]](actual, column)
        except AssertionError as error:
            raise AssertionError(f'column "{column["name"]}" ({actual.type}): {error}') from None


def _logical(actual: pa.ChunkedArray, column: Mapping[str, Any]) -> None:
    assert pa.types.is_boolean(actual.type)
    assert actual.to_pylist() == column["values"]


def _integer(actual: pa.ChunkedArray, column: Mapping[str, Any]) -> None:
    assert pa.types.is_signed_integer(actual.type)
    assert actual.to_pylist() == column["values"]


def _integer64(actual: pa.ChunkedArray, column: Mapping[str, Any]) -> None:
    assert actual.type == pa.int64()
    assert [None if value is None else str(value) for value in actual.to_pylist()] == column["values"]


def _double(actual: pa.ChunkedArray, column: Mapping[str, Any]) -> None:
    assert actual.type == pa.float64()
    _assert_same_bits(actual.to_pylist(), column["hex"])
    for value, expected in zip(actual.to_pylist(), column["values"], strict=True):
        assert (value is None) == (expected is None)


def _character(actual: pa.ChunkedArray, column: Mapping[str, Any]) -> None:
    assert pa.types.is_string(actual.type) or pa.types.is_large_string(actual.type)
    assert actual.to_pylist() == column["values"]


def _factor(actual: pa.ChunkedArray, column: Mapping[str, Any]) -> None:
    assert pa.types.is_dictionary(actual.type)
    assert actual.type.ordered == column["ordered"]
    whole = actual.combine_chunks()
    array = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    assert array.dictionary.to_pylist() == column["levels"]
    assert array.to_pylist() == column["values"]
    assert [None if code is None else code + 1 for code in array.indices.to_pylist()] == column["codes"]


def _date(actual: pa.ChunkedArray, column: Mapping[str, Any]) -> None:
    assert pa.types.is_date32(actual.type)
    assert actual.cast(pa.int32()).to_pylist() == column["days"]


def _posixct(actual: pa.ChunkedArray, column: Mapping[str, Any]) -> None:
    assert pa.types.is_timestamp(actual.type)
    assert actual.type.tz == column["tzone"]
    _assert_same_bits(_seconds(actual), column["epoch_hex"])


def _difftime(actual: pa.ChunkedArray, column: Mapping[str, Any]) -> None:
    assert pa.types.is_duration(actual.type)
    assert column["units"] == "secs"
    _assert_same_bits(_seconds(actual), column["hex"])


def _hms(actual: pa.ChunkedArray, column: Mapping[str, Any]) -> None:
    assert pa.types.is_time(actual.type)
    assert column["units"] == "secs"
    _assert_same_bits(_seconds(actual), column["hex"])


READERS: Mapping[str, Callable[[pa.ChunkedArray, Mapping[str, Any]], None]] = {
    "logical": _logical,
    "integer": _integer,
    "integer64": _integer64,
    "double": _double,
    "character": _character,
    "factor": _factor,
    "Date": _date,
    "POSIXct": _posixct,
    "difftime": _difftime,
    "hms": _hms,
}


def _seconds(actual: pa.ChunkedArray) -> list[float | None]:
    bits = pa.int32() if pa.types.is_time32(actual.type) else pa.int64()
    units = UNITS_PER_SECOND[actual.type.unit]
    return [None if value is None else value / units for value in actual.cast(bits).to_pylist()]


def _assert_same_bits(values: list[float | None], texts: list[str]) -> None:
    """Compare doubles by their bits with R's hexadecimal texts; every NaN is one, and none is a missing value."""
    assert len(values) == len(texts)
    for row, (value, text) in enumerate(zip(values, texts, strict=True)):
        if text == "NA":
            assert value is None, f"row {row}: {value!r} is not missing"
        elif text == "NaN":
            assert value is not None, f"row {row}: missing, not NaN"
            assert math.isnan(value), f"row {row}: {value!r} is not NaN"
        else:
            expected = float(text) if text in ("Inf", "-Inf") else float.fromhex(text)
            assert value is not None, f"row {row}: missing, not {text}"
            assert struct.pack("<d", value) == struct.pack("<d", expected), f"row {row}: {value.hex()} is not {text}"
