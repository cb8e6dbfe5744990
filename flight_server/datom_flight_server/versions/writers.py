"""A writer for each project that can be written to, and what keeps their storage up with git."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from datom_flight.protocol.errors import DatomError, InvalidRequestError

from ..metadata.git import DataRepository
from ..model import Project, RepositoryAccess
from ..storage.base import WritableStore
from .writer import Writer

_CLOSE_SECONDS = 5
_log = logging.getLogger(__name__)


class Writers:
    """Writers by project, made on first use and again when the settings of a project change.

    Between `start` and `close`, each writable project is reconciled: whole at first, then what lags, every
    `reconcile_seconds`.

    Args:
        projects: those known now.
        open_repository: a project's data repository; must not wait for the remote.
        open_store: a project's objects; must not wait for the storage.
    """

    def __init__(
        self,
        projects: Callable[[], Iterable[Project]],
        open_repository: Callable[[RepositoryAccess], DataRepository],
        open_store: Callable[[Project], WritableStore],
        reconcile_seconds: float = 30,
    ) -> None:
        self._projects = projects
        self._open_repository = open_repository
        self._open_store = open_store
        self._reconcile_seconds = reconcile_seconds
        self._lock = threading.Lock()
        self._writers: dict[str, tuple[Project, Writer]] = {}
        self._reconciled: set[str] = set()
        self._problems: dict[str, str] = {}
        self._agreed: dict[str, float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)

    def writer(self, project: Project) -> Writer:
        """The writer of `project`.

        Raises:
            InvalidRequestError: ``unsupported`` when the project has no data repository here.
        """
        if project.repository is None:
            raise InvalidRequestError(
                f'project "{project.name}" cannot be written to here: its data repository is not known',
                code="unsupported",
                hint=f"whoever runs the server can set projects.{project.name}.repo",
            )
        with self._lock:
            known = self._writers.get(project.name)
            if known is not None and known[0] == project:
                return known[1]
            writer = Writer(self._open_repository(project.repository), self._open_store(project))
            self._writers[project.name] = project, writer
            return writer

    def start(self) -> None:
        """Begin to reconcile."""
        self._thread.start()

    def close(self) -> None:
        """End reconciling; what is under way gets a little time."""
        self._closed.set()
        if self._thread.is_alive():
            # a remote that hangs must not hold up the end: whatever is cut off is found again at the next start
            self._thread.join(_CLOSE_SECONDS)

    def problems(self) -> list[str]:
        """The projects whose storage could not be brought up to git, one sentence each."""
        return list(self._problems.values())

    def lags(self) -> dict[str, float]:
        """For each project that is reconciled, the seconds since its storage was known to say what git says."""
        agreed, now = self._agreed.copy(), time.monotonic()
        return {project.name: now - agreed[project.name] for project in self._projects() if project.name in agreed}

    def _run(self) -> None:
        while not self._closed.is_set():
            for project in self._projects():
                if project.repository is not None and not self._closed.is_set():
                    self._reconcile(project)
            self._closed.wait(self._reconcile_seconds)

    def _reconcile(self, project: Project) -> None:
        self._agreed.setdefault(project.name, time.monotonic())
        began = time.monotonic()
        try:
            acts = self.writer(project).reconcile(thorough=project.name not in self._reconciled)
        except DatomError as error:
            self._note(project, f"storage may lag behind git: {error.code}: {error.message}")
            return
        except Exception:
            # a fault of ours in one project must not end the thread that keeps all others up
            _log.exception("project %s cannot be reconciled", project.name)
            self._note(project, "storage may lag behind git: internal: the log has more")
            return
        for act in acts:
            if act.done:
                _log.warning("project %s: %s %s, written as git has it", project.name, act.key, act.reason)
        self._note(project, "; ".join(f"{act.key} {act.reason}" for act in acts if not act.done))
        self._reconciled.add(project.name)
        if all(act.done for act in acts):
            self._agreed[project.name] = began

    def _note(self, project: Project, problem: str) -> None:
        """Keep what is wrong with `project` now, or that nothing is, and log it once."""
        if not problem:
            self._problems.pop(project.name, None)
            return
        sentence = f"project {project.name}: {problem}"
        if self._problems.get(project.name) != sentence:
            _log.warning("%s", sentence)
        self._problems[project.name] = sentence
