"""``python -m bench``: make the data, start what is compared, measure, report."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from . import report
from .cases import all_cases
from .data import FULL, QUICK, TINY, made
from .rounds import measure
from .stage import PEERS, Stage

_SIZES = {size.name: size for size in (FULL, QUICK, TINY)}
_ROUNDS = 5
_QUICK_ROUNDS = 3
_WIDTH = 140


def main() -> None:
    """Measure what the arguments say."""
    asked = _arguments()
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    size = QUICK if asked.quick else _SIZES[asked.size]
    rounds = asked.rounds or (_QUICK_ROUNDS if asked.quick else _ROUNDS)
    data = made(size, asked.data, console.print)
    for peer in PEERS:
        if not Stage.has(peer):
            console.print(f"{peer} is not installed here: measured without it")
    folder = asked.save or asked.data / "results"
    found: list[report.Found] = []
    with Stage(data, asked.data / "stage") as stage:
        for name, case_of in all_cases().items():
            if asked.only and name not in asked.only:
                continue
            console.print(f"measuring {name}", highlight=False)
            case = case_of(stage)
            found.append(report.Found(case, measure(case, rounds)))
            # as it goes, so that a run that is ended has not been for nothing
            report.save(found, report.surroundings(size, rounds), folder)
    report.show(found, console)
    if find_spec("matplotlib") is None:
        console.print("matplotlib is not installed here: no chart")
    else:
        from .chart import draw

        draw(found, folder / "bench.svg")
    console.print(f"saved in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}", highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure datom-flight beside others.")
    parser.add_argument("--quick", action="store_true", help="smaller data, fewer rounds")
    parser.add_argument("--size", choices=list(_SIZES), default=FULL.name, help="of the data")
    parser.add_argument(
        "--only", action="append", choices=list(all_cases()), metavar="CASE", help="one case; repeatable"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help=f"{_ROUNDS} unless given; {_QUICK_ROUNDS} with --quick")
    parser.add_argument("--data", type=Path, default=Path("bench/.data"), help="where the data is kept")
    parser.add_argument("--save", type=Path, metavar="DIR", help="where the results go; DATA/results unless given")
    return parser.parse_args()


if __name__ == "__main__":
    main()
