"""Many readers at once, each with the whole table."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pyarrow.flight as fl

from .data import STUDY
from .rounds import Bar, Case, Contender, Timings
from .server import CACHE_BYTES
from .stage import Stage

_NUMBERS = (1, 4, 16, 64)
_ALLOWANCE_BYTES = 400 * 10**6


def readers(stage: Stage) -> Case:
    """One reader, four, sixteen and sixty-four."""
    connection = stage.server.connection(STUDY)
    connection.read("lb")

    def ours() -> None:
        for _ in connection.scan("lb"):
            pass

    def bare() -> None:
        reader = stage.bare_client.do_get(fl.Ticket(b"lb"))
        for _ in reader:
            pass

    return Case(
        "readers",
        "concurrent readers of the full scan, warm",
        {
            **{
                _name("ours", many): Contender(_at_once(ours, many), process=lambda: stage.server.process)
                for many in _NUMBERS
            },
            **{
                _name("bare Flight server", many): Contender(_at_once(bare, many), process=lambda: stage.bare)
                for many in _NUMBERS
            },
        },
        [
            Bar(
                "64 readers: throughput ≥ 0.85 of one reader's",
                lambda t: _share_of_one(t, "ours"),
                at_least=0.85,
                needs=(_name("ours", 1), _name("ours", 64)),
                ceiling=lambda t: _share_of_one(t, "bare Flight server"),
            ),
            Bar(
                "server peak ≤ its cache limit + 400 MB",
                lambda t: (t[_name("ours", 64)].peak_bytes or 0) / 10**6,
                at_most=(CACHE_BYTES + _ALLOWANCE_BYTES) / 10**6,
                unit="MB",
                needs=(_name("ours", 64),),
            ),
        ],
        ours=_name("ours", 64),
        warm=False,
        most_rounds=3,
    )


def _share_of_one(timings: Timings, who: str) -> float:
    return 64 * timings[_name(who, 1)].median / timings[_name(who, 64)].median


def _name(who: str, many: int) -> str:
    return f"{who}, {many} at once"


def _at_once(read: Callable[[], None], many: int) -> Callable[[], None]:
    def run() -> None:
        with ThreadPoolExecutor(many) as pool:
            for ended in [pool.submit(read) for _ in range(many)]:
                ended.result()

    return run
