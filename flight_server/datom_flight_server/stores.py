"""A project's objects, from where its data is and how to get there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .model import Project
from .storage.base import WritableStore
from .storage.local import LocalStore

if TYPE_CHECKING:
    from .storage.s3_clients import S3Clients


class Stores:
    """Opens projects' stores; those with the same access share their connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._s3: S3Clients | None = None

    def open(self, project: Project) -> WritableStore:
        """The objects of `project`. Nothing is asked of the storage yet."""
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
