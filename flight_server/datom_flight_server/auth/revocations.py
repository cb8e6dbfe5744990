"""Tokens that no longer count although they have not expired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Revocations:
    """Which tokens were taken back. A session goes with the token it was made from.

    Attributes:
        tokens: their ids.
        before: by principal, the instant before which made tokens do not count.
    """

    tokens: frozenset[str] = frozenset()
    before: Mapping[str, datetime] = field(default_factory=dict)

    def cover(self, claims: Mapping[str, Any]) -> bool:
        """Whether the token that makes `claims` was taken back."""
        if claims["jti"] in self.tokens or claims.get("origin") in self.tokens:
            return True
        before = self.before.get(claims["sub"])
        return before is not None and claims.get("auth_time", claims["iat"]) < before.timestamp()
