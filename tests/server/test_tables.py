"""The rows of a stored version, as they are streamed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
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
from datom_flight_server.versions.pieces import MAX_BATCH_BYTES
from datom_flight_server.versions.tables import Selection, StoredTable

DATA_SHA = "ab" * 32
MIB = 1024 * 1024


def stored(folder: Path, table: pa.Table, memory_bytes: int = 256 * MIB, **options: Any) -> StoredTable:
    """`table` as a verified payload of the cache in `folder`."""
    return opener(folder, table, memory_bytes, **options)()


def opener(folder: Path, table: pa.Table, memory_bytes: int = 256 * MIB, **options: Any) -> Callable[[], StoredTable]:
    """What opens `table` as a verified payload of the cache in `folder`."""
    payload = folder / "store" / "datom" / "t" / f"{DATA_SHA}.parquet"
    payload.parent.mkdir(parents=True)
    pq.write_table(table, payload, **options)
    sha = hashlib.sha256(payload.read_bytes()).hexdigest()
    found = TableVersion("P", "t", Kind.TABLE, "cd" * 32, DATA_SHA, sha)
    payloads = Payloads(folder / "cache", 10**9, memory_bytes)
    return lambda: StoredTable.open(payloads, LocalStore(folder / "store"), found)


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


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"dictionary_pagesize_limit": 1000}])
def test_texts_come_back_however_they_are_stored(tmp_path: Path, options: dict[str, Any]) -> None:
    count = 20_000
    few = ["ALT", None, "", "ä€😀", "NA"]
    texts = pa.table(
        {
            "few": pa.array([few[n % 5] for n in range(count)], pa.string()),
            "many": [f"{n * 7919} {'x' * (n % 90)}" for n in range(count)],
            "none": pa.nulls(count, pa.string()),
            "a.b": [f"site {n % 3}" for n in range(count)],
            "a": [{"b": f"arm {n % 4}"} for n in range(count)],
            "large": pa.array([few[n % 4] for n in range(count)], pa.large_string()),
            "factor": pa.array([few[n % 5] for n in range(count)]).dictionary_encode(),
        },
    )
    fields = [field.with_metadata({"label": field.name}) for field in texts.schema]
    texts = texts.cast(pa.schema(fields, metadata={"study": "1"}))
    with stored(tmp_path, texts, row_group_size=7_000, **options) as table:
        found = rows_of(table)
        assert found.schema.equals(table.schema, check_metadata=True)
        assert found.cast(texts.schema).equals(texts)
        for name in texts.column_names:
            assert rows_of(table, columns=(name,))[name].to_pylist() == texts[name].to_pylist()


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


def test_of_row_groups_without_a_match_only_the_predicates_columns_are_decoded(
    tmp_path: Path, numbers: pa.Table
) -> None:
    with stored(tmp_path, numbers, row_group_size=1000) as table:
        found = rows_of(table, predicate=pc.field("n").isin([1, 5_501]), predicate_columns=("n",))
        whole = [group for group in range(10) if table._parquet.has(group, numbers.column_names)]
    assert found["text"].to_pylist() == ["row 1", "row 5501"]
    assert whole == [0, 5]


@pytest.mark.parametrize("memory_bytes", [1, 256 * MIB])
def test_a_predicate_gives_the_same_rows_wherever_they_come_from(
    tmp_path: Path, numbers: pa.Table, memory_bytes: int
) -> None:
    with stored(tmp_path, numbers, memory_bytes, row_group_size=3000) as table:
        for predicate in (
            pc.field("n").isin(list(range(3, 10_000, 7))),
            pc.field("n") >= 0,
            pc.field("n") < 0,
            pc.field("n") < 4000,
        ):
            chosen = {"predicate": predicate, "predicate_columns": ("n",)}
            for _ in range(2):
                assert rows_of(table, **chosen).equals(numbers.filter(predicate))
                assert rows_of(table, columns=("text",), limit=10, **chosen).equals(
                    numbers.filter(predicate).select(["text"]).slice(0, 10)
                )
        assert rows_of(table, predicate=pc.scalar(True)).equals(numbers)
        assert rows_of(table, predicate=pc.scalar(False)).num_rows == 0


def test_the_ranges_of_a_large_table_are_its_rows_in_file_order(tmp_path: Path) -> None:
    large = pa.table({"n": pa.array(range(3_500_000), pa.int32())})
    with stored(tmp_path, large, row_group_size=500_000) as table:
        ranges = table.ranges(Selection())
        assert ranges == [(0, 2), (2, 4), (4, 6), (6, 7)]
        parts = [rows_of(table, row_groups=row_groups) for row_groups in ranges]
        assert pa.concat_tables(parts).equals(large)
        assert table.ranges(Selection(limit=10)) == [(0, 7)]


def test_ranges_in_which_no_row_can_match_are_left_out(tmp_path: Path) -> None:
    large = pa.table({"n": pa.array(range(3_500_000), pa.int32())})
    with stored(tmp_path, large, row_group_size=500_000) as table:
        for wanted, ranges in (
            (pc.field("n") == 1_200_000, [(2, 4)]),
            (pc.field("n") >= 2_900_000, [(4, 6), (6, 7)]),
            (pc.field("n") < 0, [(0, 2)]),
        ):
            assert table.ranges(Selection(predicate=wanted, predicate_columns=("n",), pruning=wanted)) == ranges


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


def test_what_was_read_once_is_read_again_from_memory(tmp_path: Path, numbers: pa.Table) -> None:
    opened = opener(tmp_path, numbers, row_group_size=999)
    with opened() as table:
        assert rows_of(table).equals(numbers)
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "store")
    with opened() as table:
        assert rows_of(table).equals(numbers)
        assert rows_of(table, columns=("text",)).equals(numbers.select(["text"]))
        assert rows_of(table, limit=1500).equals(numbers.slice(0, 1500))
        found = rows_of(table, columns=("text",), predicate=pc.field("n") == 5_500, predicate_columns=("n",))
        assert found.to_pydict() == {"text": ["row 5500"]}
        assert table.schema.names == numbers.column_names
        assert table.size_bytes > 0


def test_memory_without_room_for_a_table_gives_the_same_rows(tmp_path: Path, numbers: pa.Table) -> None:
    with stored(tmp_path, numbers, memory_bytes=1, row_group_size=999) as table:
        for _ in range(2):
            assert rows_of(table).equals(numbers)


def test_a_table_that_decodes_to_far_more_than_its_first_rows_promise_comes_whole(tmp_path: Path) -> None:
    longer = "x" * 20_000
    texts = ["short"] * 2_000 + [longer] * 20_000
    with stored(tmp_path, pa.table({"text": texts}), memory_bytes=MIB) as table:
        rows = characters = 0
        for batch in table.batches(Selection()):
            rows += batch.num_rows
            characters += pc.sum(pc.utf8_length(batch.column("text"))).as_py()
            assert batch.num_rows == 1 or pa.ipc.get_record_batch_size(batch) <= MAX_BATCH_BYTES
    assert (rows, characters) == (22_000, 2_000 * 5 + 20_000 * 20_000)


def test_rows_on_their_way_still_come_when_the_table_is_closed(tmp_path: Path, numbers: pa.Table) -> None:
    with stored(tmp_path, numbers, row_group_size=999) as table:
        batches = table.batches(Selection())
        first = next(batches)
    assert pa.Table.from_batches([first, *batches]).equals(numbers)


def test_batches_of_a_run_share_their_dictionaries_and_are_neither_small_nor_large(tmp_path: Path) -> None:
    levels = pa.array([f"level {number}" for number in range(1_000)])
    codes = pa.array([number % 1_000 for number in range(3_000_000)], pa.int32())
    factor = pa.table({"f": pa.DictionaryArray.from_arrays(codes, levels), "n": codes})
    with stored(tmp_path, factor) as table:
        runs = list(table.runs(Selection()))
        assert rows_of(table).equals(factor)
    for run in runs:
        assert len({batch.column(0).dictionary.buffers()[2].address for batch in run}) == 1
    sizes = [pa.ipc.get_record_batch_size(batch) for run in runs for batch in run]
    assert max(sizes) <= MAX_BATCH_BYTES
    assert sum(size < MIB for size in sizes) <= 1, "the last one may be"
