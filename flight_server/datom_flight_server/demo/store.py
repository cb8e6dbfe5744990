"""The demo's organisation on disk: a governance repository, and STUDY_001, written as any project is.

Below one folder: ``governance.git`` and its mirror ``governance/``, ``study-001.git``, and the data under
``storage/study-001/datom/``. Every step is one that can be repeated, so an organisation whose making was interrupted is
finished by making it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pygit2

from datom_flight.protocol.errors import InvalidRequestError

from ..metadata import jsonlite, layout
from ..metadata.bare import BareRepository
from ..metadata.current import history_path
from ..metadata.documents import utc_text
from ..metadata.git import Author
from ..metadata.jsonlite import pretty
from ..metadata.skeleton import PROJECT_PATH, yaml_text
from ..model import DataLocation, Project, RepositoryAccess
from ..storage.local import LocalStore
from ..versions.arrivals import Limits
from ..versions.creation import create_project
from ..versions.spool import Spool
from ..versions.writer import Writer, table_content
from . import data

PROJECT = data.STUDY
ENGINEER = Author("Dana Engineer", "dana@acme.example")

_BRANCH = "main"
_FOUNDED = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
_CUT_TIME = time(18, 0, tzinfo=UTC)
_LIMITS = Limits(max_bytes=10**9, max_rows=10**7, max_seconds=300)


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
    def project(self) -> Project:
        """The one project it governs."""
        return Project(PROJECT, DataLocation("local", str(self.root / "storage"), "study-001"))

    @property
    def data_repository(self) -> RepositoryAccess:
        """The project's bare data repository."""
        return RepositoryAccess(str(self.root / "study-001.git"), _BRANCH)

    @property
    def store(self) -> LocalStore:
        """The project's objects."""
        return LocalStore(self.project.location.root, self.project.location.prefix)

    @property
    def cuts_written(self) -> int:
        """How many whole monthly cuts are in the store; the next one to arrive has the number after it."""
        with _cloned(self.root, "study-001.git") as repository:
            return min(len(_versions(repository, name)) for name in data.TABLES)

    def write_cut(self, number: int, when: datetime | None = None) -> dict[str, str]:
        """Write all tables of a cut; the version of each, by name.

        A cut that is there already is not written again. Without `when`, the first table is written at 18:00 UTC
        of the cut's last day, each other one a minute after the one before.

        Raises:
            InvalidRequestError: ``invalid_argument`` when there is no such cut.
        """
        day = data.cut_day(number)
        start = when or datetime.combine(day, _CUT_TIME)
        spool = Spool(self.root, _LIMITS)
        written = {}
        with _cloned(self.root, "study-001.git") as repository:
            for index, (name, table) in enumerate(data.cut(number).items()):
                # every cut changes every table, so its versions are counted by cuts
                there = _versions(repository, name)
                if len(there) >= number:
                    written[name] = there[-number]
                    continue
                writer = Writer(repository, self.store, _stopped(start + timedelta(minutes=index)))
                with spool.receive(table.schema, table.to_batches()) as spooled:
                    message = f"{name}: cut {number}, data to {day}"
                    receipt = writer.write_table(name, table_content(spooled), ENGINEER, message=message)
                written[name] = receipt.version
        return written


def create_organisation(directory: str | os.PathLike[str]) -> Organisation:
    """The demo organisation in `directory`, made there when it is not there yet; without any cut at first.

    Raises:
        InvalidRequestError: ``invalid_argument`` when the organisation found was made in another folder, and moved:
            its documents name the place where it was made.
    """
    organisation = Organisation(Path(directory).absolute())
    organisation.root.mkdir(parents=True, exist_ok=True)
    Path(organisation.project.location.root).mkdir(exist_ok=True)
    _create_project(organisation)
    _govern(organisation)
    return organisation


def _create_project(organisation: Organisation) -> None:
    project, store = organisation.project, organisation.store
    with _cloned(organisation.root, "study-001.git") as repository:
        tip = repository.fetch()
        found = None if tip is None else repository.read(tip, PROJECT_PATH)
        if found is None:
            create_project(project, organisation.data_repository, repository, store, ENGINEER, _FOUNDED)
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
        _put(repository, {".datom/governance.json": pretty(marker)}, f"Attach governance: {project.name}")
        store.put(layout.GOVERNANCE_KEY, pretty(marker))
        Writer(repository, store).reconcile(thorough=True)


def _govern(organisation: Organisation) -> None:
    """Register the project with the governance repository and its mirror."""
    location = organisation.project.location
    place = {"type": location.backend, "root": location.root, "prefix": location.prefix}
    readers = {"r": {"default": "datom::datom_read"}, "python": {"default": "datom.read"}}
    files = {
        f"projects/{PROJECT}/ref.json": pretty({"current": place, "previous": []}),
        f"projects/{PROJECT}/dispatch.json": pretty({"methods": readers}),
        f"projects/{PROJECT}/migration_history.json": pretty([]),
    }
    skeleton = {"README.md": b"# acme-governance\n", "projects/.gitkeep": b""}
    with _cloned(organisation.root, "governance.git") as repository:
        _put(repository, skeleton, "Initialize datom governance repository")
        _put(repository, files, f"Register project {PROJECT}")
    organisation.governance_storage.mkdir(exist_ok=True)
    mirror = LocalStore(organisation.governance_storage)
    for path, content in files.items():
        mirror.put(path, content)


def _versions(repository: BareRepository, name: str) -> list[str]:
    """The ids of the versions of `name`, newest first."""
    tip = repository.fetch()
    history = None if tip is None else repository.read(tip, history_path(name))
    return [] if history is None else [entry["version"] for entry in jsonlite.parse(history)]


def _stopped(moment: datetime) -> Callable[[], datetime]:
    """A clock that shows `moment`."""
    return lambda: moment


@contextmanager
def _cloned(root: Path, name: str) -> Iterator[BareRepository]:
    """The remote `name` of the organisation in `root`, made when it is not there yet, and a clone of it to work in."""
    remote = root / name
    if not remote.exists():
        pygit2.init_repository(str(remote), bare=True, initial_head=_BRANCH)
    repository = BareRepository(str(remote), None, _BRANCH, root / "clones" / name)
    try:
        yield repository
    finally:
        repository.close()


def _put(repository: BareRepository, files: Mapping[str, bytes], message: str) -> None:
    """Commit and push `files`, unless they are all there already."""
    tip = repository.fetch()
    if tip is not None and all(repository.read(tip, path) == content for path, content in files.items()):
        return
    repository.push(repository.commit(tip, files, message, ENGINEER, _FOUNDED))
