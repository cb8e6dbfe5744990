"""A project's objects, from where its data is and how to get there."""

from __future__ import annotations

from .model import Project
from .storage.base import WritableStore
from .storage.local import LocalStore
from .storage.s3 import S3Store
from .storage.s3_clients import S3Clients


class Stores:
    """Opens projects' stores; those with the same access share their connections."""

    def __init__(self) -> None:
        self._clients = S3Clients()

    def open(self, project: Project) -> WritableStore:
        """The objects of `project`. Nothing is asked of the storage yet."""
        location = project.location
        if location.backend == "s3":
            return S3Store(location.root, location.prefix, project.access, self._clients)
        return LocalStore(location.root, location.prefix)
