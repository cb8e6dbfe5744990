"""What statements need of the engine: a plan for a query, and its rows."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Protocol

import pyarrow as pa

from datom_flight.protocol.messages import ReadRequest

from ...model import Principal


class Pinned(Protocol):
    """One table reference of a query, resolved."""

    @property
    def project(self) -> str: ...
    @property
    def table(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def data_sha(self) -> str: ...


class Plan(Protocol):
    """A query, checked, with every table it names resolved to one version."""

    @property
    def pins(self) -> Sequence[Pinned]: ...
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def parameter_schema(self) -> pa.Schema: ...
    @property
    def simple(self) -> ReadRequest | None: ...
    def to_bytes(self) -> bytes: ...


class Planner(Protocol):
    """Plans queries, and runs plans."""

    def plan(
        self,
        principal: Principal,
        query: str,
        *,
        project: str | None,
        as_of: str | None = None,
        pins: Mapping[str, str] | None = None,
        parameters: pa.RecordBatch | None = None,
    ) -> Plan: ...

    def parse(self, data: bytes) -> Plan: ...

    def run(self, principal: Principal, plan: Plan) -> Generator[pa.RecordBatch, None, None]: ...
