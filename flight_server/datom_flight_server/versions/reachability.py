"""Whether the places where projects keep their data can be reached."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from datom_flight.protocol.errors import DatomError

from ..model import Project
from ..storage.base import ObjectStore

_CHECKS_AT_ONCE = 8


class Reachability:
    """Answers what cannot be reached, asking the storage no more often than every `max_age_seconds`.

    Projects in one bucket or folder are asked for once.

    Args:
        projects: those known now.
        open_store: a project's objects.
    """

    def __init__(
        self,
        projects: Callable[[], Iterable[Project]],
        open_store: Callable[[Project], ObjectStore],
        max_age_seconds: float = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._projects = projects
        self._open_store = open_store
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._checked = float("-inf")
        self._problems: list[str] = []

    def problems(self) -> list[str]:
        """One sentence for each place that cannot be reached, naming a project there."""
        with self._lock:
            if self._clock() - self._checked > self._max_age_seconds:
                places = {(project.location.backend, project.location.root): project for project in self._projects()}
                with ThreadPoolExecutor(_CHECKS_AT_ONCE, thread_name_prefix="reachability") as pool:
                    self._problems = [problem for problem in pool.map(self._problem, places.values()) if problem]
                self._checked = self._clock()
            return list(self._problems)

    def _problem(self, project: Project) -> str | None:
        try:
            self._open_store(project).check()
        except DatomError as error:
            return f"project {project.name}: {error.code}: {error.message}"
        return None
