"""The projects that can be read, each with the catalog of its tables."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..auth.base import no_such_project
from ..governance.base import ProjectSource
from ..model import Project
from ..storage.base import ObjectStore
from .catalog import Catalog
from .documents import Documents


class Projects:
    """Catalogs by project name, opened on first use and again when a project's data has moved.

    Args:
        source: which projects there are, and where.
        open_store: a project's objects; must not wait for the storage.
        documents: the cache all catalogs share.
    """

    def __init__(
        self, source: ProjectSource, open_store: Callable[[Project], ObjectStore], documents: Documents
    ) -> None:
        self._source = source
        self._open_store = open_store
        self._documents = documents
        self._catalogs: dict[str, Catalog] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Every project known now, in name order."""
        return sorted(self._source.projects())

    def catalog(self, name: str) -> Catalog:
        """The catalog of the project `name`.

        Raises:
            NotFoundError: ``not_found`` when there is no such project.
            DatomError: what is wrong with the project's registration.
        """
        project = self._source.find(name)
        if project is None:
            raise no_such_project(name)
        with self._lock:
            catalog = self._catalogs.get(name)
            if catalog is None or catalog.project != project:
                catalog = self._catalogs[name] = Catalog(project, self._open_store(project), self._documents)
            return catalog
