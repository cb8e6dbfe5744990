"""What knows projects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..model import Project
from ..outcomes import Outcomes


class ProjectSource(Protocol):
    """Projects by name. Safe to use from many threads between `start` and `close`."""

    @property
    def outcomes(self) -> Outcomes:
        """Of all looks at where projects are registered."""
        ...

    def start(self) -> None:
        """Begin to know projects. A place that cannot be reached is a problem, not a failure."""
        ...

    def close(self) -> None:
        """End what `start` began. What is known stays known."""
        ...

    def refresh(self) -> None:
        """Ask for a fresh look, soon; returns at once."""
        ...

    def projects(self) -> Mapping[str, Project]:
        """The projects known now, by name."""
        ...

    def find(self, name: str) -> Project | None:
        """The project `name`, or None when there is none; a name not known yet is asked for before saying so.

        Raises:
            DatomError: ``metadata_corrupt`` or ``document_unreadable`` when the project's own record is damaged;
                ``store_unreachable`` when nobody can say whether there is such a project.
        """
        ...

    def age_seconds(self) -> float | None:
        """How old what is known is; None where it cannot change, or nothing is known yet."""
        ...

    def problems(self) -> list[str]:
        """What is wrong now, one sentence each, for those who run the server."""
        ...
