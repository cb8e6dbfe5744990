"""datom-cv1 against R's own hashes, a slow second implementation, and every container the same values can have."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datom_flight.identity import ParquetColumns, check_hashable, data_sha
from datom_flight.protocol.errors import DatomError
from support.expected import FIXTURES, STORES, UNITS_PER_SECOND

GOLDEN = json.loads((FIXTURES / "golden-cv1.json").read_text())["cv1"]

NOT_IN_ARROW = {
    "i64-small": "R reads an Arrow int64 that fits 32 bits as an integer, so it has the hash of int-small",
    "drtn-mins": "Arrow durations count seconds or parts of them, never minutes",
    "drtn-hours": "Arrow durations count seconds or parts of them, never hours",
    "drtn-weeks": "Arrow durations count seconds or parts of them, never weeks",
    "drtn-nan": "an Arrow duration is a whole number, so never NaN or infinite",
    "date-inf": "an Arrow date is a whole number, so never NaN or infinite",
    "time-nan": "an Arrow timestamp is a whole number, so never NaN or infinite",
}

MISSING = struct.pack("<Q", 0x7FF00000000007A2)


def bits_of(text: str) -> int | None:
    """The bits of a double in the golden file's notation; None is missing."""
    if text == "NA":
        return None
    if text.startswith("bits:"):
        return int(text[5:], 16)
    number = float(text) if text in ("NaN", "Inf", "-Inf") else float.fromhex(text)
    return int(struct.unpack("<Q", struct.pack("<d", number))[0])


def doubles(bits: list[int | None]) -> pa.Array:
    return pa.array(bits, pa.uint64()).view(pa.float64())


def whole_units(texts: list[str], make: Any) -> pa.Array:
    """Seconds in the golden file's notation as whole numbers of the coarsest unit that holds all of them."""
    seconds = [None if text == "NA" else float.fromhex(text) for text in texts]
    for unit, count in UNITS_PER_SECOND.items():
        numbers = [None if value is None else round(value * count) for value in seconds]
        if all(n is None or n / count == value for n, value in zip(numbers, seconds, strict=True)):
            return pa.array(numbers, pa.int64()).cast(make(unit))
    raise ValueError(f"{texts} are not whole nanoseconds")


def arrow_column(column: dict[str, Any]) -> pa.Array:
    match column["rtype"]:
        case "double":
            return doubles([bits_of(text) for text in column["hex"]])
        case "integer":
            return pa.array(column["values"], pa.int32())
        case "logical":
            return pa.array(column["values"], pa.bool_())
        case "character":
            return pa.array(column["values"], pa.string())
        case "integer64":
            numbers = [None if value is None else int(value) for value in column["values"]]
            assert any(abs(number or 0) >= 2**31 for number in numbers)
            return pa.array(numbers, pa.int64())
        case "factor" | "ordered":
            codes = pa.array([None if code is None else code - 1 for code in column["codes"]], pa.int8())
            return pa.DictionaryArray.from_arrays(codes, pa.array(column["levels"], pa.string()))
        case "Date":
            return pa.array([None if d == "NA" else int(float.fromhex(d)) for d in column["days"]], pa.date32())
        case "POSIXct":
            return whole_units(column["epoch_secs"], lambda unit: pa.timestamp(unit, column["tzone"]))
        case "difftime" | "hms" | "ITime":
            assert column["units"] == "secs"
            return whole_units(column["values"], pa.duration)
    raise ValueError(column["rtype"])


def vector_table(vector: dict[str, Any]) -> pa.Table:
    columns = vector["columns"]
    return pa.table([arrow_column(column) for column in columns], names=[column["name"] for column in columns])


@pytest.mark.parametrize(
    "vector", [vector for vector in GOLDEN if vector["id"] not in NOT_IN_ARROW], ids=lambda vector: vector["id"]
)
def test_a_golden_vector_has_the_hash_that_r_gave_it(vector: dict[str, Any], tmp_path: Path) -> None:
    table = vector_table(vector)
    assert data_sha(table) == vector["data_sha"]
    if len(set(table.column_names)) == len(table.column_names):
        pq.write_table(table, tmp_path / "table.parquet")
        assert data_sha(ParquetColumns(tmp_path / "table.parquet")) == vector["data_sha"]


@pytest.mark.parametrize("name", NOT_IN_ARROW)
def test_a_golden_vector_that_is_left_out_has_no_arrow_form(name: str) -> None:
    vector = next(vector for vector in GOLDEN if vector["id"] == name)
    with pytest.raises((ValueError, AssertionError, OverflowError)):
        vector_table(vector)


def fixture_versions() -> Iterator[Any]:
    for store in STORES:
        for name, artifact in store.index.items():
            for version, facts in artifact["versions"].items():
                if artifact["kind"] == "table" and version != "current":
                    path = store.data / name / f"{facts['data_sha']}.parquet"
                    yield pytest.param(path, facts, id=f"{store.name}-{name}-{version[:8]}")


@pytest.mark.parametrize(("path", "facts"), list(fixture_versions()))
def test_a_stored_table_has_its_recorded_hash_where_r_gets_it_back_too(path: Path, facts: dict[str, Any]) -> None:
    recomputed = data_sha(pq.read_table(path))
    assert data_sha(ParquetColumns(path)) == recomputed
    assert (recomputed == facts["data_sha"]) == facts["roundtrip_data_sha_equal"]


# A second implementation, value by value.


def reference_column(name: str, values: list[Any]) -> str:
    if any(isinstance(value, str) for value in values):
        flags = bytes(value is None for value in values)
        payload = b"chr" + name.encode() + b"\0" + flags + b"".join((v or "").encode() + b"\0" for v in values)
    elif any(isinstance(value, int) and abs(value) > 2**31 - 1 for value in values):
        words = (-(2**63) if value is None else value for value in values)
        payload = b"i64" + name.encode() + b"\0" + b"".join(struct.pack("<q", word) for word in words)
    else:
        payload = b"num" + name.encode() + b"\0" + b"".join(map(reference_double, values))
    return hashlib.sha256(payload).hexdigest()


def reference_double(value: float | None) -> bytes:
    if value is None:
        return MISSING
    if value != value:
        return struct.pack("<Q", 0x7FF8000000000000)
    return struct.pack("<d", float(value) + 0.0)


def reference(columns: dict[str, list[Any]]) -> str:
    rows = len(next(iter(columns.values())))
    digests = "".join(reference_column(name, values) for name, values in columns.items())
    return hashlib.sha256(b"datom-cv1" + struct.pack("<dd", rows, len(columns)) + digests.encode()).hexdigest()


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)


@st.composite
def columns_and_cuts(draw: st.DrawFn) -> tuple[dict[str, list[Any]], list[int]]:
    rows = draw(st.integers(1, 40))
    values: dict[str, list[Any]] = {
        "text": draw(st.lists(st.none() | TEXT, min_size=rows, max_size=rows)),
        "few": draw(st.lists(st.sampled_from([None, "", "M", "F", "ünknown"]), min_size=rows, max_size=rows)),
        "real": draw(st.lists(st.none() | st.floats(), min_size=rows, max_size=rows)),
        "wide": draw(st.lists(st.none() | st.integers(-(2**63) + 1, 2**63 - 1), min_size=rows, max_size=rows)),
        "narrow": draw(st.lists(st.none() | st.integers(-(2**31) + 1, 2**31 - 1), min_size=rows, max_size=rows)),
    }
    values["text"][0] = values["few"][0] = "x"  # else the reference takes an all-missing text for numbers
    cuts = draw(st.lists(st.integers(0, rows), max_size=6).map(sorted))
    return values, cuts


TYPES = {
    "text": pa.string(),
    "few": pa.string(),
    "real": pa.float64(),
    "wide": pa.int64(),
    "narrow": pa.int64(),
}


def rechunked(array: pa.Array, cuts: list[int]) -> pa.ChunkedArray:
    """The same values as slices of a longer array, cut at `cuts`; equal cuts make empty chunks."""
    padding = array.slice(0, 1)
    longer = pa.concat_arrays([padding, array, padding])
    bounds = [0, *cuts, len(array)]
    return pa.chunked_array([longer.slice(1 + a, b - a) for a, b in pairwise(bounds)])


@settings(max_examples=150, deadline=None)
@given(columns_and_cuts())
def test_identity_depends_on_values_alone_and_not_on_how_they_are_held(
    drawn: tuple[dict[str, list[Any]], list[int]],
) -> None:
    values, cuts = drawn
    expected = reference(values)
    plain = {name: pa.array(column, TYPES[name]) for name, column in values.items()}
    assert data_sha(pa.table(plain)) == expected
    assert data_sha(pa.RecordBatch.from_pydict(plain)) == expected

    chunked = {name: rechunked(array, cuts) for name, array in plain.items()}
    assert data_sha(pa.table(chunked)) == expected

    for text_type in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        other = dict(chunked)
        for name in ("text", "few"):
            array = plain[name].dictionary_encode() if pa.types.is_dictionary(text_type) else plain[name]
            other[name] = rechunked(array.cast(text_type), cuts)
        other["narrow"] = chunked["narrow"].cast(pa.int32())
        assert data_sha(pa.table(other)) == expected


@settings(max_examples=50, deadline=None)
@given(columns_and_cuts(), st.sampled_from(["text", "few", "real", "wide", "narrow"]), st.data())
def test_identity_changes_with_any_value(
    drawn: tuple[dict[str, list[Any]], list[int]], name: str, data: st.DataObject
) -> None:
    values, _ = drawn
    before = data_sha(pa.table({n: pa.array(column, TYPES[n]) for n, column in values.items()}))
    row = data.draw(st.integers(0, len(values[name]) - 1))
    values[name][row] = (
        None if values[name][row] is not None else {"text": "y", "few": "y"}.get(name, 7 if name != "real" else 7.5)
    )
    assert data_sha(pa.table({n: pa.array(column, TYPES[n]) for n, column in values.items()})) != before


def test_more_rows_than_one_piece_hash_as_one_column() -> None:
    rows = 100_000
    values: dict[str, list[Any]] = {
        "USUBJID": [f"STUDY-{i % 977:04d}" for i in range(rows)],
        "LBORRES": [None if i % 7 == 0 else str(i / 10) for i in range(rows)],
        "LBSTRESN": [None if i % 7 == 0 else i / 10 for i in range(rows)],
        "LATE": [1] * (rows - 1) + [2**40],
    }
    table = pa.table(values)
    assert data_sha(table) == reference(values)
    encoded = table.set_column(0, "USUBJID", table["USUBJID"].dictionary_encode())
    encoded = encoded.set_column(1, "LBORRES", table["LBORRES"].dictionary_encode())
    assert data_sha(encoded) == reference(values)


def test_values_larger_than_a_piece_are_hashed_whole() -> None:
    values: dict[str, list[Any]] = {"x": ["a" * 9_000_000, None, "b" * 20_000_000, "", "c" * 9_000_000]}
    assert data_sha(pa.table(values)) == reference(values)


def test_long_levels_that_many_rows_refer_to_are_hashed_piece_by_piece() -> None:
    levels = ["a" * 1_000_000, "b" * 999_999]
    indices = [n % 2 for n in range(400)]
    factor = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), pa.array(levels))
    expected = reference({"x": [levels[index] for index in indices]})
    usual = pa.default_memory_pool()
    watched = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(watched)
    try:
        assert data_sha(pa.table({"x": factor})) == expected
    finally:
        pa.set_memory_pool(usual)
    assert watched.max_memory() < 64_000_000


def test_a_dictionary_may_hold_a_missing_level_and_levels_never_used() -> None:
    levels = pa.array(["unused", None, "b", "nul\0here"])
    encoded = pa.DictionaryArray.from_arrays(pa.array([2, 1, None, 2], pa.int8()), levels)
    assert data_sha(pa.table({"x": encoded})) == data_sha(pa.table({"x": ["b", None, None, "b"]}))


@pytest.mark.parametrize("value_type", [pa.large_string(), pa.string_view()])
def test_a_dictionary_may_hold_any_type_of_text(value_type: pa.DataType) -> None:
    levels = pa.array(["b", "é"], value_type)
    for indices in ([0, 1, None, 1], [1]):
        encoded = pa.DictionaryArray.from_arrays(pa.array(indices, pa.uint16()), levels)
        plain = [None if i is None else ["b", "é"][i] for i in indices]
        assert data_sha(pa.table({"x": encoded})) == data_sha(pa.table({"x": plain}))


def test_a_full_byte_of_levels_leaves_room_for_missing() -> None:
    levels = [f"L{i}" for i in range(128)]
    encoded = pa.DictionaryArray.from_arrays(pa.array([*range(128), None], pa.int8()), pa.array(levels))
    assert data_sha(pa.table({"x": encoded})) == data_sha(pa.table({"x": [*levels, None]}))


NUMBERS = [1, 0, None, 100]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64()),
        *(pa.decimal32(9, 2), pa.decimal64(18, 4), pa.decimal128(20, 3), pa.decimal256(50, 5)),
    ],
    ids=str,
)
def test_every_type_of_number_is_the_same_number(kind: pa.DataType) -> None:
    numbers: list[Any] = NUMBERS
    if pa.types.is_decimal(kind):
        numbers = [None if n is None else Decimal(n) for n in NUMBERS]
    assert data_sha(pa.table({"x": pa.array(numbers, kind)})) == reference({"x": NUMBERS})


def test_logicals_hash_as_zero_and_one() -> None:
    assert data_sha(pa.table({"x": [True, None, False]})) == reference({"x": [1, None, 0]})


def test_numbers_beyond_a_double_are_rounded_to_one() -> None:
    huge = 2**64 - 1
    assert data_sha(pa.table({"x": pa.array([huge], pa.uint64())})) == reference({"x": [float(huge)]})


def test_a_decimal_is_the_double_nearest_to_it() -> None:
    cents = [Decimal(n * 7919).scaleb(-2) for n in range(-2000, 2000)]
    for kind in (pa.decimal64(18, 2), pa.decimal128(38, 10), pa.decimal256(50, 5)):
        assert data_sha(pa.table({"x": pa.array(cents, kind)})) == reference({"x": [float(cent) for cent in cents]})
    tiny = pa.array([Decimal("1e-20"), Decimal("-12345678901234567890.5")], pa.decimal256(60, 20))
    assert data_sha(pa.table({"x": tiny})) == reference({"x": [1e-20, -12345678901234567890.5]})


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()], ids=str)
def test_a_short_float_hashes_as_the_double_it_is(kind: pa.DataType) -> None:
    values = [0.1, -0.0, float("nan"), float("-inf"), None]
    array = pa.array(values, pa.float64()).cast(kind)
    assert data_sha(pa.table({"x": array})) == reference({"x": array.cast(pa.float64()).to_pylist()})


def test_the_smallest_int32_is_no_int32_in_r() -> None:
    assert data_sha(pa.table({"x": pa.array([-(2**31) + 1])})) == reference({"x": [-(2**31) + 1]})
    assert data_sha(pa.table({"x": pa.array([-(2**31)])})) == reference({"x": [-(2**31)]})
    assert data_sha(pa.table({"x": pa.array([-(2**31)])})) != data_sha(pa.table({"x": [float(-(2**31))]}))


def test_an_int64_column_without_any_value_is_a_column_of_missing_numbers() -> None:
    assert data_sha(pa.table({"x": pa.array([None, None], pa.int64())})) == reference({"x": [None, None]})


def test_every_nan_is_one_and_differs_from_missing_and_zero_has_no_sign() -> None:
    quiet, payload, negative, signalling = (
        0x7FF8000000000000,
        0x7FF8000000000123,
        0xFFF8000000000000,
        0x7FF0000000000001,
    )
    expected = data_sha(pa.table({"x": doubles([quiet, quiet, quiet, 0, None])}))
    assert data_sha(pa.table({"x": doubles([payload, negative, signalling, 1 << 63, None])})) == expected
    assert data_sha(pa.table({"x": doubles([payload, negative, None, 0, None])})) != expected


def test_a_nan_that_r_takes_for_missing_is_missing() -> None:
    assert data_sha(pa.table({"x": doubles([0x7FF00000000007A2, 0])})) == data_sha(pa.table({"x": [None, 0.0]}))


INSTANT = datetime(2026, 1, 15, 12, 30, 45)


def test_an_instant_is_the_same_in_every_unit_and_zone() -> None:
    expected = data_sha(pa.table({"t": pa.array([INSTANT, None], pa.timestamp("s"))}))
    for unit in ("s", "ms", "us", "ns"):
        for zone in (None, "UTC", "America/New_York"):
            numbers = pa.array([INSTANT, None], pa.timestamp(unit)).view(pa.int64())
            assert data_sha(pa.table({"t": numbers.view(pa.timestamp(unit, zone))})) == expected
    milliseconds = pa.array([INSTANT, None], pa.timestamp("ms")).view(pa.int64())
    assert data_sha(pa.table({"t": milliseconds.view(pa.date64())})) == expected


def test_a_time_of_day_is_a_duration_in_seconds_in_every_unit() -> None:
    expected = data_sha(pa.table({"t": pa.array([5400, None], pa.duration("s"))}))
    for kind, unit in ((pa.time32, "s"), (pa.time32, "ms"), (pa.time64, "us"), (pa.time64, "ns")):
        bits = pa.int32() if kind is pa.time32 else pa.int64()
        array = pa.array([5400 * UNITS_PER_SECOND[unit], None], bits).view(kind(unit))
        assert data_sha(pa.table({"t": array})) == expected
    for unit, count in UNITS_PER_SECOND.items():
        assert data_sha(pa.table({"t": pa.array([5400 * count, None], pa.duration(unit))})) == expected


def test_bytes_under_a_missing_value_do_not_matter() -> None:
    text = pa.StringArray.from_buffers(
        3, pa.py_buffer(struct.pack("<4i", 0, 1, 3, 4)), pa.py_buffer(b"a\0\0b"), pa.py_buffer(bytes([0b101]))
    )
    assert text.to_pylist() == ["a", None, "b"]
    assert data_sha(pa.table({"x": text})) == data_sha(pa.table({"x": ["a", None, "b"]}))
    numbers = pa.Array.from_buffers(
        pa.float64(), 2, [pa.py_buffer(bytes([0b01])), pa.py_buffer(struct.pack("<2d", 1.0, float("nan")))]
    )
    assert data_sha(pa.table({"x": numbers})) == data_sha(pa.table({"x": [1.0, None]}))


def test_a_nul_in_text_is_refused_and_every_such_column_is_named() -> None:
    encoded = pa.array(["ok", "a\0"]).dictionary_encode()
    table = pa.table({"a": ["x\0y", "z"], "b": ["fine", None], "c": encoded, "d": [1, 2]})
    with pytest.raises(DatomError) as refused:
        data_sha(table)
    assert refused.value.code == "not_hashable"
    assert sorted(refused.value.fields["columns"]) == ["a", "c"]


UNHASHABLE = {
    "null": pa.nulls(2),
    "binary": pa.array([b"a", b"b"]),
    "large_binary": pa.array([b"a", b"b"], pa.large_binary()),
    "fixed": pa.array([b"a", b"b"], pa.binary(1)),
    "list": pa.array([[1], [2]]),
    "struct": pa.array([{"a": 1}, {"a": 2}]),
    "map": pa.array([[("a", 1)], [("b", 2)]], pa.map_(pa.string(), pa.int64())),
    "interval": pa.array([(1, 2, 3), (1, 2, 3)], pa.month_day_nano_interval()),
    "dictionary_of_numbers": pa.array([1, 2]).dictionary_encode(),
    "run_end_encoded": pa.RunEndEncodedArray.from_arrays([2], ["a"]),
    "extension": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, b"1" * 16], pa.binary(16))),
}


def test_unsupported_types_are_refused_all_at_once_with_a_remedy_for_each() -> None:
    table = pa.table({"fine": [1, 2], **UNHASHABLE})
    with pytest.raises(DatomError) as refused:
        data_sha(table)
    assert refused.value.code == "not_hashable"
    assert refused.value.fields["columns"] == {name: str(array.type) for name, array in UNHASHABLE.items()}
    for word in ("binary", "nested", "interval", "dictionary", "all-missing"):
        assert word in refused.value.hint
    with pytest.raises(DatomError):
        check_hashable(table.schema)


def test_a_table_without_rows_or_columns_is_refused() -> None:
    for table in (pa.table({"x": pa.array([], pa.int64())}), pa.table({})):
        with pytest.raises(DatomError) as refused:
            data_sha(table)
        assert refused.value.code == "not_hashable"


def test_columns_of_a_parquet_file_are_told_apart_by_position(tmp_path: Path) -> None:
    table = pa.table([pa.array([1, 2]), pa.array([3, 4]), pa.array([5, 6])], names=["a", "a.b", "b"])
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=1)
    assert data_sha(ParquetColumns(tmp_path / "table.parquet")) == data_sha(table)
