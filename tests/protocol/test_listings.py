"""Listings, a row in each result or many: the same rows come back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.listings import pack, unpack
from datom_flight.protocol.messages import MAX_REQUEST_BYTES, encode_object

listings = st.lists(
    st.fixed_dictionaries({"name": st.text(), "versions": st.none() | st.integers()}, optional={"rows": st.text()})
)


@given(listings)
def test_packed_or_not_the_rows_are_the_same(rows: list[dict[str, Any]]) -> None:
    assert unpack(list(pack(rows)), "the listing") == rows
    assert unpack([encode_object(row) for row in rows], "the listing") == rows


def test_a_thousand_rows_are_one_result_and_the_rest_comes_in_more() -> None:
    rows = [{"name": f"t{number}"} for number in range(2500)]
    results = list(pack(iter(rows)))
    assert [len(json.loads(result)["rows"]) for result in results] == [1000, 1000, 500]
    assert unpack(results, "the listing") == rows


def test_no_result_is_larger_than_a_json_object_may_be_unless_one_row_is() -> None:
    rows = [{"message": "x" * 700_000, "number": number} for number in range(20)]
    huge = {"message": "y" * (MAX_REQUEST_BYTES + 1)}
    results = list(pack([*rows, huge, *rows]))
    assert unpack(results, "the listing") == [*rows, huge, *rows]
    assert [json.loads(result)["rows"] for result in results if len(result) > MAX_REQUEST_BYTES] == [[huge]]


@pytest.mark.parametrize(
    "results",
    [
        [b"7"],
        [b'["name"]'],
        [b'{"name":'],
        [b'{"rows":7}'],
        [b'{"rows":[7]}'],
        [b'{"rows":{"name":"dm"}}'],
        [b'{"name":"dm"}', b"null"],
        [b'{"name":"\xff"}'],
        [b"[" * 100_000],
        [b""],
    ],
)
def test_what_is_not_rows_is_refused(results: list[bytes]) -> None:
    with pytest.raises(InvalidRequestError, match="the listing") as caught:
        unpack(results, "the listing")
    assert caught.value.code == "invalid_argument"
