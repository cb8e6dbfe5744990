"""How fast ``data_sha`` is, beside plain sha256 over the same bytes: ``python bench/identity.py [rows]``.

Lab results, half of them text, in memory; one core; best of five, CPU time. Shared machines drift: read the ratio.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from collections.abc import Callable

import pyarrow as pa

from datom_flight.identity import data_sha

ROUNDS = 5


def lab_results(rows: int) -> pa.Table:
    """`rows` of five text columns and five of numbers, from a fixed seed."""
    chance = random.Random(20260105)
    subjects = [f"STUDY_001-{site}-{number:04d}" for site in (101, 102, 201) for number in range(500)]
    tests = ["ALB", "ALT", "AST", "BILI", "CREAT", "GLUC", "HGB", "PLAT", "WBC"]
    pick = chance.choices
    values = [round(chance.uniform(1, 400), 1) for _ in range(rows)]
    return pa.table(
        {
            "USUBJID": sorted(pick(subjects, k=rows)),
            "LBTESTCD": pick(tests, k=rows),
            "LBORRES": [str(value) for value in values],
            "LBORRESU": pick(["U/L", "mmol/L", "g/L"], k=rows),
            "LBDTC": [f"2026-{1 + index % 12:02d}-{1 + index % 28:02d}" for index in range(rows)],
            "LBSTRESN": values,
            "LBSTNRLO": pick([7.0, 35.0], k=rows),
            "VISITNUM": pick([1.0, 2.0, 3.0], k=rows),
            "LBSEQ": pa.array(range(rows), pa.int32()),
            "LBDY": pa.array(chance.choices(range(-7, 200), k=rows), pa.int32()),
        }
    )


def best_seconds(work: Callable[[], object]) -> float:
    """The least CPU time of `ROUNDS` runs."""
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def plain_sha256(table: pa.Table) -> None:
    """One sha256 over every byte that the table's buffers hold."""
    digest = hashlib.sha256()
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in filter(None, chunk.buffers()):
                digest.update(buffer)


def main() -> None:
    """Print one line of figures."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    table = lab_results(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000)
    megabytes = table.nbytes / 1e6
    ours, plain = best_seconds(lambda: data_sha(table)), best_seconds(lambda: plain_sha256(table))
    print(
        f"{table.num_rows} rows, {megabytes:.0f} MB of Arrow: data_sha {megabytes / ours:.0f} MB/s, "
        f"sha256 {megabytes / plain:.0f} MB/s, ratio {plain / ours:.2f}"
    )


if __name__ == "__main__":
    main()
