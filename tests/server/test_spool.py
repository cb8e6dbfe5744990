"""Tables on their way in: checked, counted, hashed and encoded from the disk, and nothing of them left afterwards."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datom_flight.identity import ParquetColumns, data_sha
from datom_flight.protocol.errors import DatomError
from datom_flight_server.versions.arrivals import Limits
from datom_flight_server.versions.spool import Spool
from support.random_tables import exactly, tables

ROOMY = Limits(max_bytes=2**40, max_rows=2**40, max_seconds=600)
TABLE = pa.table({"x": [1, 2, None], "y": ["a", None, "c"]})


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, ROOMY)


def left_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != "spool")


def read_back(spool: Spool, table: pa.Table) -> pa.Table:
    """`table` after its way through the spool and parquet, its hash and the file's checked on the way."""
    with spool.receive(table.schema, table.to_batches()) as spooled:
        found, encoded = spooled.identify()
        assert spooled.rows == table.num_rows
        data = encoded.path.read_bytes()
        assert encoded.parquet_sha == hashlib.sha256(data).hexdigest()
        assert encoded.size_bytes == len(data)
        back = pq.read_table(encoded.path)
        assert back.schema.equals(spooled.schema, check_metadata=True)
        assert found == data_sha(table) == data_sha(back) == data_sha(ParquetColumns(encoded.path))
    return back


def test_a_table_is_hashed_encoded_and_gone(spool: Spool, tmp_path: Path) -> None:
    assert read_back(spool, TABLE).equals(TABLE)
    assert left_in(tmp_path) == []


def test_the_parquet_is_stored_as_r_stores_it(spool: Spool) -> None:
    with spool.receive(TABLE.schema, TABLE.to_batches()) as spooled:
        metadata = pq.read_metadata(spooled.encode().path)
    assert b"ARROW:schema" in metadata.metadata
    column = metadata.row_group(0).column(1)
    assert (column.compression, column.is_stats_set, column.has_dictionary_page) == ("SNAPPY", True, True)


def test_rows_keep_their_order_over_many_small_and_large_batches(spool: Spool) -> None:
    numbers = pa.table({"n": pa.array(range(300_000)), "t": pa.array([str(n) for n in range(300_000)])})
    batches = [
        *numbers.slice(0, 500).to_batches(max_chunksize=1),
        pa.RecordBatch.from_pylist([], schema=numbers.schema),
        *numbers.slice(500, 200_000).to_batches(),
        *numbers.slice(200_500).to_batches(max_chunksize=9_999),
    ]
    with spool.receive(numbers.schema, batches) as spooled:
        sha, encoded = spooled.identify()
        kept = [batch.num_rows for batch in spooled.batches()]
        assert max(kept) <= 65_536
        assert len(kept) < 12
        assert pq.read_table(encoded.path).equals(numbers)
        assert sha == data_sha(numbers)


def test_row_groups_are_bounded_in_rows_and_bytes(spool: Spool) -> None:
    narrow = pa.record_batch({"n": pa.array([0] * 250_000, pa.int8())})
    with spool.receive(narrow.schema, [narrow] * 9) as spooled:
        metadata = pq.read_metadata(spooled.encode().path)
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sum(groups) == 2_250_000
    assert len(groups) == 3
    assert max(groups) <= 1_000_000
    wide = pa.record_batch({"t": pa.array(["x" * 1000] * 5_000)})
    with spool.receive(wide.schema, [wide] * 10) as spooled:
        metadata = pq.read_metadata(spooled.encode().path)
    assert metadata.num_row_groups == 4


# What comes back.


def dictionary(indices: Sequence[int | None], levels: Sequence[str | None], **kind: Any) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), pa.array(levels, pa.string()), **kind)


SAME = {
    "bool": pa.array([True, None, False]),
    **{str(kind): pa.array([1, None, 100], kind) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())},
    **{str(kind): pa.array([1, None, 200], kind) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
    "beyond a double": pa.array([2**53 + 1, None, -(2**63) + 1]),
    "unsigned beyond int64": pa.array([2**64 - 1, None, 3], pa.uint64()),
    **{str(kind): pa.array([1.5, None, -0.0]).cast(kind) for kind in (pa.float16(), pa.float32(), pa.float64())},
    "decimal128": pa.array([Decimal("1.25"), None, Decimal(-3)], pa.decimal128(38, 2)),
    "decimal256": pa.array([Decimal("1.25"), None, Decimal(-3)], pa.decimal256(76, 2)),
    "string": pa.array(["é中", None, ""]),
    "large_string": pa.array(["a", None, ""], pa.large_string()),
    "date32": pa.array([1, None, -5], pa.int32()).cast(pa.date32()),
    **{
        f"timestamp {unit} {zone}": pa.array([-1234567890123, None, 7], pa.int64()).view(pa.timestamp(unit, zone))
        for unit in ("ms", "us", "ns")
        for zone in (None, "UTC", "America/New_York")
    },
    "time32": pa.array([1, None, 86_399_999], pa.int32()).view(pa.time32("ms")),
    "time64 us": pa.array([1, None, 86_399_999_999], pa.int64()).view(pa.time64("us")),
    "time64 ns": pa.array([1, None, 86_399_999_999_999], pa.int64()).view(pa.time64("ns")),
    **{
        f"duration {unit}": pa.array([1, None, -86399], pa.int64()).view(pa.duration(unit))
        for unit in ("s", "ms", "us", "ns")
    },
}


@pytest.mark.parametrize("column", SAME.values(), ids=SAME)
def test_a_column_comes_back_as_it_was(spool: Spool, column: pa.Array) -> None:
    back = read_back(spool, pa.table({"x": column}))
    assert back["x"].type == column.type
    assert back["x"].combine_chunks().equals(column)


KIN = {
    "string_view": (pa.array(["a", None, "x" * 40], pa.string_view()), pa.string()),
    "date64": (pa.array([86_400_000, None, 0], pa.int64()).view(pa.date64()), pa.timestamp("ms")),
    "timestamp s": (pa.array([-5, None, 7], pa.int64()).view(pa.timestamp("s", "UTC")), pa.timestamp("ms", "UTC")),
    "time32 s": (pa.array([1, None, 86399], pa.int32()).view(pa.time32("s")), pa.time32("ms")),
    "decimal32": (pa.array([Decimal("1.25"), None], pa.decimal32(9, 2)), pa.decimal128(9, 2)),
    "decimal64": (pa.array([Decimal("1.25"), None], pa.decimal64(18, 2)), pa.decimal128(18, 2)),
}


@pytest.mark.parametrize(("column", "stored"), KIN.values(), ids=KIN)
def test_a_type_that_parquet_or_r_lacks_comes_back_as_its_kin(
    spool: Spool, column: pa.Array, stored: pa.DataType
) -> None:
    back = read_back(spool, pa.table({"x": column}))
    assert back["x"].type == stored
    assert back["x"].combine_chunks().equals(column.cast(stored))


@pytest.mark.parametrize("bits", [0x7FF8000000000000, 0x7FF8000000000123, 0xFFF8000000000000, 0x7FF00000000007A2])
def test_a_nan_keeps_its_payload(spool: Spool, bits: int) -> None:
    column = pa.array([bits, 1 << 63, None], pa.uint64()).view(pa.float64())
    back = read_back(spool, pa.table({"x": column}))
    assert back["x"].combine_chunks().view(pa.uint64()).to_pylist() == [bits, 1 << 63, None]


def test_metadata_of_the_schema_is_kept_but_not_what_says_where_it_was_read(spool: Spool) -> None:
    fields = [pa.field("x", pa.int64(), metadata={"label": "X", "PARQUET:field_id": "3", "ARROW:extension:name": "q"})]
    schema = pa.schema(fields, metadata={"r": "kept", "datom.version": "f" * 64, "datom.table": "dm"})
    back = read_back(spool, pa.table({"x": [1]}, schema=schema))
    assert back.schema.metadata == {b"r": b"kept"}
    assert back.schema.field("x").metadata[b"label"] == b"X"
    assert b"ARROW:extension:name" not in back.schema.field("x").metadata


# Factors.


def factor_back(spool: Spool, chunks: list[pa.Array]) -> pa.DictionaryArray:
    schema = pa.schema([("x", chunks[0].type)])
    with spool.receive(schema, [pa.record_batch([chunk], schema=schema) for chunk in chunks]) as spooled:
        sha, encoded = spooled.identify()
        back = pq.read_table(encoded.path).unify_dictionaries()["x"].combine_chunks()
        assert back.type.ordered == chunks[0].type.ordered
        plain = pa.chunked_array([chunk.cast(pa.string()) for chunk in chunks])
        assert sha == data_sha(pa.table({"x": plain}))
        assert back.cast(pa.string()).to_pylist() == plain.to_pylist()
    return back


@pytest.mark.parametrize("ordered", [False, True])
def test_a_factor_keeps_all_its_levels_also_unused_ones(spool: Spool, ordered: bool) -> None:
    back = factor_back(spool, [dictionary([2, None, 0], ["low", "unused", "high"], ordered=ordered)])
    assert back.dictionary.to_pylist() == ["low", "unused", "high"]
    assert back.indices.to_pylist() == [2, None, 0]


def test_batches_with_dictionaries_of_their_own_make_one_factor(spool: Spool) -> None:
    chunks = [
        dictionary([0, 1, None], ["b", "a"]),
        dictionary([0, 1], ["a", "b"]),
        dictionary([1, 0], ["c", "a"]),
        dictionary([], ["d"]),
        dictionary([0, 1], ["b", "a"]),
    ]
    assert factor_back(spool, chunks).dictionary.to_pylist() == ["b", "a", "c"]


def test_levels_that_are_missing_or_stand_twice_are_set_right(spool: Spool) -> None:
    back = factor_back(spool, [dictionary([0, 1, 2, 3, None], ["a", None, "a", "b"])])
    assert back.dictionary.to_pylist() == ["a", "b"]
    assert back.indices.to_pylist() == [0, None, 0, 1, None]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view()])
def test_levels_of_any_type_of_text_are_stored_as_text(spool: Spool, kind: pa.DataType) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([1, None], pa.uint64()), pa.array(["a", "é"], kind))
    with spool.receive(pa.schema([("x", column.type)]), [pa.record_batch({"x": column})]) as spooled:
        assert spooled.schema.field("x").type == pa.dictionary(pa.int32(), pa.string())
        assert spooled.data_sha() == data_sha(pa.table({"x": ["é", None]}))


def test_a_factor_with_more_levels_than_a_dictionary_page_keeps_them_all(spool: Spool) -> None:
    levels = [f"level number {n:08d}" for n in range(100_000)]
    indices = pa.array(range(50_000), pa.int32())
    column = pa.DictionaryArray.from_arrays(indices, pa.array(levels))
    assert factor_back(spool, [column, column]).dictionary.to_pylist() == levels


def test_more_levels_than_a_small_index_holds_may_come_together(spool: Spool) -> None:
    chunks = [dictionary([0, 1], [f"a{n}", f"b{n}"]) for n in range(200)]
    assert len(factor_back(spool, chunks).dictionary) == 400


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (["low", "high"], ["low", "high"], ["low", "high"]),
        (["low", "mid", "high"], ["low", "high"], ["low", "mid", "high"]),
        (["low", "mid"], ["low", "mid", "high"], ["low", "mid", "high"]),
        (["low", "high"], ["high", "low"], None),
        (["low", "high"], ["low", "mid", "high"], None),
        (["low", "high"], ["mid"], None),
    ],
)
def test_an_ordered_factor_has_one_order(
    spool: Spool, first: list[str], second: list[str], together: list[str] | None
) -> None:
    chunks = [dictionary([0], first, ordered=True), dictionary([0], second, ordered=True)]
    if together is not None:
        assert factor_back(spool, chunks).dictionary.to_pylist() == together
        return
    with pytest.raises(DatomError) as refused:
        factor_back(spool, chunks)
    assert refused.value.code == "invalid_argument"


# Refusals.


def never() -> Iterator[pa.RecordBatch]:
    pytest.fail("something was read")
    yield  # pragma: no cover


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        (pa.schema([]), "not_hashable"),
        (pa.schema([("x", pa.binary()), ("y", pa.list_(pa.int64()))]), "not_hashable"),
        (pa.schema([("x", pa.decimal128(10, -2))]), "not_hashable"),
        (pa.schema([("x", pa.int64()), ("x", pa.int64())]), "invalid_argument"),
        (pa.schema([("x\0", pa.int64())]), "invalid_argument"),
    ],
)
def test_a_schema_that_cannot_be_stored_is_refused_unread(
    spool: Spool, tmp_path: Path, schema: pa.Schema, code: str
) -> None:
    with pytest.raises(DatomError) as refused, spool.receive(schema, never()):
        pass
    assert refused.value.code == code
    assert left_in(tmp_path) == []


def refusal(spool: Spool, schema: pa.Schema, batches: Any) -> DatomError:
    with pytest.raises(DatomError) as refused, spool.receive(schema, batches) as spooled:
        spooled.identify()
    assert left_in(spool._directory) == []
    return refused.value


def test_a_table_without_rows_is_refused(spool: Spool) -> None:
    empty = pa.RecordBatch.from_pylist([], schema=TABLE.schema)
    for batches in ([], [empty], [empty, empty]):
        assert refusal(spool, TABLE.schema, batches).code == "not_hashable"


def test_a_nul_in_text_is_refused(spool: Spool) -> None:
    table = pa.table({"x": ["a\0b"], "y": pa.array(["c\0"]).dictionary_encode()})
    error = refusal(spool, table.schema, table.to_batches())
    assert error.code == "not_hashable"
    assert sorted(error.fields["columns"]) == ["x", "y"]


def test_a_batch_of_another_schema_is_refused(spool: Spool) -> None:
    other = pa.record_batch({"x": [1], "z": ["a"]})
    assert refusal(spool, TABLE.schema, [*TABLE.to_batches(), other]).code == "invalid_argument"


def test_malformed_batches_are_refused(spool: Spool) -> None:
    offsets = pa.array([0, 5, 1], pa.int32()).buffers()[1]
    crooked = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abcde")])
    no_text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")]
    )
    beyond = pa.DictionaryArray.from_arrays(pa.array([7], pa.int8()), pa.array(["a"]), safe=False)
    for column in (crooked, no_text, beyond):
        batch = pa.RecordBatch.from_arrays([column], names=["x"])
        assert refusal(spool, batch.schema, [batch]).code == "invalid_argument"


def test_missing_values_where_the_schema_has_none_are_refused(spool: Spool) -> None:
    schema = pa.schema([pa.field("x", pa.int64(), nullable=False)])
    batch = pa.RecordBatch.from_arrays([pa.array([1, None])], schema=schema)
    assert refusal(spool, schema, [batch]).code == "invalid_argument"


def test_an_instant_that_milliseconds_cannot_count_is_refused(spool: Spool) -> None:
    column = pa.array([2**60], pa.int64()).view(pa.timestamp("s"))
    batch = pa.record_batch({"when": column})
    error = refusal(spool, batch.schema, [batch])
    assert error.code == "invalid_argument"
    assert "when" in error.message


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (Limits(max_bytes=1000, max_rows=2**40, max_seconds=60), "writes.max_bytes"),
        (Limits(max_bytes=2**40, max_rows=299, max_seconds=60), "writes.max_rows"),
    ],
)
def test_each_limit_is_named(tmp_path: Path, limits: Limits, limit: str) -> None:
    batches = pa.table({"x": range(300)}).to_batches(max_chunksize=100)
    error = refusal(Spool(tmp_path, limits), batches[0].schema, batches)
    assert (error.code, error.fields["limit"]) == ("too_large", limit)
    read = iter(batches)
    refusal(Spool(tmp_path, Limits(8, 1, 60)), batches[0].schema, read)
    assert next(read) is batches[1]  # no more was taken than the first


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("late", ["arriving", "hashing", "encoding"])
def test_time_is_limited_from_the_first_batch_to_the_last_byte(tmp_path: Path, late: str) -> None:
    clock = Clock()
    spool = Spool(tmp_path, Limits(2**40, 2**40, max_seconds=10), clock)

    def slowly() -> Iterator[pa.RecordBatch]:
        for batch in TABLE.to_batches():
            clock.now += 11 if late == "arriving" else 1
            yield batch

    with ExitStack() as open_, pytest.raises(DatomError) as refused:  # noqa: PT012
        spooled = open_.enter_context(spool.receive(TABLE.schema, slowly()))
        clock.now += 11
        _ = spooled.data_sha() if late == "hashing" else spooled.encode()
    assert (refused.value.code, refused.value.fields["limit"]) == ("timeout", "writes.max_seconds")
    assert left_in(tmp_path) == []


def test_text_that_is_referred_to_many_times_counts_as_often(tmp_path: Path) -> None:
    text = b"x" * 1_000_000
    view = len(text).to_bytes(4, "little") + text[:4] + bytes(8)
    rows = 5000
    bomb = pa.Array.from_buffers(pa.string_view(), rows, [None, pa.py_buffer(view * rows), pa.py_buffer(text)])
    bomb.validate(full=True)
    batch = pa.RecordBatch.from_arrays([bomb], names=["x"])
    error = refusal(Spool(tmp_path, Limits(10**8, 10**6, 60)), batch.schema, [batch])
    assert (error.code, error.fields["limit"]) == ("too_large", "writes.max_bytes")


def test_a_single_row_has_a_limit_of_its_own(spool: Spool) -> None:
    huge = pa.record_batch({"x": pa.array(["x" * (256 * 1024 * 1024 + 1)])})
    assert refusal(spool, huge.schema, [huge]).fields["limit"] == "row_bytes"


def test_levels_have_a_limit_of_their_own(spool: Spool) -> None:
    level = "x" * (1024 * 1024)
    chunks = [dictionary([0], [f"{n}{level}"]) for n in range(65)]
    error = refusal(spool, pa.schema([("x", chunks[0].type)]), [pa.record_batch({"x": chunk}) for chunk in chunks])
    assert error.fields["limit"] == "levels"


def test_what_the_caller_raises_passes_unchanged_and_nothing_is_left(spool: Spool, tmp_path: Path) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from TABLE.to_batches()
        raise OSError("the client vanished")

    with pytest.raises(OSError, match="vanished"), spool.receive(TABLE.schema, broken()):
        pass
    assert left_in(tmp_path) == []
    with pytest.raises(OSError, match="storage"), spool.receive(TABLE.schema, TABLE.to_batches()):
        raise OSError("the storage is down")
    assert left_in(tmp_path) == []


# Files.


def in_another_process(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


HOLDING = """
    import pathlib, sys
    import pyarrow as pa
    from datom_flight_server.versions.arrivals import Limits
    from datom_flight_server.versions.spool import Spool
    table = pa.table({"x": [1]})
    spool = Spool(pathlib.Path(sys.argv[1]), Limits(10**9, 10**9, 60))
    with spool.receive(table.schema, table.to_batches()) as spooled:
        spooled.encode()
        print("held", flush=True)
        sys.stdin.readline()
        print(spooled.data_sha(), flush=True)
"""


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    with in_another_process(HOLDING, str(tmp_path)) as killed, in_another_process(HOLDING, str(tmp_path)) as living:
        try:
            for process in (killed, living):
                assert process.stdout is not None
                assert process.stdout.readline() == "held\n"
            killed.kill()
            killed.wait(30)
            assert len(left_in(tmp_path / "spool")) == 6  # a folder and two files each
            spool = Spool(tmp_path, ROOMY)
            assert len(left_in(tmp_path / "spool")) == 3
            read_back(spool, TABLE)
            out, _ = living.communicate("\n", timeout=30)
            assert out.strip() == data_sha(pa.table({"x": [1]}))
            assert left_in(tmp_path) == []
        finally:
            killed.kill()
            living.kill()


FILLING = """
    import pathlib, resource, sys
    import pyarrow as pa
    from datom_flight.protocol.errors import DatomError
    from datom_flight_server.versions.arrivals import Limits
    from datom_flight_server.versions.spool import Spool
    when, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    spool = Spool(folder, Limits(10**9, 10**9, 60))
    table = pa.table({"x": range(1_000_000)})
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    try:
        if when == "arriving":
            full()
        with spool.receive(table.schema, table.to_batches()) as spooled:
            full()
            spooled.identify()
    except DatomError as error:
        print(error.code, error.message, str(folder) in str(error), list((folder / "spool").iterdir()), sep="|")
"""


@pytest.mark.parametrize("when", ["arriving", "encoding"])
def test_a_disk_that_is_full_refuses_and_leaves_nothing(tmp_path: Path, when: str) -> None:
    # a limit on the size of files fails the same calls as a full disk does
    with in_another_process(FILLING, when, str(tmp_path)) as process:
        out, _ = process.communicate(timeout=60)
    assert out.strip() == "overloaded|the server's disk is full|False|[]"


def test_files_are_for_the_server_alone(spool: Spool, tmp_path: Path) -> None:
    with spool.receive(TABLE.schema, TABLE.to_batches()):
        for folder in (tmp_path / "spool", *(tmp_path / "spool").iterdir()):
            assert folder.stat().st_mode & 0o077 == 0


# Any table at all.


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(), st.data())
def test_any_table_has_one_identity_and_comes_back_exactly(
    spool: Spool, tmp_path: Path, drawn: tuple[pa.Table, list[pa.RecordBatch]], data: st.DataObject
) -> None:
    table, batches = drawn
    expected = data_sha(table)
    with spool.receive(table.schema, batches) as spooled:
        sha, encoded = spooled.identify()
        back = pq.read_table(encoded.path)
        assert sha == expected
        assert back.schema == spooled.schema
        assert exactly(back) == exactly(table)
        assert data_sha(back) == data_sha(ParquetColumns(encoded.path)) == expected
        other = tmp_path / "other.parquet"
        pq.write_table(
            back,
            other,
            compression=data.draw(st.sampled_from(["none", "zstd", "gzip"])),
            use_dictionary=data.draw(st.booleans()),
            row_group_size=data.draw(st.integers(1, 40)),
            data_page_version=data.draw(st.sampled_from(["1.0", "2.0"])),
            write_statistics=data.draw(st.booleans()),
        )
        assert data_sha(ParquetColumns(other)) == expected
