"""Handles: the same value comes back, wherever it was made."""

from __future__ import annotations

import pytest

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight_server.flight.session import Session
from datom_flight_server.flight.sql.handles import Handles
from datom_flight_server.flight.sql.prepared import Prepared

SHORT = Prepared("SELECT 1", Session("STUDY_001"))
LONG = Prepared(f"SELECT '{'x' * 100_000}'", Session("STUDY_001"))


@pytest.mark.parametrize("prepared", [SHORT, LONG], ids=["short", "long"])
def test_a_handle_gives_its_value_where_it_was_made_and_elsewhere(prepared: Prepared) -> None:
    here, elsewhere = Handles(Prepared.from_bytes), Handles(Prepared.from_bytes)
    handle = here.give(prepared)
    assert here.take(handle) == elsewhere.take(handle) == prepared


def test_a_short_handle_is_taken_apart_only_where_it_was_not_made() -> None:
    handles = Handles(Prepared.from_bytes)
    assert handles.take(handles.give(SHORT)) is SHORT


def test_what_may_be_long_is_not_kept() -> None:
    handles = Handles(Prepared.from_bytes)
    assert handles.take(handles.give(LONG)) is not LONG


def test_of_many_handles_the_last_are_kept() -> None:
    handles = Handles(Prepared.from_bytes)
    made = [Prepared(f"SELECT {number}", Session()) for number in range(1000)]
    given = [handles.give(prepared) for prepared in made]
    assert [handles.take(handle) for handle in given] == made
    assert handles.take(given[0]) is not made[0]


@pytest.mark.parametrize("handle", [b"", b"{}", b"SELECT 1"])
def test_what_is_no_handle_is_refused(handle: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        Handles(Prepared.from_bytes).take(handle)
