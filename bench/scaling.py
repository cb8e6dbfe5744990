"""What grows with the number of servers, and what does not: ``python -m bench.scaling``. See docs/scaling.md.

One, two and four servers over the same S3, on one machine: its cores are shared by all of them and by who reads, so
that what grows here is what is kept and what is asked for, and not what all together send.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

import datom_flight

from .data import FULL, STUDY, made
from .server import Server
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
        compressed = list(_compression(stage.server, table))
        stage.server.stop()
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
    cold_seconds, table = _timed(lambda: servers[0].connection(STUDY).read("lb"))
    size = table.nbytes
    del table
    fetched = [server.metric("cache_bytes", cache="disk") for server in servers]
    requests = [server.metric("storage_call_seconds_count", operation="chunks") for server in servers]
    kept = [server.metric("cache_bytes", cache="memory") for server in servers]
    urls = [(servers[number % count].url, servers[0].token) for number in range(CLIENTS)]
    with ProcessPoolExecutor(CLIENTS, multiprocessing.get_context("spawn")) as clients:
        list(clients.map(_scan, urls, [1] * CLIENTS))
        before = _totals(servers)
        seconds, _ = _timed(lambda: list(clients.map(_scan, urls, [SCANS] * CLIENTS)))
        scans = _totals(servers) - before
        before = _totals(servers)
        list(clients.map(_read_small, urls, [stage.data.version("dm")] * CLIENTS))
        small = _totals(servers) - before
    sent = CLIENTS * SCANS * size
    found = {
        "servers": count,
        "cold read, s": round(cold_seconds, 2),
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


class _Totals:
    """What servers have done since they started, together."""

    def __init__(self, cpu_seconds: float, hits: float, misses: float) -> None:
        self.cpu_seconds = cpu_seconds
        self.hits = hits
        self.misses = misses

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


def _compression(server: Server, table: pa.Table) -> Sequence[dict[str, Any]]:
    """What each codec makes of the table, and the time that takes: medians of rounds in turn."""
    codecs = (None, "lz4", "zstd")
    connections = {
        codec: datom_flight.connect(server.url, STUDY, token=server.token, compression=codec) for codec in codecs
    }
    seconds: dict[str | None, list[float]] = {codec: [] for codec in codecs}
    for _ in range(ROUNDS):
        for codec, connection in connections.items():
            seconds[codec].append(_timed(partial(connection.read, "lb"))[0])
    for connection in connections.values():
        connection.close()
    return [
        {
            "compression": codec or "none",
            "on the wire, MB": round(_wire_bytes(table, codec) / _MB),
            "read, s": round(sorted(seconds[codec])[ROUNDS // 2], 2),
        }
        for codec in codecs
    ]


def _wire_bytes(table: pa.Table, codec: str | None) -> int:
    sink = pa.MockOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    return int(sink.size())


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


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
