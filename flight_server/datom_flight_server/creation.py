"""What ``datom-flight-server init`` does: begin a project where the settings say it will be."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from datom_flight.protocol.errors import InvalidRequestError

from .auth.base import no_such_project
from .governance.configured import project_source
from .metadata.bare import COMMITTER
from .repositories import Repositories
from .settings import Settings
from .stores import Stores
from .versions.creation import create_project


def begin(settings: Settings, name: str) -> str:
    """Begin the project `name`; its first commit. A local folder that is not there yet is made.

    Raises:
        DatomError: ``not_found`` when the settings do not name it; else as `create_project`.
        OSError: when the folder cannot be made.
    """
    source = project_source(settings)
    source.start()
    try:
        project = source.find(name)
    finally:
        source.close()
    if project is None:
        raise no_such_project(name)
    if project.repository is None:
        raise InvalidRequestError(f'project "{name}" has no data repository', hint=f"set projects.{name}.repo")
    if project.location.backend == "local":
        Path(project.location.root).mkdir(parents=True, exist_ok=True)
    store = Stores().open(project)
    repository = Repositories(settings.cache.directory / "repositories").open(project.repository)
    try:
        return create_project(project, project.repository, repository, store, COMMITTER, datetime.now(UTC))
    finally:
        repository.close()
