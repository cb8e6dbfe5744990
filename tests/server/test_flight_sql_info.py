"""What the server says of itself."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from datom_flight_server.flight.sql.info import SCHEMA, sql_info
from datom_flight_server.flight.sql.types import SCHEMA as TYPES_SCHEMA
from datom_flight_server.flight.sql.types import type_info

# ids that clients ask for, by the member of the union that the specification puts their values into
TEXTS = [0, 1, 2, 504, 513, 514, 529, 530, 531]
FLAGS = [3, 4, 5, 9, 10, 11, 506, *range(515, 517), *range(518, 522), 523, 524, 527, 532, 536, 537, 539, 556, 563]
FLAGS += [565, 566, *range(572, 577)]
LENGTHS = [*range(541, 556), *range(557, 562)]
NUMBERS = [8, 100, 101, 503, 505, 507, 522, 525, 526, 528, 533, 534, 535, 538, 540, 564, *range(567, 572)]
LISTS = [508, 509, 510, 511, 512]


def values(batch: pa.RecordBatch) -> dict[int, Any]:
    batch.validate(full=True)
    return {row["info_name"]: row["value"] for row in batch.to_pylist()}


def members(batch: pa.RecordBatch) -> dict[int, str]:
    """The member of the union that each id's value is in."""
    union = batch.column("value")
    names = [union.type.field(index).name for index in range(union.type.num_fields)]
    return {
        id_.as_py(): names[code.as_py()] for id_, code in zip(batch.column("info_name"), union.type_codes, strict=True)
    }


def test_whoever_asks_for_nothing_in_particular_gets_all_that_drivers_know() -> None:
    found = values(sql_info([]))
    assert set(TEXTS + FLAGS + LENGTHS + NUMBERS + LISTS) <= set(found)
    assert all(id_ < 10_000 for id_ in found)


@pytest.mark.parametrize(
    ("ids", "member"),
    [
        (TEXTS, "string_value"),
        (FLAGS, "bool_value"),
        (LENGTHS, "bigint_value"),
        (NUMBERS, "int32_bitmask"),
        (LISTS, "string_list"),
        ([517], "int32_to_int32_list_map"),
    ],
)
def test_every_value_is_where_drivers_look_for_it(ids: list[int], member: str) -> None:
    found = members(sql_info([]))
    assert {found[id_] for id_ in ids} == {member}


def test_only_what_is_asked_for_comes_and_what_is_not_known_does_not() -> None:
    assert list(values(sql_info([8, 999, 0]))) == [8, 0]
    assert sql_info([999]).num_rows == 0


def test_an_id_of_our_own_comes_only_by_its_number() -> None:
    assert values(sql_info([10_000])) == {10_000: "datom storage format 2, as R datom 0.2.0 writes it"}


def test_the_isolation_level_is_left_out_since_drivers_disagree_on_its_type() -> None:
    assert 562 not in values(sql_info([]))


def test_it_is_read_only_takes_ingest_and_begins_transactions() -> None:
    found = values(sql_info([]))
    assert (found[3], found[4], found[5], found[8], found[10], found[11]) == (True, True, False, 1, True, False)


def test_the_schema_is_the_specification_s() -> None:
    assert [(field.name, field.nullable) for field in SCHEMA] == [("info_name", False), ("value", False)]
    assert SCHEMA.field("info_name").type == pa.uint32()
    assert SCHEMA.field("value").type.mode == "dense"


def test_types_are_sorted_by_their_code_and_chosen_by_it() -> None:
    everything = type_info(None)
    assert everything.schema == TYPES_SCHEMA
    codes = everything.column("data_type").to_pylist()
    assert codes == sorted(codes)
    assert type_info(12).column("type_name").to_pylist() == ["VARCHAR"]
    assert type_info(-5).column("type_name").to_pylist() == ["BIGINT", "UBIGINT"]
    assert type_info(4711).num_rows == 0


def test_a_moment_s_type_says_which_part_of_datetime_it_is() -> None:
    (row,) = type_info(93).slice(0, 1).to_pylist()
    assert (row["type_name"], row["sql_data_type"], row["datetime_subcode"]) == ("TIMESTAMP", 9, 3)
    assert (row["literal_prefix"], row["literal_suffix"]) == ("TIMESTAMP '", "'")
