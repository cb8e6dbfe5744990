"""The demo's organisation on disk: a governance repository, and STUDY_001 stored exactly in the format.

Below one folder: ``governance.git`` and its mirror ``governance/``, ``study-001.git``, and the data under
``storage/study-001/datom/``. Every step is one that can be repeated, so an organisation whose making was interrupted is
finished by making it again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from datom_flight.protocol.errors import InvalidRequestError

from ..metadata.documents import utc_text
from ..metadata.jsonlite import pretty
from ..metadata.layout import GOVERNANCE_KEY
from ..metadata.skeleton import INITIAL_MESSAGE, PROJECT_PATH, project_files, yaml_text
from ..model import DataLocation
from . import data
from .repository import DemoRepository
from .writer import DemoProject, mirror, put, versions, write_version

PROJECT = data.STUDY

_FOUNDED = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
_CUT_TIME = time(18, 0, tzinfo=UTC)

_ABOUT = "A synthetic study for trying things on."


@dataclass(frozen=True, slots=True)
class Organisation:
    """The demo organisation in the folder `root`; `create_organisation` gives one that is there."""

    root: Path

    @property
    def governance_repository(self) -> Path:
        """The bare governance repository."""
        return self.root / "governance.git"

    @property
    def governance_storage(self) -> Path:
        """The root of the governance repository's mirror."""
        return self.root / "governance"

    @property
    def project(self) -> DemoProject:
        """The one project it governs."""
        location = DataLocation("local", str(self.root / "storage"), "study-001")
        return DemoProject(PROJECT, self.root / "study-001.git", location)

    @property
    def cuts_written(self) -> int:
        """How many monthly cuts are in the store; the next one to arrive has the number after it."""
        # A cut's tables are written in order and every cut changes each of them, so the last counts whole cuts.
        return len(versions(self.project, data.TABLES[-1]))

    def write_cut(self, number: int, when: datetime | None = None) -> dict[str, str]:
        """Write all tables of a cut; the version of each, by name.

        A cut that is there already is not written again. Without `when`, the first table is written at 18:00 UTC
        of the cut's last day, each other one a minute after the one before.

        Raises:
            InvalidRequestError: ``invalid_argument`` when there is no such cut.
        """
        day = data.cut_day(number)
        start = when or datetime.combine(day, _CUT_TIME)
        return {
            name: write_version(
                self.project, name, table, f"{name}: cut {number}, data to {day}", start + timedelta(minutes=index)
            )
            for index, (name, table) in enumerate(data.cut(number).items())
        }


def create_organisation(directory: str | os.PathLike[str]) -> Organisation:
    """The demo organisation in `directory`, made there when it is not there yet; without any cut at first.

    Raises:
        InvalidRequestError: ``invalid_argument`` when the organisation found was made in another folder, and moved:
            its documents name the place where it was made.
    """
    organisation = Organisation(Path(directory).absolute())
    organisation.root.mkdir(parents=True, exist_ok=True)
    _create_project(organisation)
    _govern(organisation)
    return organisation


def _create_project(organisation: Organisation) -> None:
    project = organisation.project
    repository = DemoRepository(project.repository)
    found = repository.read(PROJECT_PATH)
    if found is None:
        files = project_files(project.name, project.location, str(project.repository), _FOUNDED, about=_ABOUT)
        repository.commit(files, INITIAL_MESSAGE, _FOUNDED)
    elif f"    root: {yaml_text(project.location.root)}\n".encode() not in found:
        raise InvalidRequestError(
            f'the demo organisation in "{organisation.root}" was made in another folder',
            hint="move it back to where it was made, or give another folder",
        )
    marker = {
        "gov_repo_url": str(organisation.governance_repository),
        "gov_storage": {"type": "local", "root": str(organisation.governance_storage)},
        "attached_at": utc_text(_FOUNDED),
    }
    repository.commit({".datom/governance.json": pretty(marker)}, f"Attach governance: {project.name}", _FOUNDED)
    put(project.objects / GOVERNANCE_KEY, pretty(marker))
    mirror(project)


def _govern(organisation: Organisation) -> None:
    """Register the project with the governance repository and its mirror."""
    project = organisation.project
    repository = DemoRepository(organisation.governance_repository)
    repository.commit(
        {"README.md": b"# acme-governance\n", "projects/.gitkeep": b""},
        "Initialize datom governance repository",
        _FOUNDED,
    )
    place = {"type": project.location.backend, "root": project.location.root, "prefix": project.location.prefix}
    readers = {"r": {"default": "datom::datom_read"}, "python": {"default": "datom.read"}}
    files = {
        f"projects/{project.name}/ref.json": pretty({"current": place, "previous": []}),
        f"projects/{project.name}/dispatch.json": pretty({"methods": readers}),
        f"projects/{project.name}/migration_history.json": pretty([]),
    }
    repository.commit(files, f"Register project {project.name}", _FOUNDED)
    for path, content in files.items():
        put(organisation.governance_storage / "datom" / path, content)
