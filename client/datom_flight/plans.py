"""What a server resolved a request to, before any row moves."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.flight as fl

from .calls import decode_answer
from .pins import PinnedTable
from .protocol.errors import InternalError, VersionError


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the rows: what to ask for them, and whom.

    Attributes:
        ticket: good at every replica.
        locations: the URLs of replicas that the server names for it, best first; none is the connection's own.
    """

    ticket: bytes
    locations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The tickets for the rows of exactly one version, or of a query of exactly these versions.

    Attributes:
        schema: of the rows; its metadata names the versions.
        parts: one a stream, in the rows' order.
        rows: that the streams will have together; None when only reading tells.
        project: of the version; None where the rows are computed, as of the attributes that follow.
        version: full id; None also where the history does not name the current document.
        data_sha: names the values of the version.
        parquet_sha: None also where none is recorded.
        table_rows: that the whole stored table has.
        warnings: codes the server attached, such as ``governance_attached``.
    """

    schema: pa.Schema
    parts: tuple[Part, ...]
    rows: int | None
    project: str | None
    version: str | None
    data_sha: str | None
    parquet_sha: str | None
    table_rows: int | None
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, info: fl.FlightInfo) -> Plan:
        """The plan in a server's answer.

        Raises:
            InternalError: the answer does not say what it is of.
        """
        told = decode_answer(bytes(info.app_metadata), "GetFlightInfo")
        rows, data_sha, warnings = told.get("rows"), told.get("data_sha"), told.get("warnings")
        is_read = isinstance(rows, int) and isinstance(data_sha, str)
        is_computed = isinstance(told.get("pins"), list) and data_sha is None
        if not is_read and not is_computed:
            raise InternalError(
                "the server's answer does not say which version it is of", hint="is this a datom server, and as new?"
            )
        return cls(
            schema=info.schema,
            parts=tuple(map(_part, info.endpoints)),
            rows=info.total_records if info.total_records >= 0 else None,
            project=told.get("project"),
            version=told.get("version"),
            data_sha=data_sha,
            parquet_sha=told.get("parquet_sha"),
            table_rows=rows,
            warnings=tuple(str(warning) for warning in warnings) if isinstance(warnings, list) else (),
        )

    @property
    def is_repeatable(self) -> bool:
        """Whether a ticket's stream has the same rows in the same order each time; computed rows need not."""
        return self.data_sha is not None

    def pinned(self, table: str) -> PinnedTable:
        """What a pin holds of this plan, the plan being of the whole of `table`.

        Raises:
            VersionError: ``version_not_found``: the data is in no version of the table's history.
        """
        if self.version is None or self.data_sha is None or self.table_rows is None:
            raise VersionError(f'the current data of "{table}" is in no version of its history')
        return PinnedTable(self.version, self.data_sha, self.parquet_sha, self.table_rows)


def _part(endpoint: fl.FlightEndpoint) -> Part:
    # Where it says "the connection you have", and whatever is no server of ours, is left to the connection.
    urls = (location.uri.decode(errors="replace") for location in endpoint.locations)
    return Part(endpoint.ticket.ticket, tuple(url for url in urls if url.startswith(("grpc://", "grpc+tls://"))))
