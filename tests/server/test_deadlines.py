"""Calls that cannot be interrupted, and callers that do not wait for them."""

from __future__ import annotations

import threading

import pytest

from datom_flight_server.storage.deadlines import Background


def test_a_call_that_hangs_is_given_up_in_time() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        Background(1).begin(never.wait, 0.05)()
    never.set()


def test_what_a_call_raises_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        Background(1).begin(lambda: 1 / 0, 10)()


def test_calls_that_hang_hold_no_more_than_their_share_and_give_it_back() -> None:
    background = Background(2)
    never = threading.Event()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            background.begin(never.wait, 0.05)()
    assert sum(thread.name == "storage" for thread in threading.enumerate()) <= 2
    never.set()
    assert background.begin(lambda: "served", 10)() == "served"
