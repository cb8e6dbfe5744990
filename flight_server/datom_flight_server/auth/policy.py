"""The policy: nothing is allowed but what a token's role and projects allow."""

from __future__ import annotations

from datom_flight.protocol.errors import PermissionDeniedError

from ..model import Principal, Role
from .base import no_such_project


class RolePolicy:
    """A `Policy` by one role for a set of projects, as tokens hold them."""

    def authorise(self, principal: Principal, project: str, needed: Role) -> None:
        """See `Policy.authorise`."""
        if not self.visible(principal, project):
            raise no_such_project(project)
        if not principal.role.covers(needed):
            raise PermissionDeniedError(
                f'this takes the role "{needed.value}", and "{principal.name}" has the role "{principal.role.value}"',
                hint=f'ask for a token with the role "{needed.value}"',
                fields={"needed": needed.value, "role": principal.role.value},
            )

    def visible(self, principal: Principal, project: str) -> bool:
        """See `Policy.visible`."""
        return principal.projects is None or project in principal.projects
