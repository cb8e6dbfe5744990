"""Streams are counted, drained and cut."""

from __future__ import annotations

import threading

import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.flight.streams import Streams


def test_draining_waits_for_running_streams_and_refuses_new_ones() -> None:
    streams = Streams()
    inside, leave = threading.Event(), threading.Event()

    def stream() -> None:
        with streams.running():
            inside.set()
            leave.wait(10)

    running = threading.Thread(target=stream)
    running.start()
    assert inside.wait(10)
    assert streams.open == 1
    ended: list[bool] = []
    draining = threading.Thread(target=lambda: ended.append(streams.drain(10)))
    draining.start()
    while not streams.draining:
        pass
    with pytest.raises(DatomError) as refused, streams.running():
        pass
    assert refused.value.code == "unavailable"
    leave.set()
    draining.join(10)
    running.join(10)
    assert ended == [True]
    assert streams.open == 0


def test_a_stream_that_outlives_the_grace_period_is_cut_at_its_next_batch() -> None:
    streams = Streams()
    with streams.running():
        assert not streams.drain(0.01)
        with pytest.raises(DatomError) as cut:
            streams.check()
    assert cut.value.code == "unavailable"
