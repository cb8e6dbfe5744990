"""What a process of clients is told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

import datom_flight


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process is to do.

    Attributes:
        clients: the kind and the name of each.
        urls: of the replicas.
        tokens: by role.
        tables: that clients write to and read from.
    """

    clients: list[tuple[str, str]]
    urls: list[str]
    project: str
    tokens: dict[str, str]
    tables: list[str]
    ledger: str
    seed: str

    def to_json(self) -> str:
        """As the program takes it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` gave."""
        return cls(**json.loads(text))

    def connect(self, role: str = "reader") -> datom_flight.Connection:
        """A connection that knows all replicas."""
        return datom_flight.connect(",".join(self.urls), self.project, token=self.tokens[role])
