"""Spans of OpenTelemetry: one for each call, within the trace that the caller says it is part of.

The libraries are an extra, and are loaded only where tracing is configured.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from datom_flight.protocol.errors import DatomError

from .calls import Call

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_SERVICE = "arrow.flight.protocol.FlightService"
_EXPORT_SECONDS = 2
_NANOSECONDS = 10**9


class Tracing:
    """Makes a span of every call that has ended and sends it, now and then, to a collector.

    A collector that cannot be reached costs spans, never calls: those that wait to be sent are bounded. What else there
    is to settle (sampling, the service's name, headers) OpenTelemetry reads from its own ``OTEL_…`` variables.

    Args:
        endpoint: of the collector, ``http://HOST:4318``; it speaks OTLP over HTTP.

    Raises:
        DatomError: ``unavailable`` when the libraries are not installed.
    """

    def __init__(self, endpoint: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, StatusCode
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise DatomError.of(
                "unavailable",
                "tracing.endpoint is set, and OpenTelemetry is not installed",
                hint="pip install 'datom-flight[server,otel]', or leave tracing.endpoint out",
            ) from None
        own = {"service.name": "datom-flight", "service.version": version("datom-flight")}
        # the environment goes before what is said here
        resource = Resource(own).merge(Resource.create())
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(__package__ or "", own["service.version"])
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER
        self._failed = StatusCode.ERROR

    def __call__(self, call: Call) -> None:
        """Make the span of `call`."""
        carried = {} if call.trace is None else {"traceparent": call.trace.parent, "tracestate": call.trace.state or ""}
        ended = time.time_ns()
        started = ended - int(call.seconds * _NANOSECONDS)
        method = "".join(part.title() for part in call.verb.split("_"))
        span = self._tracer.start_span(
            f"{_SERVICE}/{method}",
            context=self._propagator.extract(carried),
            kind=self._kind,
            attributes=_attributes(call) | {"rpc.system": "grpc", "rpc.service": _SERVICE, "rpc.method": method},
            start_time=started,
        )
        if call.first_seconds is not None:
            span.add_event("first rows", timestamp=started + int(call.first_seconds * _NANOSECONDS))
        if call.code != "ok":
            span.set_status(self._failed, call.code)
        span.end(ended)

    def close(self) -> None:
        """Send what is left, if it goes within a few seconds."""
        self._provider.force_flush(_EXPORT_SECONDS * 1000)
        self._provider.shutdown()


def _attributes(call: Call) -> dict[str, str | int]:
    project, table, pinned = call.subjects[0] if call.subjects else (None, None, None)
    known: dict[str, str | int | None] = {
        "datom.request": call.id,
        "datom.principal": call.principal,
        "datom.action": call.action,
        "datom.project": project,
        "datom.table": table,
        "datom.version": pinned,
        "datom.rows": call.rows,
        "datom.bytes": call.bytes,
        "datom.code": call.code,
    }
    return {name: value for name, value in known.items() if value is not None}
