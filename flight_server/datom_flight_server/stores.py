"""A project's objects, from where its data is and how to get there."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from datom_flight.protocol.errors import DatomError

from .model import Project, S3Access
from .outcomes import Outcomes
from .storage.base import WritableStore
from .storage.local import LocalStore
from .storage.observed import ObservedStore

if TYPE_CHECKING:
    from .storage.s3_clients import S3Clients


class Stores:
    """Opens projects' stores; those with the same access share their connections.

    Attributes:
        outcomes: of all that was asked of them.
    """

    def __init__(self) -> None:
        self.outcomes = Outcomes()
        self._lock = threading.Lock()
        self._s3: S3Clients | None = None

    @property
    def retries(self) -> int:
        """How often requests of S3 were sent again."""
        return self._s3.retries if self._s3 is not None else 0

    def open(self, project: Project) -> WritableStore:
        """The objects of `project`. Nothing is asked of the storage yet."""
        return ObservedStore(self._open(project), self.outcomes)

    def prepare(self, projects: Iterable[Project]) -> None:
        """Begin to make what the first requests would wait for. What cannot be made now is made when it is needed."""
        accesses = {project.access for project in projects if project.location.backend == "s3"}
        if accesses:
            threading.Thread(target=self._prepare, args=(accesses,), name="prepare", daemon=True).start()

    def _prepare(self, accesses: Iterable[S3Access]) -> None:
        from .storage.s3_errors import FAILURES

        for access in accesses:
            with suppress(DatomError, *FAILURES):
                self._clients().reading(access)

    def _open(self, project: Project) -> WritableStore:
        location = project.location
        if location.backend == "s3":
            # loaded by servers that need it: it takes a fifth of a second
            from .storage.s3 import S3Store

            return S3Store(location.root, location.prefix, project.access, self._clients())
        return LocalStore(location.root, location.prefix)

    def _clients(self) -> S3Clients:
        from .storage.s3_clients import S3Clients

        with self._lock:
            self._s3 = self._s3 or S3Clients()
            return self._s3
