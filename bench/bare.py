"""The ceiling: a Flight server that does nothing but send batches it holds in memory.

``python -m bench.bare URL TOKEN REQUESTS`` fetches from the datom server at URL what REQUESTS name, a JSON object of
requests by name, and then holds the very batches of each, endpoint by endpoint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

Held = list[list[pa.RecordBatch]]

_ONE = pa.record_batch({"1": pa.array([1], pa.int32())})


class BareServer(fl.FlightServerBase):  # type: ignore[misc]
    """Sends what it holds, to anybody.

    A descriptor's command is a name, or Flight SQL of which the last word is one. A ticket is a name and the number of
    an endpoint; without a number it stands for all of them. A name and ``ended`` has an end record as well, as the
    protocol wants it, and that takes Python.
    """

    def __init__(self, held: dict[str, Held]) -> None:
        self._held = {**held, "1": [[_ONE]]}
        super().__init__("grpc://127.0.0.1:0")

    def get_flight_info(self, context: fl.ServerCallContext, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        """All endpoints of a name."""
        name = descriptor.command.decode(errors="replace").rpartition(" ")[2]
        parts = self._held[name]
        endpoints = [fl.FlightEndpoint(f"{name} {number}".encode(), []) for number in range(len(parts))]
        return fl.FlightInfo(parts[0][0].schema, descriptor, endpoints)

    def do_get(self, context: fl.ServerCallContext, ticket: fl.Ticket) -> fl.FlightDataStream:
        """The batches of an endpoint, from C++ alone."""
        name, _, number = ticket.ticket.decode().partition(" ")
        parts = self._held[name]
        if number == "ended":
            return fl.GeneratorStream(parts[0][0].schema, _ended(parts[0]), options=pa.ipc.IpcWriteOptions())
        batches = parts[int(number)] if number else [batch for part in parts for batch in part]
        return fl.RecordBatchStream(pa.RecordBatchReader.from_batches(batches[0].schema, batches))

    def do_action(self, context: fl.ServerCallContext, action: fl.Action) -> Any:
        """Nothing: drivers then do without."""
        raise NotImplementedError(action.type)


def _ended(batches: list[pa.RecordBatch]) -> Iterator[Any]:
    yield pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    yield batches[-1].slice(0, 0), b"{}"


def held(client: fl.FlightClient, options: fl.FlightCallOptions, request: dict[str, Any]) -> Held:
    """The batches of `request`, as the server at the other end cuts them."""
    descriptor = fl.FlightDescriptor.for_command(json.dumps(request).encode())
    parts = []
    for endpoint in client.get_flight_info(descriptor, options).endpoints:
        chunks = (chunk.data for chunk in client.do_get(endpoint.ticket, options))
        parts.append([batch for batch in chunks if batch is not None and batch.num_rows])
    return parts


def main() -> None:
    """Fetch, then serve until ended."""
    url, token, requests = sys.argv[1:]
    options = fl.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])
    with fl.connect(url) as client:
        server = BareServer({name: held(client, options, request) for name, request in json.loads(requests).items()})
    print(f"listening on grpc://127.0.0.1:{server.port}", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
