"""What happened in a soak, as figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from .course import Soak
from .verdict import MEBIBYTE, long_lived

_EVERY = 5  # one of so many samples is kept


def figures(soak: Soak) -> dict[str, Any]:
    """All of them, for JSON. Once both replicas have ended."""
    kinds: dict[str, Any] = {}
    for kind in sorted({entry.kind for entry in soak.entries}):
        chosen = [entry for entry in soak.entries if entry.kind == kind]
        seconds = sorted(entry.seconds for entry in chosen)
        cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else seconds * 99
        kinds[kind] = {
            "requests": len(chosen),
            "errors": sum(entry.error is not None for entry in chosen),
            "p50_ms": round(1000 * cuts[49], 1),
            "p99_ms": round(1000 * cuts[98], 1),
            "max_ms": round(1000 * seconds[-1], 1),
        }
    first, last = long_lived(soak)
    codes = Counter[str]()
    for key, count in soak.replicas.counted.items():
        name, *labels = key.split(" ")
        codes[" ".join([name, *(label for label in labels if label.startswith("code="))])] += count
    return {
        "seed": soak.course.seed,
        "seconds": soak.course.seconds,
        "requests": kinds,
        "kills": len(soak.replicas.absences),
        "dead_seconds": round(sum(absence.ended - absence.began for absence in soak.replicas.absences), 1),
        "faults": {name: dict(weather.met) for name, weather in soak.weathers.items()},
        "acknowledged": sum(entry.wrote is not None for entry in soak.entries),
        "counted": dict(sorted(codes.items())),
        "spared": {
            "seconds": round(last[-1].age - first[0].age),
            "rss_mib": [round(median(sample.rss_bytes for sample in part) / MEBIBYTE) for part in (first, last)],
            "descriptors": [round(median(sample.descriptors for sample in part)) for part in (first, last)],
        }
        if last
        else None,
        "most": {
            "rss_mib": round(max(sample.rss_bytes for sample in soak.replicas.samples) / MEBIBYTE),
            "descriptors": max(sample.descriptors for sample in soak.replicas.samples),
        },
        "samples": [astuple(sample) for sample in soak.replicas.samples[::_EVERY]],
    }


def show(found: dict[str, Any], console: Console) -> None:
    """The same, for people."""
    table = Table("kind", box=None)
    for name in ("requests", "errors", "p50 ms", "p99 ms", "max ms"):
        table.add_column(name, justify="right")
    for kind, row in found["requests"].items():
        table.add_row(kind, *(f"{row[key]:,}" for key in ("requests", "errors", "p50_ms", "p99_ms", "max_ms")))
    console.print(table)
    most, spared = found["most"], found["spared"]
    lines = [
        f"{found['seconds']:.0f} s, seed {found['seed']}; {found['kills']} kills, dead for {found['dead_seconds']} s",
        *(f"faults on the way to {name}: {met}" for name, met in found["faults"].items()),
        f"{found['acknowledged']} writes acknowledged",
        f"at most {most['rss_mib']} MiB and {most['descriptors']} descriptors",
        *(f"{key}: {count:,}" for key, count in found["counted"].items()),
    ]
    if spared is not None:
        rss, descriptors = spared["rss_mib"], spared["descriptors"]
        lines.append(
            f"the replica that was spared, over {spared['seconds']} s: "
            f"{rss[0]} → {rss[1]} MiB, {descriptors[0]} → {descriptors[1]} descriptors"
        )
    for line in lines:
        console.print(line, highlight=False)
