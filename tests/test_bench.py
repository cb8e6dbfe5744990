"""The benchmark runs from end to end, on next to no data; what it finds then says nothing, how it says it does."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CASES = ("scan", "adbc-scan", "small", "write")
ROUNDS = 2


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    only = [argument for case in CASES for argument in ("--only", case)]
    line = [sys.executable, "-m", "bench", "--size", "tiny", "--rounds", str(ROUNDS), "--data", str(folder), *only]
    # the commands it starts stand beside this Python
    done = subprocess.run(line, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "results"


def test_every_case_asked_for_is_measured_in_every_round(results: Path) -> None:
    found = json.loads((results / "bench.json").read_text())
    assert [case["name"] for case in found["cases"]] == list(CASES)
    assert found["rounds"] == ROUNDS
    for case in found["cases"]:
        for contender in case["contenders"].values():
            assert len(contender["seconds"]) % ROUNDS == 0
            assert contender["median_seconds"] == statistics.median(contender["seconds"])
            assert min(contender["seconds"]) > 0


def test_ratios_compare_medians_with_ours(results: Path) -> None:
    for case in json.loads((results / "bench.json").read_text())["cases"]:
        contenders = case["contenders"]
        ours = contenders[case["ours"]]["median_seconds"]
        assert case["ratios"].keys() == contenders.keys() - {case["ours"]}
        for name, ratio in case["ratios"].items():
            assert ratio == pytest.approx(contenders[name]["median_seconds"] / ours)


def test_every_bar_is_judged_unless_its_peer_is_missing(results: Path) -> None:
    bars = [bar for case in json.loads((results / "bench.json").read_text())["cases"] for bar in case["bars"]]
    judged = [bar for bar in bars if bar["holds"] is not None]
    assert {bar["bar"] for bar in bars if bar["holds"] is None} <= {"≥ 2 × ROAPI", "≥ 2 × Sail"}
    assert all(bar["value"] > 0 for bar in judged)
    table = (results / "bench.md").read_text()
    assert all(f"**{bar['bar']}**" in table for bar in bars)
    assert table.count("| yes |") + table.count("| NO |") == len(judged)


def test_the_servers_memory_stands_beside_the_case(results: Path) -> None:
    for case in json.loads((results / "bench.json").read_text())["cases"]:
        assert case["contenders"][case["ours"]]["peak_bytes"] > 10**7


def test_layouts_are_measured_side_by_side() -> None:
    line = [sys.executable, "-m", "bench.layouts", "2000"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    header, _, *layouts = rows
    assert header[:4] == ["layout", "write", "MB", "row groups"]
    assert layouts[0][0] == "chosen"
    assert all(len(row) == len(header) and all(float(value) > 0 for value in row[1:]) for row in layouts)
