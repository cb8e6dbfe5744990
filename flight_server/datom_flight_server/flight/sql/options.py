"""Session options: what drivers call a connection's catalog and schema, and the instant it reads as of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from datom_flight.protocol.errors import DatomError

from ..session import Session
from . import flight_pb2 as messages
from .catalog import CATALOG

ProjectOf = Callable[[Session], str | None]
"""Which project's tables need no prefix, as `SqlCatalog.project_of` says it for a caller."""

_CATALOG, _SCHEMA, _AS_OF = "catalog", "schema", "datom.as_of"

_Errors = messages.SetSessionOptionsResult


def with_options(
    session: Session, asked: messages.SetSessionOptionsRequest, project_of: ProjectOf
) -> tuple[Session, messages.SetSessionOptionsResult]:
    """The session with these options, and what is wrong with those it did not take.

    Args:
        project_of: raises for a session's project that is none the caller may see.
    """
    errors: dict[str, messages.SetSessionOptionsResult.Error] = {}
    for name, option in asked.session_options.items():
        kind = option.WhichOneof("option_value")  # none is how an option is taken back
        value = option.string_value if kind else ""
        try:
            if kind not in (None, "string_value"):
                errors[name] = _Errors.Error(value=_Errors.INVALID_VALUE)
            elif name == _CATALOG and value in ("", CATALOG):
                continue
            elif name == _SCHEMA:
                project_of(Session(value))
                session = replace(session, project=value)
            elif name == _AS_OF:
                session = replace(session, as_of=value)
            else:
                known = name == _CATALOG
                errors[name] = _Errors.Error(value=_Errors.INVALID_VALUE if known else _Errors.INVALID_NAME)
        except DatomError:
            errors[name] = _Errors.Error(value=_Errors.INVALID_VALUE)
    return session, _Errors(errors=errors)


def options_of(session: Session, project_of: ProjectOf) -> messages.GetSessionOptionsResult:
    """The options as they are now; what is not settled is left out."""
    options = {_CATALOG: CATALOG, _SCHEMA: project_of(session), _AS_OF: session.as_of}
    return messages.GetSessionOptionsResult(
        session_options={
            name: messages.SessionOptionValue(string_value=value) for name, value in options.items() if value
        }
    )
