"""What there is to query, without a server: the catalog of Flight SQL over stores made on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datom_flight_server.auth.policy import RolePolicy
from datom_flight_server.flight.sql.catalog import SqlCatalog
from datom_flight_server.governance.base import ProjectSource
from datom_flight_server.governance.configured import ConfiguredProjects
from datom_flight_server.model import DataLocation, Principal, Project, Role
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.documents import Documents
from datom_flight_server.versions.payloads import Payloads
from datom_flight_server.versions.projects import Projects


def sql_catalog(roots: Mapping[str, Path], cache: Path) -> SqlCatalog:
    """The catalog of the projects that are stored under `roots`."""
    named = {name: Project(name, DataLocation("local", str(root))) for name, root in roots.items()}
    return sql_catalog_of(ConfiguredProjects(named), cache)


def sql_catalog_of(source: ProjectSource, cache: Path) -> SqlCatalog:
    """The catalog of projects on this machine."""
    projects = Projects(source, lambda project: LocalStore(Path(project.location.root), ""), Documents(0))
    return SqlCatalog(projects, RolePolicy(), Payloads(cache, 2**30))


def reader(*projects: str) -> Principal:
    """A reader of these projects; of all when none is given."""
    return Principal("ann", Role.READER, frozenset(projects) if projects else None)
