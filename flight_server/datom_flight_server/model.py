"""The nouns that cross layers: principals, projects and where their data is, versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum


class Role(Enum):
    """What a principal may do; each role may do all that the ones before it may."""

    READER = "reader"
    DEVELOPER = "developer"
    ADMIN = "admin"

    def covers(self, other: Role) -> bool:
        """Whether this role may do what `other` may."""
        return _RANKS[self] >= _RANKS[other]


_RANKS = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a name, a role, and the projects the role holds for (None: every project)."""

    name: str
    role: Role
    projects: frozenset[str] | None = None


class Kind(Enum):
    """The kinds of artifact a project holds."""

    TABLE = "table"
    SET = "set"


@dataclass(frozen=True, slots=True)
class S3Access:
    """How to reach a bucket. Keys left out: boto3's ordinary chain."""

    region: str | None = None
    endpoint: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DataLocation:
    """Where a project's objects are: under ``{root}/{prefix}/datom/``.

    Attributes:
        backend: ``"s3"`` or ``"local"``.
        root: a bucket, or the absolute path of a folder.
        prefix: without slashes at its ends; may be empty.
    """

    backend: str
    root: str
    prefix: str = ""

    @property
    def uri(self) -> str:
        """``s3://root/prefix`` or ``file:///root/prefix``."""
        scheme = "s3://" if self.backend == "s3" else "file://"
        return scheme + "/".join(part for part in (self.root, self.prefix) if part)


@dataclass(frozen=True, slots=True)
class PreviousLocation:
    """Where a project's data was before it moved."""

    location: DataLocation
    migrated_at: str | None
    sunset_at: str | None


@dataclass(frozen=True, slots=True)
class RepositoryAccess:
    """A project's data repository: its URL or path, the branch, and the token for https."""

    url: str
    branch: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Project:
    """A project and where its data is.

    Attributes:
        repository: its data repository; None where it cannot be written to.
        governed: whether a governance repository says where the data is, rather than the settings.
        previous: where it was before, newest first.
    """

    name: str
    location: DataLocation
    access: S3Access = S3Access()
    repository: RepositoryAccess | None = None
    governed: bool = False
    previous: tuple[PreviousLocation, ...] = ()


@dataclass(frozen=True, slots=True)
class TableVersion:
    """Exactly one version of one table or set, and where its payload is.

    Attributes:
        version: the metadata_sha; None when the history does not name the current document.
        data_sha: names the values; the payload's address.
        object_sha: sha256 of the stored payload (parquet_sha, or a set's document_sha); None when none is recorded.
        timestamp: when it was written; None when unknown.
    """

    project: str
    table: str
    kind: Kind
    version: str | None
    data_sha: str
    object_sha: str | None
    timestamp: datetime | None = None
