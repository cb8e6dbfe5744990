"""The ratios as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from .report import Found

_FASTER, _SLOWER = "#2a6f97", "#c8553d"


def draw(found: list[Found], path: Path) -> None:
    """An SVG at `path`: bars on a logarithmic scale, to the right where ours is faster."""
    bars = [(f"{one.case.what}: {name}", ratio) for one in found for name, ratio in one.ratios()]
    figure = Figure(figsize=(9, 0.26 * len(bars) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        [name for name, _ in bars],
        [ratio - 1 for _, ratio in bars],
        left=1,
        color=[_FASTER if ratio >= 1 else _SLOWER for _, ratio in bars],
    )
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.set_xlabel("times the time of ours: medians of one run", fontsize=8)
    # the same figures make the same file
    with mpl.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
