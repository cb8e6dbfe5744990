"""Reading one version of a table: the request, what it resolves to, and its rows."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import pyarrow as pa

from .calls import Calls
from .parts import iterate, read_table, read_ticket
from .pins import Pin
from .plans import Part, Plan
from .protocol.errors import IntegrityError, InvalidRequestError
from .protocol.messages import ReadRequest
from .protocol.names import format_instant, is_full_version

Instant = str | date | datetime


class DatomWarning(UserWarning):
    """Something about a project that its readers should know; the data is right all the same."""


class Scan:
    """Rows before they move: what they are, and how to have them one batch at a time.

    Attributes:
        schema: of the rows.
        rows: how many there will be; None when only reading tells.
        version: the full id; None where the history does not name the current document, and of computed rows.
    """

    def __init__(self, calls: Calls, plan: Plan) -> None:
        self.schema = plan.schema
        self.rows = plan.rows
        self.version = plan.version
        self._calls = calls
        self._plan = plan

    def reader(self) -> pa.RecordBatchReader:
        """The rows as they arrive. Letting go of the reader half way cancels the call.

        A `DatomError` raised while reading means that the batches before it are the first rows, and that some are
        missing.
        """
        return pa.RecordBatchReader.from_batches(self.schema, iterate(self._calls, self._plan))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of which version.

    Attributes:
        data_sha: what a pin says that the version's is; None where there is no pin.
    """

    request: ReadRequest
    data_sha: str | None = None

    @classmethod
    def of(
        cls,
        project: str,
        name: str,
        version: str | None = None,
        as_of: Instant | None = None,
        pin: Pin | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
    ) -> Selection:
        """The selection that arguments of `Connection.read` make.

        Raises:
            InvalidRequestError: ``invalid_argument``, ``invalid_name``: one is not of its form, or two contradict.
            VersionError: ``version_not_found``: the pin does not hold the table.
        """
        data_sha = None
        if pin is not None:
            if version is not None or as_of is not None:
                raise InvalidRequestError("pin cannot be given with version or as_of", hint="leave one of them out")
            if pin.project != project:
                raise InvalidRequestError(
                    f'the pin is of project "{pin.project}", the connection is to "{project}"',
                    hint=f'connect with project="{pin.project}"',
                )
            version, data_sha = pin[name].version, pin[name].data_sha
        body = {
            "project": project,
            "table": name,
            "version": version,
            "as_of": None if as_of is None else format_instant(as_of),
            "columns": list(columns) if isinstance(columns, tuple) else columns,
            "where": where,
            "limit": limit,
        }
        return cls(ReadRequest.from_object(body), data_sha)


class Reads:
    """Reads selections through `calls`; warns once of what the server says about a project."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._warned: set[tuple[str, str]] = set()

    def table(self, selection: Selection) -> pa.Table:
        """All the rows, checked. Raises as `Connection.read`."""
        request = selection.request
        if request.version is not None and is_full_version(request.version):
            table = read_ticket(self._calls, request, selection.data_sha)
            if table is not None:
                return table
        return read_table(self._calls, self.plan(selection))

    def scan(self, selection: Selection) -> Scan:
        """The rows, not moving yet. Raises as `Connection.read`."""
        return Scan(self._calls, self.plan(selection))

    def plan(self, selection: Selection) -> Plan:
        """What the selection resolves to, with the server's warnings given. Raises as `resolve`."""
        return self.heeded(self.resolve(selection), selection)

    def resolve(self, selection: Selection) -> Plan:
        """What the selection resolves to.

        Raises:
            IntegrityError: ``integrity_mismatch``: the version is of other data than the pin says.
        """
        request = selection.request
        plan = Plan.of(self._calls.flight_info(request.to_json()))
        if selection.data_sha not in (None, plan.data_sha):
            raise IntegrityError(
                f'version "{request.version}" of "{request.table}" is of data "{plan.data_sha}", '
                f'pinned was "{selection.data_sha}"'
            )
        return plan

    def heeded(self, plan: Plan, selection: Selection) -> Plan:
        """The plan, after warning of what the server attached to it; to be called in the caller's own thread."""
        self.warn(plan.warnings, selection.request.project)
        return plan

    def part(
        self, plan: Plan, table: str, columns: Sequence[str] | None, where: str | None
    ) -> Iterator[pa.RecordBatch]:
        """Rows of the version that `plan` is of, as they arrive. Raises as `Connection.scan`."""
        request = ReadRequest(
            project=str(plan.project),
            table=table,
            version=plan.version,
            columns=None if columns is None else tuple(columns),
            where=where,
            data_sha=None if plan.version else plan.data_sha,
        )
        schema = plan.schema if columns is None else pa.schema([plan.schema.field(name) for name in columns])
        return iterate(self._calls, replace(plan, schema=schema, parts=(Part(request.to_json()),), rows=None))

    def warn(self, codes: Iterable[str], project: str) -> None:
        """Warn, once for each of `codes` and each project; to be called in the caller's own thread."""
        for code in codes:
            self._warn(code, project)

    def _warn(self, warning: str, project: str) -> None:
        if (warning, project) in self._warned:
            return
        self._warned.add((warning, project))
        message = _WARNINGS.get(warning, "the server attached the warning {warning} to project {project}")
        warn_caller(message.format(warning=f'"{warning}"', project=f'"{project}"'))


_WARNINGS = {
    "governance_attached": "project {project} is governed, but the server finds its data by its own settings; "
    "if the project moves, it will not notice"
}


def warn_caller(message: str) -> None:
    """Warn of something that the caller of this package should know."""
    warnings.warn(message, DatomWarning, _caller_level())


def _caller_level() -> int:
    """The ``stacklevel`` at which a warning names the first line outside this package."""
    package = os.path.dirname(__file__)
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    return level
