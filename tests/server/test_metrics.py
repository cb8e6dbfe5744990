"""Calls become metrics."""

from __future__ import annotations

from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from datom_flight_server.calls import Call
from datom_flight_server.metrics import Metrics


def ended(verb: str = "do_get", code: str = "ok", limit: str | None = None, seconds: float = 0.0, **more: Any) -> Call:
    call = Call("r1", verb, "ann")
    for name, value in more.items():
        setattr(call, name, value)
    call.end(code, limit)
    call.seconds = seconds
    return call


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The values of the samples `name`, by their labels in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        for sample in family.samples
        if sample.name == name
    }


def test_how_long_calls_took_is_in_buckets() -> None:
    metrics = Metrics(lambda project: True)
    for seconds in (0.001, 0.002, 0.2, 1000.0):
        metrics.ended(ended(seconds=seconds))
    buckets = samples(metrics, "datom_flight_request_seconds_bucket")
    told = {bound: count for (bound, _), count in buckets.items()}
    assert (told["0.001"], told["0.0025"], told["0.1"], told["0.25"], told["300.0"], told["+Inf"]) == (1, 2, 2, 3, 3, 4)
    assert samples(metrics, "datom_flight_request_seconds_count") == {("do_get",): 4}
    assert samples(metrics, "datom_flight_request_seconds_sum") == {("do_get",): 1000.203}


def test_projects_that_do_not_exist_are_no_labels_until_they_do() -> None:
    known: set[str] = set()
    metrics = Metrics(known.__contains__)
    call = ended(code="not_found")
    call.about("NEW", "dm")
    metrics.ended(call)
    known.add("NEW")
    metrics.ended(call)
    assert samples(metrics, "datom_flight_requests_total") == {
        ("not_found", "", "do_get"): 1,
        ("not_found", "NEW", "do_get"): 1,
    }


def test_refusals_are_counted_by_the_limit() -> None:
    metrics = Metrics(lambda project: True)
    for code, limit in (
        ("overloaded", "limits.max_streams"),
        ("overloaded", None),
        ("timeout", "limits.idle_seconds"),
        ("timeout", None),
        ("not_found", None),
    ):
        metrics.ended(ended(code=code, limit=limit))
    assert samples(metrics, "datom_flight_refusals_total") == {
        ("overloaded", "limits.max_streams"): 1,
        ("overloaded", ""): 1,
        ("timeout", "limits.idle_seconds"): 1,
    }
