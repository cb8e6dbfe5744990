"""Parts of tables are spread evenly over replicas, the same way by whoever is asked, and stay where they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datom_flight_server.flight.placement import REUSE_CONNECTION, Placement

TABLES = [f"{number:064x}" for number in range(40)]
PARTS = list(range(0, 100, 5))


def urls(count: int) -> list[str]:
    return [f"grpc://replica-{number}:8815" for number in range(count)]


def owners(replicas: Sequence[str], data_sha: str, parts: Sequence[int] = PARTS) -> list[str]:
    return [locations[0] for locations in Placement(lambda: replicas).locations(data_sha, parts)]


@given(count=st.integers(1, 8), parts=st.integers(2, 64))
def test_all_replicas_have_as_many_parts_of_a_table_or_one_more(count: int, parts: int) -> None:
    for data_sha in TABLES[:3]:
        shares = Counter(owners(urls(count), data_sha, range(parts)))
        assert {shares[url] for url in urls(count)} <= {parts // count, -(-parts // count)}


def test_the_order_of_the_replicas_makes_no_difference() -> None:
    for data_sha in TABLES:
        assert owners(urls(5), data_sha) == owners(urls(5)[::-1], data_sha)


def test_all_replicas_get_as_much_of_many_tables() -> None:
    shares = Counter(owner for data_sha in TABLES for owner in owners(urls(3), data_sha))
    assert shares.keys() == set(urls(3))
    assert max(shares.values()) < 1.15 * min(shares.values())


@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_replica_that_goes_takes_along_less_than_twice_its_share(count: int) -> None:
    moved = [
        before != after
        for data_sha in TABLES
        for before, after in zip(owners(urls(count), data_sha), owners(urls(count)[:-1], data_sha), strict=True)
    ]
    # Going round by number would move (count - 1) / count.
    assert 1 / count <= sum(moved) / len(moved) < 2 / count


def test_each_part_names_others_to_go_to_and_the_connection_in_use_last() -> None:
    for locations in Placement(lambda: urls(5)).locations(TABLES[0], PARTS):
        assert len(set(locations)) == len(locations) == 4
        assert locations[-1] == REUSE_CONNECTION
    for locations in Placement(lambda: urls(2)).locations(TABLES[0], PARTS):
        assert sorted(locations[:-1]) == urls(2)


def test_a_table_in_one_part_stays_with_the_connection_in_use() -> None:
    assert Placement(lambda: urls(5)).locations(TABLES[0], [0]) == [[]]


def test_without_replicas_all_parts_stay_with_the_connection_in_use() -> None:
    assert Placement(list).locations(TABLES[0], [0, 5]) == [[], []]
