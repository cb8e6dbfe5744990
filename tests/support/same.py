"""Tables that hold the same: types, order, and every value to the last bit."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

_BITS = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def assert_same(actual: pa.Table, expected: pa.Table) -> None:
    """Fail unless `actual` has the columns of `expected`, of the same types and with the same values.

    Doubles are compared by their bits; factors by their texts and whether they are ordered, and, where all of a
    column's chunks agree on them, by their levels.
    """
    assert actual.schema.names == expected.schema.names
    assert actual.num_rows == expected.num_rows
    for name in expected.schema.names:
        here, there = actual.column(name), expected.column(name)
        assert here.type == there.type, f'"{name}"'
        if pa.types.is_dictionary(there.type):
            _assert_same_factor(here, there, name)
        else:
            assert _bits(here) == _bits(there), f'"{name}"'


def _assert_same_factor(here: pa.ChunkedArray, there: pa.ChunkedArray, name: str) -> None:
    assert here.cast(here.type.value_type).equals(there.cast(there.type.value_type)), f'"{name}"'
    sent = _levels(there.iterchunks())
    if len(sent) == 1:
        assert _levels(here.iterchunks()) == sent, f'"{name}"'


def _levels(chunks: Iterable[pa.DictionaryArray]) -> set[tuple[str | None, ...]]:
    return {tuple(chunk.dictionary.to_pylist()) for chunk in chunks if len(chunk)}


def _bits(column: pa.ChunkedArray) -> list[object]:
    values = column.combine_chunks()
    if pa.types.is_floating(values.type):
        values = values.view(_BITS[values.type.bit_width])
    elif pa.types.is_temporal(values.type):
        values = pc.cast(values, pa.int32() if values.type.bit_width == 32 else pa.int64())
    found: list[object] = values.to_pylist()
    return found
