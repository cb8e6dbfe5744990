"""What the server counts about itself, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The server's metrics, in a registry of their own.

    Args:
        open_streams: how many streams run now.
    """

    def __init__(self, open_streams: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "datom_flight_requests", "Calls that ended, by verb and outcome.", ["verb", "code"], registry=self.registry
        )
        self._seconds = Histogram(
            "datom_flight_request_seconds", "How long calls took, streams included.", ["verb"], registry=self.registry
        )
        streams = Gauge("datom_flight_open_streams", "Streams that run now.", registry=self.registry)
        streams.set_function(open_streams)

    def request_ended(self, verb: str, code: str, seconds: float) -> None:
        """Count one call; `code` is ``ok`` or an error's."""
        self._requests.labels(verb, code).inc()
        self._seconds.labels(verb).observe(seconds)
