"""Who calls, and what they may do: what the rest of the server needs to know about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from datom_flight.protocol.errors import NotFoundError

from ..model import Principal, Role


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A signed token and the instant (UTC) at which it stops being one."""

    token: str = field(repr=False)
    expires: datetime


class Authenticator(Protocol):
    """Knows callers by their tokens."""

    def authenticate(self, bearer: str | None) -> Principal:
        """Who came with `bearer`; None is a request without a token.

        Raises:
            AuthenticationError: ``unauthenticated``.
        """
        ...

    def narrow(self, principal: Principal, role: Role, bearer: str | None) -> IssuedToken:
        """A short-lived token for the same caller with `role`, outliving `bearer` never.

        Raises:
            PermissionDeniedError: ``permission_denied`` when `role` is wider than the caller's own.
            AuthenticationError: ``unauthenticated`` when `bearer` has expired by now.
        """
        ...


class Policy(Protocol):
    """What callers may do."""

    def authorise(self, principal: Principal, project: str, needed: Role) -> None:
        """Return when `principal` may do in `project` what takes the role `needed`.

        Whether the project exists is not asked here.

        Raises:
            NotFoundError: what `no_such_project` makes, when the principal may not know of the project.
            PermissionDeniedError: ``permission_denied`` when the role is too small.
        """
        ...

    def visible(self, principal: Principal, project: str) -> bool:
        """Whether `principal` may know that `project` exists."""
        ...


def no_such_project(name: str) -> NotFoundError:
    """The one answer about a project that does not exist and about one the caller may not see."""
    return NotFoundError(f'no project "{name}"', hint="list what you may see with `datom-flight projects`")
