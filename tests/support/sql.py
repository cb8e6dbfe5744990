"""SQL without a server: statements over stores on this machine, planned and run as the service does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.auth.policy import RolePolicy
from datom_flight_server.governance.configured import ConfiguredProjects
from datom_flight_server.model import DataLocation, Principal, Project, Role
from datom_flight_server.sql.engine import Engine
from datom_flight_server.sql.statements import Plan, Statements
from datom_flight_server.sql.turns import EngineLimits
from datom_flight_server.sql.where import WhereCompiler
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.documents import Documents
from datom_flight_server.versions.payloads import Payloads
from datom_flight_server.versions.projects import Projects

ANN = Principal("ann", Role.READER)
"""Who may read everything."""

SMALL = EngineLimits(memory_bytes=512 * 2**20, spill_bytes=256 * 2**20, threads=1, seconds=20)


@dataclass(frozen=True, slots=True)
class Sql:
    """Statements over a few projects, and the engine behind them."""

    statements: Statements
    engine: Engine
    project: str

    def plan(self, query: str, principal: Principal = ANN, **options: Any) -> Plan:
        """The plan of `query`, as it comes back from a ticket."""
        made = self.statements.plan(principal, query, **{"project": self.project, **options})
        again = Plan.from_bytes(made.to_bytes())
        assert again == made
        return again

    def table(self, query: str, principal: Principal = ANN, **options: Any) -> pa.Table:
        """The whole result of `query`."""
        plan = self.plan(query, principal, **options)
        return pa.Table.from_batches(self.statements.run(principal, plan), plan.schema)

    def rows(self, query: str, principal: Principal = ANN, **options: Any) -> list[tuple[Any, ...]]:
        """The rows of `query`, each a tuple."""
        table = self.table(query, principal, **options)
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def refusal(self, query: str, principal: Principal = ANN, **options: Any) -> DatomError:
        """How `query` is refused, planned or run."""
        with pytest.raises(DatomError) as caught:
            self.table(query, principal, **options)
        return caught.value


def _store(project: Project) -> LocalStore:
    return LocalStore(Path(project.location.root), "")


@contextmanager
def serving(cache: Path, roots: Mapping[str, Path], project: str, limits: EngineLimits = SMALL) -> Iterator[Sql]:
    """SQL over the stores at `roots`, tables named alone being those of `project`."""
    named = {name: Project(name, DataLocation("local", str(root))) for name, root in roots.items()}
    projects = Projects(ConfiguredProjects(named), _store, Documents(0))
    where = WhereCompiler()
    engine = Engine(cache, limits)
    statements = Statements(projects, RolePolicy(), Payloads(cache, 10**10), where, engine)
    try:
        yield Sql(statements, engine, project)
    finally:
        statements.close()
        engine.close()
        where.close()
