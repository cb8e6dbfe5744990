"""A line on the terminal for reads and writes that take their time."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self

SILENT_SECONDS = 1.0


class RowProgress:
    """Shows on stderr, when it is a terminal, how many rows have passed, once a second has passed.

    A context manager; the line is gone when it ends.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.completed:,} rows"),
                TimeElapsedColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(self._title, total=None)
            self._timer = threading.Timer(SILENT_SECONDS, self._progress.start)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._progress.stop()

    def expect(self, rows: int | None) -> None:
        """Say how many rows there will be, from the first one."""
        if self._timer is not None:
            self._progress.update(self._task, total=rows, completed=0)

    def advance(self, rows: int) -> None:
        """Say that so many more rows have passed."""
        if self._timer is not None:
            self._progress.advance(self._task, rows)
