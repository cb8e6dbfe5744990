"""Small tables in which every row is different."""

from __future__ import annotations

import pyarrow as pa


def rows(count: int, first: int = 0) -> pa.Table:
    """So many rows, numbered from `first`, with a factor whose levels come in one by one."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "USUBJID": pa.array([f"01-{number:04d}" for number in numbers], pa.string()),
            "AGE": pa.array([number if number % 7 else None for number in numbers], pa.int32()),
            "SITE": pa.array([f"site {number // 10}" for number in numbers], pa.string()).dictionary_encode(),
        }
    )
