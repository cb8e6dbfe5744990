"""Beginning a project: its data repository's first commit, and the storage that mirrors it."""

from __future__ import annotations

from datetime import datetime

from datom_flight.protocol.errors import InvalidRequestError

from ..metadata import layout
from ..metadata.git import Author, DataRepository
from ..metadata.manifest import MANIFEST_PATH
from ..metadata.skeleton import INITIAL_MESSAGE, project_files
from ..model import Project, RepositoryAccess
from ..storage.base import WritableStore


def create_project(
    project: Project,
    access: RepositoryAccess,
    repository: DataRepository,
    store: WritableStore,
    author: Author,
    when: datetime,
) -> str:
    """Begin `project` in an empty place and an empty branch; the first commit.

    Args:
        access: where others reach `repository`.

    Raises:
        InvalidRequestError: ``invalid_argument`` when its place holds anything already, or its branch has a commit.
            Nothing was changed then.
        DatomError: the storage's or the remote's errors. Once the branch has its commit, `Writer.reconcile` finishes.
    """
    held = next(iter(store.keys("")), None)
    if held is not None:
        raise InvalidRequestError(
            f'{store.uri} is not empty: it holds "{held}"', hint="name another place, or another prefix"
        )
    if repository.fetch() is not None:
        raise InvalidRequestError(
            f'branch "{access.branch}" of the data repository has commits already', hint="name an empty repository"
        )
    files = project_files(project.name, project.location, access.url, when, region=project.access.region)
    commit = repository.commit(None, files, INITIAL_MESSAGE, author, when)
    repository.push(commit)
    store.put(layout.MANIFEST_KEY, files[MANIFEST_PATH])
    return commit
