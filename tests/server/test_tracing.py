"""Spans reach a collector as parts of the callers' traces."""

from __future__ import annotations

import subprocess
import sys

from datom_flight_server.calls import Call, Trace
from datom_flight_server.tracing import Tracing
from support.collector import attributes, collector

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_call_is_a_span_of_its_caller_s_trace() -> None:
    call = Call("r1", "do_get", "ann", trace=Trace.of(f"00-{TRACE}-{SPAN}-01", "vendor=1"))
    call.about("STUDY", "dm", "8a3b")
    call.count(306, 4096)
    call.end("ok")
    with collector() as collected:
        tracing = Tracing(collected.url)
        tracing(call)
        tracing.close()
        (span,) = collected.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, SPAN, "vendor=1")
    assert span.name == "arrow.flight.protocol.FlightService/DoGet"
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": "arrow.flight.protocol.FlightService",
        "rpc.method": "DoGet",
        "datom.request": "r1",
        "datom.principal": "ann",
        "datom.project": "STUDY",
        "datom.table": "dm",
        "datom.version": "8a3b",
        "datom.rows": 306,
        "datom.bytes": 4096,
        "datom.code": "ok",
    }
    assert [event.name for event in span.events] == ["first rows"]
    assert span.start_time_unix_nano <= span.events[0].time_unix_nano <= span.end_time_unix_nano
    assert span.status.code == 0


def test_a_call_that_fails_without_a_trace_begins_one_and_says_why() -> None:
    call = Call("r1", "get_flight_info")
    call.end("unauthenticated")
    with collector() as collected:
        tracing = Tracing(collected.url)
        tracing(call)
        tracing.close()
        (span,) = collected.spans
        (resource,) = (sent.resource for request in collected.requests for sent in request.resource_spans)
    assert span.parent_span_id == b""
    assert (span.status.code, span.status.message) == (2, "unauthenticated")
    assert "service.name" in {item.key for item in resource.attributes}


def test_what_a_caller_does_not_want_sampled_is_not_sent() -> None:
    call = Call("r1", "do_get", trace=Trace.of(f"00-{TRACE}-{SPAN}-00", None))
    call.end("ok")
    with collector() as collected:
        tracing = Tracing(collected.url)
        tracing(call)
        tracing.close()
        assert not collected.spans


def test_no_library_of_tracing_is_loaded_unless_it_is_configured() -> None:
    program = (
        "import sys, datom_flight_server.app\n"
        "sys.exit(any(name.partition('.')[0] == 'opentelemetry' for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
