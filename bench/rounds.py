"""Measuring: contenders take turns, round after round, and each is judged by its median."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .processes import Process


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do what a case is about.

    Attributes:
        run: does it once. What it returns is let go of before the next.
        calls: how often a round does it, each call timed by itself.
        before: is done before each round, untimed.
        after: is given what `run` returned, untimed.
        process: of which the peak memory is noted; a function, since it may be another one each round.
    """

    run: Callable[[], Any]
    calls: int = 1
    before: Callable[[], object] | None = None
    after: Callable[[Any], object] | None = None
    process: Callable[[], Process] | None = None


@dataclass(slots=True)
class Timing:
    """What was measured of one contender.

    Attributes:
        seconds: of each call.
        peak_bytes: the most resident memory of its server in any round; None where unknown.
    """

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        """Of all calls, in seconds."""
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """What 99 of 100 calls do not exceed, in seconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


Timings = Mapping[str, Timing]


@dataclass(frozen=True, slots=True)
class Bar:
    """What must hold of a case.

    Attributes:
        text: the bar in words.
        value: what it is about, from the timings of all contenders by name.
        at_least, at_most: the limit; one of them.
        unit: of both, for people.
        needs: the contenders without which nothing can be said.
        ceiling: the same of a server that has nothing to do but send: more than that the machine does not allow.
    """

    text: str
    value: Callable[[Timings], float]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "x"
    needs: tuple[str, ...] = ()
    ceiling: Callable[[Timings], float] | None = None

    def holds(self, value: float) -> bool:
        """Whether `value` keeps to the limit."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, slots=True)
class Case:
    """Something to do, those who do it, and what must hold.

    Attributes:
        ours: the contender all others are compared with.
        warm: whether each contender has a run before the first round.
        most_rounds: for what takes long; None is no limit.
    """

    name: str
    what: str
    contenders: Mapping[str, Contender]
    bars: Sequence[Bar] = ()
    ours: str = "ours"
    warm: bool = True
    most_rounds: int | None = None


def measure(case: Case, rounds: int) -> dict[str, Timing]:
    """The timings of all contenders; every other round goes through them backwards."""
    timings = {name: Timing() for name in case.contenders}
    if case.warm:
        for contender in case.contenders.values():
            _round(contender, Timing(), 1)
    for number in range(min(rounds, case.most_rounds or rounds)):
        order = list(case.contenders.items())
        for name, contender in order if number % 2 == 0 else reversed(order):
            _round(contender, timings[name], contender.calls)
    return timings


def _round(contender: Contender, timing: Timing, calls: int) -> None:
    if contender.before is not None:
        contender.before()
    process = contender.process() if contender.process is not None else None
    if process is not None:
        process.forget_peak()
    gc.collect()
    gc.disable()
    try:
        for _ in range(calls):
            started = time.perf_counter()
            result = contender.run()
            timing.seconds.append(time.perf_counter() - started)
            if contender.after is not None:
                contender.after(result)
            del result
    finally:
        gc.enable()
    if contender.process is not None:
        # not the one before: a run may start another
        timing.peak_bytes = max(contender.process().peak_bytes or 0, timing.peak_bytes or 0) or None
