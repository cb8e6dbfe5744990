"""What the server counts about the calls it answers, and the registry of all its metrics."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from .calls import Call

PREFIX = "datom_flight"

Labels = TypeVar("Labels", bound=tuple[str, ...])

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_REFUSALS = frozenset({"overloaded", "too_large"})


class Metrics:
    """The server's metrics, in a registry of their own.

    Calls are counted in plain numbers, which become metrics when somebody asks: a small read has nothing to spare for
    the library's own counters.

    Args:
        knows: whether there is a project of that name. Others get no label, since callers make them up.
    """

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self.registry = CollectorRegistry()
        self._knows = knows
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._ended: Counter[tuple[str, str, str]] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._rows: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._seconds: dict[str, _Latencies] = {}
        self._first_seconds: dict[str, _Latencies] = {}
        ProcessCollector(PREFIX, registry=self.registry)
        self.watch(self._calls)

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Ask `read` for metrics whenever somebody asks for all."""
        self.registry.register(_Reading(read))

    def ended(self, call: Call) -> None:
        """Count a call that has ended."""
        project = self._label(call.subjects[0].project) if call.subjects else ""
        with self._lock:
            self._ended[call.verb, call.code, project] += 1
            _latencies(self._seconds, call.verb).add(call.seconds)
            if call.first_seconds is not None:
                _latencies(self._first_seconds, call.verb).add(call.first_seconds)
                self._rows[call.verb, project] += call.rows
                self._bytes[call.verb, project] += call.bytes
            if call.limit is not None or call.code in _REFUSALS:
                self._refused[call.code, call.limit or ""] += 1

    def _label(self, project: str) -> str:
        if project not in self._known:
            if not self._knows(project):
                return ""
            self._known.add(project)
        return project

    def _calls(self) -> list[Metric]:
        with self._lock:
            return [
                counted(
                    "requests", "Calls that ended, by outcome: ok or an error's code.", "verb code project", self._ended
                ),
                counted("refusals", "Calls refused for a limit, by the limit's name.", "code limit", self._refused),
                counted("rows", "Rows sent to callers, or received by do_put.", "verb project", self._rows),
                counted("data_bytes", "Bytes of those rows, as Arrow has them.", "verb project", self._bytes),
                _histogram("request_seconds", "From a call's start to its end, streams included.", self._seconds),
                _histogram("first_batch_seconds", "From a call's start to its first rows.", self._first_seconds),
            ]


def counted(name: str, told: str, labels: str, counts: Mapping[Labels, float]) -> Metric:
    """A counter with one sample for each key of `counts`: the values of `labels`, which are divided by spaces."""
    family = CounterMetricFamily(f"{PREFIX}_{name}", told, labels=labels.split())
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def gauge(name: str, told: str, labels: str, values: Mapping[Labels, float]) -> Metric:
    """What is so much now, as `counted`."""
    family = GaugeMetricFamily(f"{PREFIX}_{name}", told, labels=labels.split())
    for labelled, value in values.items():
        family.add_metric(labelled, value)
    return family


def summary(name: str, told: str, labels: str, values: Mapping[Labels, tuple[int, float]]) -> Metric:
    """How often something was, and how much it came to, as `counted`."""
    family = SummaryMetricFamily(f"{PREFIX}_{name}", told, labels=labels.split())
    for labelled, (count, total) in values.items():
        family.add_metric(labelled, count, total)
    return family


class _Latencies:
    """How many of some durations were within each bound, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_BOUNDS, seconds)] += 1
        self.total += seconds


def _latencies(known: dict[str, _Latencies], verb: str) -> _Latencies:
    found = known.get(verb)
    if found is None:
        found = known[verb] = _Latencies()
    return found


def _histogram(name: str, told: str, known: dict[str, _Latencies]) -> Metric:
    family = HistogramMetricFamily(f"{PREFIX}_{name}", told, labels=["verb"])
    for verb, latencies in known.items():
        buckets, so_far = [], 0
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), latencies.counts, strict=True):
            so_far += count
            buckets.append((bound, so_far))
        family.add_metric([verb], buckets, latencies.total)
    return family


class _Reading:
    """What the library asks."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()
