"""``python -m support.soak``: fifty clients, two replicas, and everything that can fail, for as long as wanted."""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from .course import Course, Soak
from .report import figures, show
from .verdict import findings

_KILL_SECONDS = 60.0
_SPARED_SHARE = 0.4


def main() -> None:
    """Run one, show what happened and what is wrong, and fail if anything is."""
    asked = _arguments()
    # as Ctrl-C: what was started is ended
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before its time"))
    console = Console(width=120)
    seconds = asked.minutes * 60
    course = Course(seconds, min(_KILL_SECONDS, seconds / 5), seconds * _SPARED_SHARE, asked.seed)
    console.print(f"soaking for {asked.minutes:g} minutes, seed {asked.seed}", highlight=False)
    with tempfile.TemporaryDirectory() as folder, Soak(course, Path(folder)) as soak:
        soak.run()
        wrong = findings(soak)
        found = figures(soak)
    asked.save.parent.mkdir(parents=True, exist_ok=True)
    asked.save.write_text(json.dumps({**found, "findings": wrong}, indent=2) + "\n")
    show(found, console)
    for line in wrong:
        console.print(f"WRONG: {line}", highlight=False, markup=False)
    console.print(f"{len(wrong)} findings; saved in {asked.save}", highlight=False)
    sys.exit(1 if wrong else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m support.soak")
    parser.add_argument("--minutes", type=float, default=20, help="20 unless given")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of all that is by chance")
    parser.add_argument("--save", type=Path, default=Path("soak.json"), help="where the figures go; soak.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
