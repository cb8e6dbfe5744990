"""Projects as the settings name them, together with those a governance repository registers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..model import Project, RepositoryAccess, S3Access
from ..outcomes import Outcomes
from ..settings import Settings
from .base import ProjectSource


class ConfiguredProjects:
    """A `ProjectSource`: named projects first, then `governed` ones, reached as the settings say.

    Args:
        named: projects whose data the settings place; they hide governed ones of the same name.
        access: how to reach a project's bucket, by the project's name; for governed ones.
        repositories: where the data repositories of governed projects are, by the project's name.
        governed: where all other projects come from.
    """

    def __init__(
        self,
        named: Mapping[str, Project],
        access: Mapping[str, S3Access] | None = None,
        governed: ProjectSource | None = None,
        repositories: Mapping[str, RepositoryAccess] | None = None,
    ) -> None:
        self._named = dict(named)
        self._access = dict(access or {})
        self._repositories = dict(repositories or {})
        self._governed = governed

    @property
    def outcomes(self) -> Outcomes:
        """See `ProjectSource.outcomes`."""
        return Outcomes() if self._governed is None else self._governed.outcomes

    def renew(self, other: ConfiguredProjects) -> None:
        """Name the projects that `other` names, reached as it says. Where governed ones come from stays."""
        self._named, self._access, self._repositories = other._named, other._access, other._repositories

    def start(self) -> None:
        """See `ProjectSource.start`."""
        if self._governed is not None:
            self._governed.start()

    def close(self) -> None:
        """See `ProjectSource.close`."""
        if self._governed is not None:
            self._governed.close()

    def refresh(self) -> None:
        """See `ProjectSource.refresh`."""
        if self._governed is not None:
            self._governed.refresh()

    def projects(self) -> Mapping[str, Project]:
        """See `ProjectSource.projects`; sorted by name."""
        governed = self._governed.projects().values() if self._governed is not None else ()
        found = {project.name: self._reached(project) for project in governed} | self._named
        return dict(sorted(found.items()))

    def find(self, name: str) -> Project | None:
        """See `ProjectSource.find`."""
        if name in self._named or self._governed is None:
            return self._named.get(name)
        project = self._governed.find(name)
        return project and self._reached(project)

    def problems(self) -> list[str]:
        """See `ProjectSource.problems`."""
        return self._governed.problems() if self._governed is not None else []

    def age_seconds(self) -> float | None:
        """See `ProjectSource.age_seconds`."""
        return None if self._governed is None else self._governed.age_seconds()

    def hidden(self) -> Mapping[str, Project]:
        """The governed projects that are served from where the settings place their data instead."""
        governed = self._governed.projects() if self._governed is not None else {}
        return {name: project for name, project in governed.items() if name in self._named}

    def _reached(self, project: Project) -> Project:
        access = self._access.get(project.name)
        if access is None:
            return project
        return replace(
            project,
            access=replace(access, region=access.region or project.access.region),
            repository=self._repositories.get(project.name),
        )


def project_source(settings: Settings) -> ConfiguredProjects:
    """The projects that `settings` name and find, not started yet."""
    governed = None
    if settings.governance is not None:
        # git is loaded by servers that need it
        from .repository import GovernanceRepository

        token = settings.governance.token
        governed = GovernanceRepository(
            settings.governance.repo,
            token.get_secret_value() if token else None,
            settings.cache.directory / "governance",
        )
    return ConfiguredProjects(
        named={
            name: Project(name, table.data, table.access, table.repository)
            for name, table in settings.projects.items()
            if table.data
        },
        access={name: table.access for name, table in settings.projects.items()},
        governed=governed,
        repositories={name: table.repository for name, table in settings.projects.items() if table.repository},
    )
