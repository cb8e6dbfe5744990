"""What ``datom-flight-server repair`` does: bring the storage of projects to what their data repositories say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datom_flight.protocol.errors import DatomError, InvalidRequestError

from .auth.base import no_such_project
from .governance.base import ProjectSource
from .governance.configured import project_source
from .model import Project
from .repositories import Repositories
from .settings import Settings
from .stores import Stores
from .versions.mirror import Act
from .versions.writer import Writer


def repair(settings: Settings, names: Sequence[str] = ()) -> Iterator[tuple[str, Act | DatomError]]:
    """Repair projects, and tell each act, or what kept one from being repaired, as it happens.

    Args:
        names: of projects; empty is every one whose data repository the settings name.

    Raises:
        DatomError: ``not_found`` or ``invalid_argument`` when a project named is not known, or cannot be written to.
    """
    source = project_source(settings)
    source.start()
    try:
        chosen = _chosen(source, names)
        repositories, stores = Repositories(settings.cache.directory / "repositories"), Stores()
        for project in chosen:
            assert project.repository is not None
            repository = repositories.open(project.repository)
            try:
                for act in Writer(repository, stores.open(project)).reconcile(thorough=True):
                    yield project.name, act
            except DatomError as error:
                yield project.name, error
            finally:
                repository.close()
    finally:
        source.close()


def _chosen(source: ProjectSource, names: Sequence[str]) -> list[Project]:
    if not names:
        return [project for project in source.projects().values() if project.repository is not None]
    chosen = []
    for name in names:
        project = source.find(name)
        if project is None:
            raise no_such_project(name)
        if project.repository is None:
            raise InvalidRequestError(
                f'the data repository of project "{name}" is not known', hint=f"set projects.{name}.repo"
            )
        chosen.append(project)
    return chosen
