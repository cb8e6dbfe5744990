"""Places for streams: who gets one, who waits, who is refused, and which streams are cut."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import pytest

from datom_flight.protocol.errors import DatomError, UnavailableError
from datom_flight_server.calls import Call
from datom_flight_server.flight.admission import Stream, StreamLimits, Streams
from datom_flight_server.flight.rates import Rates
from datom_flight_server.model import Principal, Role
from support.server import await_condition


@dataclass(eq=False)
class Visitor:
    """A caller, who may go away."""

    principal: Principal
    peer: str = "ipv4:127.0.0.1:50000"
    bearer: str | None = None
    call: Call = field(default_factory=lambda: Call("1", "do_get"))
    gone: bool = False

    @property
    def is_cancelled(self) -> Callable[[], bool]:
        return lambda: self.gone


class Clock:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class House:
    """Streams within limits, by a clock of their own.

    Attributes:
        cut: the connections that were cut.
    """

    def __init__(self, **limits: float) -> None:
        self.clock = Clock()
        self.cut: list[str] = []
        # mypy knows no better of what stands in **limits
        self.streams = Streams(StreamLimits(**limits), self._cut, self.clock)  # type: ignore[arg-type]
        self._open = ExitStack()

    def _cut(self, peers: Collection[str]) -> None:
        self.cut += sorted(peers)

    def enter(self, name: str = "ann", role: Role = Role.READER, peer: str = "ipv4:127.0.0.1:50000") -> Stream:
        """A stream that runs until the house is closed."""
        return self._open.enter_context(self.streams.running(Visitor(Principal(name, role), peer)))

    def refusal(self, name: str = "ann", role: Role = Role.READER) -> DatomError:
        """Why a stream does not run."""
        with pytest.raises(DatomError) as caught, self.streams.running(Visitor(Principal(name, role))):
            pass
        return caught.value

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def house() -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def make(**limits: float) -> House:
        made.append(House(**limits))
        return made[-1]

    yield make
    for each in made:
        each.close()


Make = Callable[..., House]


def _waiting(house: House, number: int) -> bool:
    return house.streams.queued == number


def test_a_stream_over_the_limit_is_refused_with_the_limit_and_when_to_come_again(house: Make) -> None:
    full = house(streams=2, queued=0)
    full.enter("ann")
    full.enter("bob")
    refused = full.refusal("eve")
    assert refused.code == "overloaded"
    assert refused.retryable
    assert refused.fields["limit"] == "limits.max_streams"
    assert refused.fields["value"] == 2
    assert refused.fields["retry_after_seconds"] > 0


def test_one_caller_does_not_get_all_places(house: Make) -> None:
    shared = house(streams=3, streams_each=2, queued=0)
    shared.enter("ann")
    shared.enter("ann")
    assert shared.refusal("ann").fields["limit"] == "limits.max_streams_each"
    shared.enter("bob")
    assert shared.streams.open == 3


def test_admins_get_in_when_readers_have_filled_the_house(house: Make) -> None:
    full = house(streams=1, queued=0)
    full.enter("ann")
    full.enter("root", Role.ADMIN)
    full.enter("root", Role.ADMIN)
    assert full.refusal("eve").code == "overloaded"


def test_a_place_that_is_left_goes_to_the_first_who_may_have_it(house: Make) -> None:
    crowd = house(streams=2, streams_each=1, queue_seconds=10)
    crowd.enter("ann")
    let_in: list[str] = []
    enough = threading.Event()

    def waits(name: str) -> None:
        with crowd.streams.running(Visitor(Principal(name, Role.READER))):
            let_in.append(name)
            enough.wait(10)

    threads = [threading.Thread(target=waits, args=(name,)) for name in ("ann", "bob", "eve")]
    with crowd.streams.running(Visitor(Principal("first", Role.READER))):
        for number, thread in enumerate(threads, 1):
            thread.start()
            await_condition(partial(_waiting, crowd, number), 10, "one more waits")
    await_condition(lambda: let_in == ["bob"], 10, "bob, as ann has a place already")
    crowd.close()
    await_condition(lambda: let_in == ["bob", "ann"], 10, "then ann")
    enough.set()
    for thread in threads:
        thread.join(10)
    assert let_in == ["bob", "ann", "eve"]
    assert crowd.streams.open == 0


def test_who_waits_too_long_or_goes_away_waits_no_longer(house: Make) -> None:
    full = house(streams=1, queue_seconds=60)
    full.enter()
    caught: list[DatomError] = []
    visitor = Visitor(Principal("bob", Role.READER))

    def waits() -> None:
        with pytest.raises(DatomError) as refused, full.streams.running(visitor):
            pass
        caught.append(refused.value)

    for ends in ("time", "visitor"):
        waiting = threading.Thread(target=waits)
        waiting.start()
        await_condition(lambda: full.streams.queued == 1, 10, "it waits")
        if ends == "time":
            full.clock.now += 61
        else:
            visitor.gone = True
        waiting.join(10)
    assert [error.code for error in caught] == ["overloaded", "cancelled"]
    assert full.streams.queued == 0


@pytest.mark.parametrize(("limit", "rows", "size"), [("max_rows", 5, 1), ("max_bytes", 1, 50)])
def test_rows_and_bytes_of_a_stream_are_limited(house: Make, limit: str, rows: int, size: int) -> None:
    stream = house(rows=8, size=80).enter()
    stream.give(rows, size)
    stream.check()
    with pytest.raises(DatomError) as caught:
        stream.give(rows, size)
    assert caught.value.code == "too_large"
    assert caught.value.fields == {"limit": f"limits.{limit}", "value": 8 if limit == "max_rows" else 80}


def test_a_reader_that_fetches_nothing_is_cut_and_no_longer_counts(house: Make) -> None:
    slow = house(streams=1, idle_seconds=10, queued=0)
    stalled = slow.enter()
    stalled.give(1, 1)
    slow.clock.now += 9
    slow.streams.look()
    assert not slow.cut
    slow.clock.now += 2
    slow.streams.look()
    assert slow.cut == [stalled.caller.peer]
    slow.enter("bob")
    with pytest.raises(DatomError) as caught:
        stalled.check()
    assert caught.value.code == "timeout"
    assert caught.value.fields == {"limit": "limits.idle_seconds", "value": 10}


def test_what_computes_is_not_idle(house: Make) -> None:
    busy = house(idle_seconds=10)
    stream = busy.enter()
    stream.give(1, 1)
    stream.check()
    busy.clock.now += 100
    busy.streams.look()
    stream.check()
    assert not busy.cut


def test_a_stalled_reader_makes_room_sooner_when_others_wait(house: Make) -> None:
    full = house(streams=1, idle_seconds=300, queue_seconds=10_000)
    stalled = full.enter()
    stalled.give(1, 1)
    let_in = threading.Event()

    def waits() -> None:
        with full.streams.running(Visitor(Principal("bob", Role.READER))):
            let_in.set()

    waiting = threading.Thread(target=waits)
    waiting.start()
    await_condition(lambda: full.streams.queued == 1, 10, "it waits")
    full.clock.now += 31
    full.streams.look()
    waiting.join(10)
    assert let_in.is_set()


def test_a_stream_that_takes_too_long_is_cut_at_its_next_batch(house: Make) -> None:
    long = house(seconds=100)
    stream = long.enter()
    long.clock.now += 101
    long.streams.look()
    assert not long.cut
    with pytest.raises(DatomError) as caught:
        stream.check()
    assert caught.value.fields == {"limit": "limits.max_seconds", "value": 100}


def test_a_connection_on_which_others_go_on_is_not_cut(house: Make) -> None:
    proxied = house(idle_seconds=10)
    proxied.enter().give(1, 1)
    going = proxied.enter("bob")
    alone = proxied.enter(peer="ipv4:127.0.0.1:50001")
    alone.give(1, 1)
    proxied.clock.now += 11
    proxied.streams.look()
    assert proxied.cut == [alone.caller.peer]
    going.check()


def test_streams_are_cut_for_a_reason_that_their_callers_give(house: Make) -> None:
    both = house()
    ann, bob = both.enter("ann"), both.enter("bob")
    reason = UnavailableError("taken back", code="unavailable")
    both.streams.cut(lambda caller: reason if caller.principal.name == "ann" else None)
    bob.check()
    with pytest.raises(DatomError, match="taken back"):
        ann.check()


def test_draining_waits_for_running_streams_and_refuses_new_ones(house: Make) -> None:
    streams = house(streams=1).streams
    inside, leave = threading.Event(), threading.Event()

    def stream() -> None:
        with streams.running(Visitor(Principal("ann", Role.READER))):
            inside.set()
            leave.wait(10)

    def waits() -> None:
        with streams.running(Visitor(Principal("bob", Role.READER))):
            pass

    running = threading.Thread(target=stream)
    running.start()
    assert inside.wait(10)
    refused: list[str] = []

    def is_refused() -> None:
        with pytest.raises(DatomError) as caught:
            waits()
        refused.append(caught.value.code)

    waiting = threading.Thread(target=is_refused)
    waiting.start()
    await_condition(lambda: streams.queued == 1, 10, "one more waits")
    ended: list[bool] = []
    draining = threading.Thread(target=lambda: ended.append(streams.drain(10)))
    draining.start()
    waiting.join(10)
    is_refused()
    assert refused == ["unavailable", "unavailable"]
    leave.set()
    draining.join(10)
    running.join(10)
    assert ended == [True]
    assert streams.open == 0


def test_what_outlives_the_grace_period_is_cut_with_its_connection(house: Make) -> None:
    ending = house()
    stream = ending.enter()
    stream.give(1, 1)
    assert not ending.streams.drain(0.01)
    assert not ending.cut
    ending.streams.close()
    assert ending.cut == [stream.caller.peer]
    with pytest.raises(DatomError) as caught:
        stream.check()
    assert caught.value.code == "unavailable"


def test_requests_beyond_the_rate_are_refused_until_there_is_room_again() -> None:
    clock = Clock()
    rates = Rates(5, clock)
    ann, root = Principal("ann", Role.READER), Principal("root", Role.ADMIN)
    for _ in range(50):
        rates.count(ann)
    with pytest.raises(DatomError) as refused:
        rates.count(ann)
    assert refused.value.code == "overloaded"
    assert refused.value.fields == {
        "limit": "limits.requests_per_second",
        "value": 5,
        "retry_after_seconds": 0.2,
    }
    rates.count(Principal("bob", Role.READER))
    for _ in range(100):
        rates.count(root)
    clock.now += refused.value.fields["retry_after_seconds"]
    rates.count(ann)
    with pytest.raises(DatomError):
        rates.count(ann)
