"""Projects from a governance repository, refreshed behind the scenes."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from datom_flight.protocol.errors import DatomError, UnavailableError
from datom_flight.protocol.names import validate_name

from ..model import Project
from ..outcomes import Outcomes
from .clone import Clone
from .references import parse_reference

REFRESH_SECONDS = 10
FIND_SECONDS = 15
RETRY_SECONDS = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a project's record cannot be used."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class _State:
    """What one commit says; commit None is nothing known yet."""

    commit: str | None = None
    projects: Mapping[str, Project] = field(default_factory=dict)
    faults: Mapping[str, _Fault] = field(default_factory=dict)


class GovernanceRepository:
    """A `ProjectSource`: the ``projects/*/ref.json`` at the tip of a repository's default branch.

    A thread of its own fetches every `refresh_seconds`, and at once when an unknown name is asked for. When the
    repository cannot be reached, the last good copy serves, one on disk from an earlier run included.

    Args:
        url: https, ssh, or a folder.
        token: for https; None is no authentication, or the ssh agent's.
        directory: below it the clone is kept, in a folder of its own for each `url`.

    Attributes:
        outcomes: of all fetches.
    """

    def __init__(self, url: str, token: str | None, directory: Path, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self.url = url
        self.outcomes = Outcomes()
        self._read_at: float | None = None
        place = directory / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.git"
        self._clone = Clone(url, token, place, lambda: self._closed)
        self._refresh_seconds = refresh_seconds
        self._state = _State()
        self._failure: str | None = None
        self._failing_since: datetime | None = None
        self._attempted: float = -RETRY_SECONDS
        # fetches are numbered: asked for, begun and ended, so that an asker can wait for one that began after asking
        self._changed = threading.Condition()
        self._asked = self._begun = self._ended = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """See `ProjectSource.start`. Returns after the first fetch, whether or not it went well."""
        self._thread = threading.Thread(target=self._run, name="governance", daemon=True)
        self._thread.start()
        self._fetch_now()

    def close(self) -> None:
        """See `ProjectSource.close`. A fetch under way is left to end on its own."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=1)

    def refresh(self) -> None:
        """See `ProjectSource.refresh`."""
        with self._changed:
            self._asked = self._begun + 1
            self._changed.notify_all()

    def projects(self) -> Mapping[str, Project]:
        """See `ProjectSource.projects`."""
        return self._state.projects

    def find(self, name: str) -> Project | None:
        """See `ProjectSource.find`."""
        if not self._knows(name) and not self._fetch_now():
            raise UnavailableError(
                f'the governance repository cannot be reached, so whether there is a project "{name}" is not known',
                code="store_unreachable",
            )
        state = self._state
        if name in state.faults:
            raise DatomError.of(state.faults[name].code, state.faults[name].message)
        return state.projects.get(name)

    def problems(self) -> list[str]:
        """See `ProjectSource.problems`."""
        failure = [self._failure] if self._failure else []
        return failure + [f"governance: {fault.message}" for fault in self._state.faults.values()]

    def age_seconds(self) -> float | None:
        """See `ProjectSource.age_seconds`."""
        return None if self._read_at is None else time.monotonic() - self._read_at

    def _knows(self, name: str) -> bool:
        return name in self._state.projects or name in self._state.faults

    def _fetch_now(self) -> bool:
        """Wait for a fetch that began after this call, shared with all who wait; whether it went well."""
        with self._changed:
            if self._failure and time.monotonic() - self._attempted < RETRY_SECONDS:
                return False
            number = self._asked = self._begun + 1
            self._changed.notify_all()
            ended = self._changed.wait_for(lambda: self._ended >= number or self._closed, FIND_SECONDS)
            return ended and not self._closed and self._failure is None

    def _run(self) -> None:
        # what is on disk serves until the first fetch; whatever is wrong with it, that fetch mends
        self._attempt(self._clone.commit)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._asked > self._begun, self._refresh_seconds)
                if self._closed:
                    return
                self._begun += 1
            failure = self._attempt(self._fetch)
            with self._changed:
                self._note(failure)
                self._ended = self._begun
                self._changed.notify_all()

    def _fetch(self) -> str:
        with self.outcomes.of("fetch"):
            return self._clone.fetch()

    def _attempt(self, look: Callable[[], str | None]) -> str | None:
        try:
            self._load(look())
        except DatomError as error:
            return error.message
        # a fault of our own must not end the thread: it would leave the projects as they are for ever, unnoticed
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _load(self, commit: str | None) -> None:
        if commit is None or commit == self._state.commit:
            return
        projects: dict[str, Project] = {}
        faults: dict[str, _Fault] = {}
        for name, data in self._clone.references(commit).items():
            try:
                projects[validate_name(name, "project")] = parse_reference(name, data)
            except DatomError as error:
                faults[name] = _Fault(error.code, error.message)
        self._state = _State(commit, projects, faults)

    def _note(self, failure: str | None) -> None:
        self._attempted = time.monotonic()
        if failure is None:
            self._read_at = self._attempted
            if self._failing_since is not None:
                _log.warning('the governance repository "%s" can be reached again', self.url)
            self._failure, self._failing_since = None, None
            return
        first = self._failing_since is None
        self._failing_since = self._failing_since or datetime.now(UTC)
        serving = "serving the last good copy" if self._state.commit else "no project is known from it"
        self._failure = (
            f'the governance repository "{self.url}" cannot be read since {_instant(self._failing_since)}'
            f" ({failure}); {serving}"
        )
        if first:
            _log.warning("%s", self._failure)


def _instant(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
