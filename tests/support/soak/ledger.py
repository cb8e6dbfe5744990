"""What clients did, a line of JSON each, so that nothing is forgotten when a process ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Entry:
    """One request of a client, as its user saw it.

    Attributes:
        began: as `time.time` has it.
        error: what the user was told, or found wrong; None is all went well.
        replicas: those that must live for it, where the client knows no other; empty if any will do.
        wrote: table, version, writer and number of a write that was acknowledged.
    """

    kind: str
    began: float
    seconds: float
    error: str | None = None
    replicas: tuple[int, ...] = ()
    wrote: tuple[str, str, str, int] | None = None

    @property
    def ended(self) -> float:
        """As `time.time` has it."""
        return self.began + self.seconds


class Ledger:
    """Entries in a file, safe to add to from many threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, entry: Entry) -> None:
        """Write it down."""
        line = json.dumps(asdict(entry)) + "\n"
        with self._lock:
            self._file.write(line)


def entries(path: Path) -> Iterator[Entry]:
    """What was written down."""
    for line in path.read_text().splitlines():
        body = json.loads(line)
        wrote = body["wrote"]
        yield Entry(**{**body, "replicas": tuple(body["replicas"]), "wrote": tuple(wrote) if wrote else None})
