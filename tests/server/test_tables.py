"""The rows of a stored version, as they are streamed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.model import Kind, TableVersion
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.payloads import Payloads
from datom_flight_server.versions.tables import MAX_BATCH_BYTES, Selection, StoredTable

DATA_SHA = "ab" * 32


def stored(folder: Path, table: pa.Table, **options: Any) -> StoredTable:
    """`table` as a verified payload of the cache in `folder`."""
    payload = folder / "store" / "datom" / "t" / f"{DATA_SHA}.parquet"
    payload.parent.mkdir(parents=True)
    pq.write_table(table, payload, **options)
    sha = hashlib.sha256(payload.read_bytes()).hexdigest()
    found = TableVersion("P", "t", Kind.TABLE, "cd" * 32, DATA_SHA, sha)
    return StoredTable.open(Payloads(folder / "cache", 10**9), LocalStore(folder / "store"), found)


def rows_of(table: StoredTable, **selection: Any) -> pa.Table:
    chosen = Selection(**selection)
    return pa.Table.from_batches(table.batches(chosen), schema=table.schema_of(chosen.columns))


@pytest.fixture
def numbers() -> pa.Table:
    return pa.table({"n": pa.array(range(10_000), pa.int32()), "text": [f"row {n}" for n in range(10_000)]})


def test_the_schema_says_what_the_rows_are(tmp_path: Path, numbers: pa.Table) -> None:
    with stored(tmp_path, numbers.replace_schema_metadata({"r": "attributes"})) as table:
        assert table.schema.metadata == {
            b"r": b"attributes",
            b"datom.project": b"P",
            b"datom.table": b"t",
            b"datom.version": b"cd" * 32,
            b"datom.data_sha": DATA_SHA.encode(),
        }
        assert all(batch.schema.equals(table.schema, check_metadata=True) for batch in table.batches(Selection()))


def test_all_rows_come_in_file_order_across_row_groups(tmp_path: Path, numbers: pa.Table) -> None:
    with stored(tmp_path, numbers, row_group_size=999) as table:
        assert rows_of(table).equals(numbers)


def test_columns_come_in_the_order_asked_for(tmp_path: Path, numbers: pa.Table) -> None:
    with stored(tmp_path, numbers) as table:
        assert rows_of(table, columns=("text", "n")).equals(numbers.select(["text", "n"]))


def test_columns_whose_names_hold_dots_are_told_apart(tmp_path: Path) -> None:
    odd = pa.table({"Sepal": [1], "Sepal.Length": [2], "a.b.c": [3], "a": [{"b": 4}]})
    with stored(tmp_path, odd) as table:
        for name in odd.column_names:
            assert rows_of(table, columns=(name,)).equals(odd.select([name]))


def test_a_limit_takes_the_first_rows(tmp_path: Path, numbers: pa.Table) -> None:
    with stored(tmp_path, numbers, row_group_size=999) as table:
        for limit in (0, 1, 999, 1000, 9_999, 10_000, 20_000):
            assert rows_of(table, limit=limit).equals(numbers.slice(0, limit))


def test_a_predicate_may_read_columns_that_are_not_sent(tmp_path: Path, numbers: pa.Table) -> None:
    with stored(tmp_path, numbers, row_group_size=999) as table:
        found = rows_of(table, columns=("text",), predicate=pc.field("n") >= 9_990, predicate_columns=("n",), limit=3)
    assert found.to_pydict() == {"text": ["row 9990", "row 9991", "row 9992"]}


def test_row_groups_that_cannot_match_are_not_read(tmp_path: Path, numbers: pa.Table) -> None:
    with stored(tmp_path, numbers, row_group_size=1000) as table:
        wanted = pc.field("n") == 5_500
        assert table._row_groups(Selection(predicate=wanted, predicate_columns=("n",), pruning=wanted)) == [5]
        found = rows_of(table, predicate=wanted, predicate_columns=("n",), pruning=wanted)
        assert found["n"].to_pylist() == [5_500]


def test_the_ranges_of_a_large_table_are_its_rows_in_file_order(tmp_path: Path) -> None:
    large = pa.table({"n": pa.array(range(3_500_000), pa.int32())})
    with stored(tmp_path, large, row_group_size=500_000) as table:
        ranges = table.ranges(Selection())
        assert ranges == [(0, 2), (2, 4), (4, 6), (6, 7)]
        parts = [rows_of(table, row_groups=row_groups) for row_groups in ranges]
        assert pa.concat_tables(parts).equals(large)
        assert table.ranges(Selection(limit=10)) == [(0, 7)]


def test_row_groups_beyond_the_file_are_refused(tmp_path: Path, numbers: pa.Table) -> None:
    with stored(tmp_path, numbers) as table, pytest.raises(DatomError) as refused:
        rows_of(table, row_groups=(0, 2))
    assert refused.value.code == "invalid_argument"


def test_no_batch_of_more_than_one_row_is_over_the_limit(tmp_path: Path) -> None:
    texts = ["x" * 10] * 2_000 + ["y" * 1_500_000] * 8 + ["z" * 5_000_000, "end"]
    wide = pa.table({"text": texts})
    with stored(tmp_path, wide) as table:
        batches = list(table.batches(Selection()))
    assert pa.Table.from_batches(batches).column("text").to_pylist() == texts
    over = [batch for batch in batches if pa.ipc.get_record_batch_size(batch) > MAX_BATCH_BYTES]
    assert [batch.num_rows for batch in over] == [1]


def test_a_factor_stays_a_dictionary_with_all_its_levels(tmp_path: Path) -> None:
    levels = pa.array(["low", "mid", "high", "never"])
    factor = pa.DictionaryArray.from_arrays(pa.array([2, None, 0, 2], pa.int32()), levels, ordered=True)
    with stored(tmp_path, pa.table({"f": factor})) as table:
        (batch,) = table.batches(Selection())
    assert batch.column(0).equals(factor)


def test_a_table_of_many_columns_streams_in_bounded_batches(tmp_path: Path) -> None:
    wide = pa.table({f"c{index}": pa.array(range(3_000), pa.float64()) for index in range(1_000)})
    with stored(tmp_path, wide) as table:
        batches = list(table.batches(Selection()))
        assert rows_of(table).equals(wide)
    assert max(pa.ipc.get_record_batch_size(batch) for batch in batches) <= MAX_BATCH_BYTES


def test_a_table_without_rows_has_its_schema_and_one_range(tmp_path: Path, numbers: pa.Table) -> None:
    with stored(tmp_path, numbers.slice(0, 0)) as table:
        assert table.num_rows == 0
        assert len(table.ranges(Selection())) == 1
        assert rows_of(table).equals(numbers.slice(0, 0))


@pytest.mark.parametrize("columns", [("n", "missing"), ("n", "n"), ("N",)])
def test_a_column_that_is_not_there_or_stands_twice_is_refused_by_name(
    tmp_path: Path, numbers: pa.Table, columns: tuple[str, ...]
) -> None:
    with stored(tmp_path, numbers) as table, pytest.raises(DatomError) as refused:
        table.schema_of(columns)
    assert refused.value.code == "invalid_argument"
    assert f'"{columns[-1]}"' in refused.value.message


def test_what_is_not_parquet_is_unreadable_and_says_no_path(tmp_path: Path) -> None:
    payload = tmp_path / "store" / "datom" / "t" / f"{DATA_SHA}.parquet"
    payload.parent.mkdir(parents=True)
    payload.write_bytes(b"not parquet at all")
    found = TableVersion("P", "t", Kind.TABLE, "cd" * 32, DATA_SHA, None)
    with pytest.raises(DatomError) as refused:
        StoredTable.open(Payloads(tmp_path / "cache", 10**9), LocalStore(tmp_path / "store"), found)
    assert refused.value.code == "document_unreadable"
    assert str(tmp_path) not in str(refused.value)
