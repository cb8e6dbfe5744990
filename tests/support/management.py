"""What a running server says on its management port."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class ManagementPort:
    """A free port on this machine, for ``server.management``."""

    number: int

    @classmethod
    def free(cls) -> ManagementPort:
        """One that nobody listens on now."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return cls(probe.getsockname()[1])

    @property
    def address(self) -> str:
        """As the settings want it."""
        return f"127.0.0.1:{self.number}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def readiness(self) -> dict[str, Any]:
        """What ``/readyz`` says."""
        said: dict[str, Any] = json.loads(self.get("/readyz")[1])
        return said

    def metrics(self) -> dict[str, Metric]:
        """The families of ``/metrics`` by the names samples have: counters end in ``_total``."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {family.name + ("_total" if family.type == "counter" else ""): family for family in families}

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples `name` that have these labels."""
        return sum(
            sample.value
            for family in self.metrics().values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
