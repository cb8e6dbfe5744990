"""Decoded rows are measured once, and cut without copying."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from datom_flight_server.versions.pieces import MAX_BATCH_BYTES, Piece, cut


def wide(columns: int, rows: int) -> pa.RecordBatch:
    return pa.record_batch({f"c{number}": pa.array(np.arange(rows, dtype=float)) for number in range(columns)})


@pytest.mark.parametrize(("columns", "rows"), [(1, 2_000_000), (10, 150_000), (2_000, 900), (20_000, 90)])
def test_batches_are_neither_over_the_limit_nor_much_below_it(columns: int, rows: int) -> None:
    whole = wide(columns, rows)
    batches = list(cut(whole))
    assert pa.Table.from_batches(batches).combine_chunks().to_batches() == [whole]
    sizes = [pa.ipc.get_record_batch_size(batch) for batch in batches]
    assert max(sizes) <= MAX_BATCH_BYTES
    assert min(sizes) > MAX_BATCH_BYTES / 3


def test_a_piece_gives_its_rows_as_they_are_cut_without_copying_any() -> None:
    rows = wide(10, 150_000)
    piece = Piece.of(rows)
    assert piece.run() == list(cut(rows))
    addresses = {batch.column(3).buffers()[1].address for batch in piece.run()}
    assert addresses == {rows.column(3).buffers()[1].address}


def test_a_mask_is_true_where_the_predicate_is_and_not_where_it_is_missing() -> None:
    rows = pa.record_batch({"n": pa.array([1, None, 3]), "other": ["a", "b", "c"]})
    mask = Piece.of(rows).mask(pc.field("n") > 1, ["n"])
    assert mask.to_pylist() == [False, None, True]
    assert rows.filter(mask).to_pydict() == {"n": [3], "other": ["c"]}
    assert Piece.of(rows).mask(pc.scalar(True), []).to_pylist() == [True] * 3
