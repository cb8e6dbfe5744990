"""Any table that can be written: random columns of every supported type, and batches of the same rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from datom_flight_server.versions.stored_form import StoredForm

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
BITS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1 << 63, 0x7FF00000000007A2, 0x7FF8000000000001, 0xFFF0 << 48])
INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5) | st.sampled_from([2**53 + 1, -(2**31), 2**31])


def ints(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


def viewed(kind: pa.DataType, bits: pa.DataType) -> Any:
    return lambda values: pa.array(values, bits).view(kind)


def typed(kind: pa.DataType) -> Any:
    return lambda values: pa.array(values, kind)


COLUMNS: dict[str, tuple[st.SearchStrategy[Any], Any]] = {
    "bool": (st.booleans(), typed(pa.bool_())),
    "int8": (ints(8), typed(pa.int8())),
    "int16": (ints(16), typed(pa.int16())),
    "int32": (ints(32), typed(pa.int32())),
    "int64": (INT64, typed(pa.int64())),
    "uint8": (ints(8, signed=False), typed(pa.uint8())),
    "uint16": (ints(16, signed=False), typed(pa.uint16())),
    "uint32": (ints(32, signed=False), typed(pa.uint32())),
    "uint64": (ints(64, signed=False), typed(pa.uint64())),
    "float16": (ints(16, signed=False), viewed(pa.float16(), pa.uint16())),
    "float32": (ints(32, signed=False), viewed(pa.float32(), pa.uint32())),
    "float64": (BITS, viewed(pa.float64(), pa.uint64())),
    "decimal32": (st.decimals(-(10**6), 10**6, places=2), typed(pa.decimal32(9, 2))),
    "decimal64": (st.decimals(-(10**12), 10**12, places=4), typed(pa.decimal64(18, 4))),
    "decimal128": (st.decimals(-(10**20), 10**20, places=6), typed(pa.decimal128(38, 6))),
    "decimal256": (st.decimals(-(10**20), 10**20, places=6), typed(pa.decimal256(60, 6))),
    "string": (TEXT, typed(pa.string())),
    "large_string": (TEXT, typed(pa.large_string())),
    "string_view": (TEXT | st.just("long enough to stand in a buffer"), typed(pa.string_view())),
    "factor": (
        st.sampled_from(["", "M", "F", "ünknown"]) | TEXT,
        lambda v: pa.array(v, pa.string()).dictionary_encode(),
    ),
    "date32": (ints(32), viewed(pa.date32(), pa.int32())),
    "date64": (st.integers(-(10**5), 10**5).map(lambda day: day * 86_400_000), viewed(pa.date64(), pa.int64())),
    "timestamp_s": (st.integers(-(2**42), 2**42), viewed(pa.timestamp("s", "UTC"), pa.int64())),
    **{
        f"timestamp_{unit}": (INT64, viewed(pa.timestamp(unit, zone), pa.int64()))
        for unit, zone in (("ms", None), ("us", "UTC"), ("ns", "Asia/Tokyo"))
    },
    "time32_s": (st.integers(0, 86_399), viewed(pa.time32("s"), pa.int32())),
    "time32_ms": (st.integers(0, 86_399_999), viewed(pa.time32("ms"), pa.int32())),
    "time64_us": (st.integers(0, 86_399_999_999), viewed(pa.time64("us"), pa.int64())),
    "time64_ns": (st.integers(0, 86_399_999_999_999), viewed(pa.time64("ns"), pa.int64())),
    **{f"duration_{unit}": (INT64, viewed(pa.duration(unit), pa.int64())) for unit in ("s", "ms", "us", "ns")},
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, list[pa.RecordBatch]]:
    """A table, and batches of the same rows: slices of longer arrays, some empty, factors with their own levels."""
    rows = draw(st.integers(1, 30))
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=6, unique=True))
    columns = {}
    for name in names:
        values, make = COLUMNS[name]
        columns[name] = make(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)))
    table = pa.table(columns)
    bounds = [0, *draw(st.lists(st.integers(0, rows), max_size=5).map(sorted)), rows]
    return table, [_batch(columns, a, b, table.schema) for a, b in pairwise(bounds)]


def _batch(columns: dict[str, pa.Array], start: int, end: int, schema: pa.Schema) -> pa.RecordBatch:
    parts = []
    for column in columns.values():
        if pa.types.is_dictionary(column.type):
            part = column.slice(start, end - start).cast(pa.string()).dictionary_encode()
        else:
            part = pa.concat_arrays([column.slice(0, 1), column, column.slice(0, 1)]).slice(1 + start, end - start)
        parts.append(part)
    return pa.RecordBatch.from_arrays(parts, schema=schema)


def exactly(table: pa.Table) -> list[list[Any]]:
    """Every value to the last bit, missing ones told apart, whatever container they are in."""
    return [_bits(table[name]).to_pylist() for name in table.column_names]


def _bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):
        whole = {16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[kind.bit_width]
        return pa.chunked_array([chunk.view(whole) for chunk in column.chunks], whole)
    if pa.types.is_temporal(kind):
        column = column.cast(StoredForm(pa.schema([("x", kind)])).schema.field("x").type)
        whole = pa.int32() if column.type.bit_width == 32 else pa.int64()
        return pa.chunked_array([chunk.view(whole) for chunk in column.chunks], whole)
    return column
