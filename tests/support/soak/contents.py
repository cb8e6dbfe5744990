"""Rows that say who wrote them, so that whoever reads them knows what they must be."""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
import pyarrow as pa

from ..same import assert_same

LARGE = "lb"
LARGE_ROWS = 2_500_000
SHARED = "shared"

_MOST_ROWS = 2000
_SEXES = pa.array(["F", "M", "U"])


def content(writer: str, number: int) -> pa.Table:
    """What `writer` writes as its version `number`: the same rows each time, and nobody else's."""
    chance = np.random.default_rng(zlib.crc32(f"{writer} {number}".encode()))
    count = int(chance.integers(1, _MOST_ROWS))
    seq = np.arange(count, dtype=np.int32)
    sexes = pa.DictionaryArray.from_arrays(pa.array(seq % 3, pa.int32()), _SEXES)
    return pa.table(
        {
            "WRITER": pa.array([writer] * count, pa.string()),
            "NUMBER": pa.array(np.full(count, number, np.int32)),
            "SEQ": pa.array(seq),
            "USUBJID": pa.array([f"{writer}-{row:05d}" for row in range(count)], pa.string()),
            "AVAL": pa.array(chance.normal(40, 12, count), mask=chance.random(count) < 0.1),
            "SEX": sexes,
        }
    )


def assert_whole(rows: pa.Table) -> None:
    """Fail unless `rows` are all of what their first row says they are."""
    assert rows.num_rows, "no rows"
    assert_same(rows, content(rows["WRITER"][0].as_py(), rows["NUMBER"][0].as_py()))


@cache
def large() -> pa.Table:
    """The table that is sent in several parts."""
    values = np.random.default_rng(1).normal(40, 12, LARGE_ROWS)
    return pa.table({"SEQ": np.arange(LARGE_ROWS, dtype=np.int32), "AVAL": values})
