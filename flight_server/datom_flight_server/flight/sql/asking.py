"""What was asked of a query, by a driver's prepared statement or in JSON, and what the connection settles of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from datom_flight.protocol.errors import IntegrityError, InvalidRequestError
from datom_flight.protocol.queries import Scalar, SqlRequest, TablePin

from ...sql.statements import Pinned
from ..session import Session
from .prepared import Prepared, checked_parameters, decoded_parameters

Asked = Prepared | SqlRequest


@dataclass(frozen=True, slots=True)
class Query:
    """A query and all there is to know before it is planned.

    Attributes:
        parameters: one row.
        by_name: the names that parameters were given by; None where they were given in order, or may yet be.
        pins: versions for names without one; None where there are none to go by.
    """

    text: str
    session: Session
    parameters: pa.RecordBatch | None = None
    by_name: frozenset[str] | None = None
    pins: tuple[TablePin, ...] | None = None

    def check(self, parameter_names: Iterable[str], settled: Iterable[Pinned]) -> None:
        """Compare with what came of planning.

        Raises:
            InvalidRequestError: ``invalid_argument``: parameters are missing, or the query has none of a name given.
            IntegrityError: ``integrity_mismatch``: a pinned version is of other data than the pin says.
        """
        names = set(parameter_names)
        if self.by_name is not None and self.by_name != names:
            told = ", ".join(f'"{name}"' for name in sorted(names)) or "none"
            raise InvalidRequestError(f"the query's parameters are: {told}", hint="give just these a value each")
        for pinned in settled:
            for pin in self.pins or ():
                _compare(pin, pinned)


def query_of(asked: Asked, session: Session) -> Query:
    """What `asked` is on a connection that has settled `session`.

    Raises:
        InvalidRequestError: ``invalid_argument``, ``too_large``: the parameters are not one row of values.
    """
    if isinstance(asked, Prepared):
        # drivers run a statement again that they prepared in an earlier transaction, or with other options
        return Query(asked.query, session.over(asked.session), asked.parameters)
    row = _row(asked.parameters)
    names = frozenset() if row is None else frozenset(row.schema.names)
    in_order = row is not None and all(name.isdecimal() for name in names)
    session = Session(asked.project, asked.as_of).over(session)
    return Query(asked.sql, session, row, None if in_order else names, asked.pins)


def _row(given: tuple[Scalar, ...] | Mapping[str, Scalar] | str | None) -> pa.RecordBatch | None:
    if not given:
        return None
    if isinstance(given, str):
        return checked_parameters(decoded_parameters(given))
    named = given if isinstance(given, Mapping) else {str(place): value for place, value in enumerate(given, 1)}
    if all(name.isdecimal() for name in named):
        named = dict(sorted(named.items(), key=lambda item: int(item[0])))
    try:
        columns = [pa.array([value]) for value in named.values()]
        return checked_parameters(pa.RecordBatch.from_arrays(columns, names=list(named)))
    except (pa.ArrowException, OverflowError, ValueError):
        raise InvalidRequestError("a parameter is no number of 64 bits, and no Unicode text") from None


def _compare(pin: TablePin, pinned: Pinned) -> None:
    if (pin.project, pin.table) != (pinned.project, pinned.table) or pin.data_sha in (None, pinned.data_sha):
        return
    if pinned.version is not None and pinned.version.startswith(pin.version):
        raise IntegrityError(
            f'version "{pinned.version}" of "{pin.project}.{pin.table}" is of data "{pinned.data_sha}", '
            f'pinned was "{pin.data_sha}"'
        )
