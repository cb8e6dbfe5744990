"""datom-flight's client: pinned, verified clinical tables over Arrow Flight.

>>> import datom_flight
>>> conn = datom_flight.connect("grpc://127.0.0.1:8815", project="STUDY_001")  # doctest: +SKIP
>>> conn.read("dm", as_of="2026-01-15")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .connection import Connection
    from .opening import connect
    from .pins import Pin, PinnedTable
    from .protocol.errors import (
        AuthenticationError,
        ConflictError,
        DatomError,
        IntegrityError,
        InternalError,
        InvalidRequestError,
        NotFoundError,
        PermissionDeniedError,
        StoredDataError,
        UnavailableError,
        VersionError,
    )
    from .reads import DatomWarning, Scan
    from .results import (
        Finding,
        Identity,
        Prefetched,
        ProjectInfo,
        ProjectSummary,
        TableInfo,
        Version,
        WriteReceipt,
    )
    from .sets import DatomSet, Member, MemberId

__all__ = [
    "AuthenticationError",
    "ConflictError",
    "Connection",
    "DatomError",
    "DatomSet",
    "DatomWarning",
    "Finding",
    "Identity",
    "IntegrityError",
    "InternalError",
    "InvalidRequestError",
    "Member",
    "MemberId",
    "NotFoundError",
    "PermissionDeniedError",
    "Pin",
    "PinnedTable",
    "Prefetched",
    "ProjectInfo",
    "ProjectSummary",
    "Scan",
    "StoredDataError",
    "TableInfo",
    "UnavailableError",
    "Version",
    "VersionError",
    "WriteReceipt",
    "connect",
]

_HOMES = {
    "connection": ("Connection",),
    "opening": ("connect",),
    "pins": ("Pin", "PinnedTable"),
    "reads": ("DatomWarning", "Scan"),
    "results": (
        "Finding",
        "Identity",
        "Prefetched",
        "ProjectInfo",
        "ProjectSummary",
        "TableInfo",
        "Version",
        "WriteReceipt",
    ),
    "sets": ("DatomSet", "Member", "MemberId"),
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: a program that needs the wire protocol alone never pays for Arrow.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "protocol.errors")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
