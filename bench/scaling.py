"""What grows with the number of servers, and what does not: ``python -m bench.scaling``. See docs/scaling.md.

One, two and four servers over the same S3, on one machine: its cores are shared by all of them and by who reads, so
that what grows here is what is kept and what is asked for, and not what all together send.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from rich.console import Console
from rich.table import Table

import datom_flight

from .data import FULL, STUDY, made
from .server import CACHE_BYTES, Server
from .stage import Stage

NUMBERS = (1, 2, 4)
CLIENTS = 4
SCANS = 3
SMALL_READS = 200
ROUNDS = 5

_MEMORY_SHARE = 0.7
"""Of the decoded table, what one server may keep: it takes two to keep all of it."""

_MB = 10**6


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description="Measure several servers at once.")
    parser.add_argument("--data", type=Path, default=Path("bench/.data"), help="where the data is kept")
    asked = parser.parse_args()
    console = Console(width=120)
    data = made(FULL, asked.data, console.print)
    with Stage(data, asked.data / "scaling") as stage:
        table = stage.server.connection(STUDY).read("lb")
        stage.server.stop()
        compressed = _compression(stage, table)
        scaled = [_scaled(stage, count, int(_MEMORY_SHARE * table.nbytes)) for count in NUMBERS]
    _print(console, f"{table.nbytes / _MB:.0f} MB of Arrow, {CLIENTS} clients at once", scaled)
    _print(console, "one client, one server, by compression", compressed)
    folder = asked.data / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scaling.json").write_text(json.dumps({"servers": scaled, "compression": compressed}, indent=2) + "\n")


def _scaled(stage: Stage, count: int, memory_bytes: int) -> dict[str, Any]:
    """What `count` servers do with one cold read by one client, and then with reads of several clients."""
    servers = stage.replicas(count, memory_bytes)
    for server in servers:
        server.connection(STUDY)
    before = _totals(servers)
    size = servers[0].connection(STUDY).read("lb").nbytes
    cold = _totals(servers) - before
    fetched = [server.metric("cache_bytes", cache="disk") for server in servers]
    requests = [server.metric("storage_call_seconds_count", operation="chunks") for server in servers]
    kept = [server.metric("cache_bytes", cache="memory") for server in servers]
    urls = [(servers[number % count].url, servers[0].token) for number in range(CLIENTS)]
    with ProcessPoolExecutor(CLIENTS, multiprocessing.get_context("spawn")) as clients:
        list(clients.map(_scan, urls, [1] * CLIENTS))
        before = _totals(servers)
        started = time.perf_counter()
        list(clients.map(_scan, urls, [SCANS] * CLIENTS))
        seconds = time.perf_counter() - started
        scans = _totals(servers) - before
        before = _totals(servers)
        list(clients.map(_read_small, urls, [stage.data.version("dm")] * CLIENTS))
        small = _totals(servers) - before
    sent = CLIENTS * SCANS * size
    found = {
        "servers": count,
        "servers' CPU for the cold read, s": round(cold.cpu_seconds, 2),
        "fetched by each, MB": _listed(fetched),
        "objects asked of S3 by each": [int(each) for each in requests],
        "kept decoded by each, MB": _listed(kept),
        "of all asked for decoded, kept": f"{scans.hits / max(1, scans.hits + scans.misses):.0%}",
        "servers' CPU for a GB, s": round(scans.cpu_seconds / sent * 10**9, 2),
        "all together, GB/s": round(sent / seconds / 10**9, 2),
        "servers' CPU for a small read, ms": round(small.cpu_seconds / (CLIENTS * SMALL_READS) * 1000, 2),
    }
    for server in servers:
        server.stop()
    return found


@dataclass(frozen=True, slots=True)
class _Totals:
    """What servers have done since they started, together."""

    cpu_seconds: float
    hits: float
    misses: float

    def __sub__(self, other: _Totals) -> _Totals:
        return _Totals(self.cpu_seconds - other.cpu_seconds, self.hits - other.hits, self.misses - other.misses)


def _totals(servers: Sequence[Server]) -> _Totals:
    def total(name: str, **labels: str) -> float:
        return sum(server.metric(name, **labels) for server in servers)

    return _Totals(
        total("process_cpu_seconds_total"),
        total("cache_hits_total", cache="memory"),
        total("cache_misses_total", cache="memory"),
    )


def _scan(server: tuple[str, str], times: int) -> None:
    url, token = server
    with datom_flight.connect(url, STUDY, token=token) as connection:
        for _ in range(times):
            for _ in connection.scan("lb"):
                pass


def _read_small(server: tuple[str, str], version: str) -> None:
    url, token = server
    with datom_flight.connect(url, STUDY, token=token) as connection:
        for _ in range(SMALL_READS):
            connection.read("dm", version)


def _compression(stage: Stage, table: pa.Table) -> list[dict[str, Any]]:
    """What each codec makes of the table, and what that takes: medians of rounds in turn."""
    (server,) = stage.replicas(1, CACHE_BYTES)
    server.connection(STUDY).read("lb")
    reads: dict[str | None, list[_Read]] = {None: [], "lz4": [], "zstd": []}
    for _ in range(ROUNDS):
        for codec, taken in reads.items():
            with datom_flight.connect(server.url, STUDY, token=server.token, compression=codec) as connection:
                taken.append(_read(server, connection))
    server.stop()
    return [
        {
            "compression": codec or "none",
            "on the wire, MB": round(_wire_bytes(table, codec) / _MB),
            "server's CPU, s": round(statistics.median(read.server_seconds for read in taken), 2),
            "client's CPU, s": round(statistics.median(read.client_seconds for read in taken), 2),
            "read, s": round(statistics.median(read.seconds for read in taken), 2),
        }
        for codec, taken in reads.items()
    ]


class _Read(NamedTuple):
    seconds: float
    server_seconds: float
    client_seconds: float


def _read(server: Server, connection: datom_flight.Connection) -> _Read:
    before = _totals([server])
    started, cpu = time.perf_counter(), time.process_time()
    connection.read("lb")
    seconds, client_seconds = time.perf_counter() - started, time.process_time() - cpu
    return _Read(seconds, (_totals([server]) - before).cpu_seconds, client_seconds)


def _wire_bytes(table: pa.Table, codec: str | None) -> int:
    sink = pa.MockOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    return int(sink.size())


def _listed(sizes: Sequence[float]) -> list[int]:
    return [round(size / _MB) for size in sizes]


def _print(console: Console, title: str, found: Sequence[dict[str, Any]]) -> None:
    names = list(found[0])
    table = Table(title=title, title_justify="left")
    for name in [names[0], *(str(each[names[0]]) for each in found)]:
        table.add_column(name, justify="right" if name != names[0] else "left")
    for name in names[1:]:
        table.add_row(
            name,
            *(" + ".join(map(str, each[name])) if isinstance(each[name], list) else str(each[name]) for each in found),
        )
    console.print(table)


if __name__ == "__main__":
    main()
