"""A datom server, as its command starts it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

import datom_flight

from .processes import Process, command

CACHE_BYTES = 2 * 10**9

_SERVES = re.compile(r"listening on (\S+)")


class Server:
    """A server with a cache of its own, which is empty at first. It is started when it is first asked anything.

    Args:
        folder: for its configuration, its cache and what it prints; emptied.
        projects: the settings of each, by name.
        memory_bytes: the limit of what it keeps decoded.
        keys: of its settings' table ``[server]``.
    """

    def __init__(
        self,
        folder: Path,
        projects: Mapping[str, Mapping[str, str]],
        memory_bytes: int = CACHE_BYTES,
        **keys: Any,
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tables: dict[str, Mapping[str, Any]] = {
            "server": {"listen": "grpc://127.0.0.1:0", **keys},
            "auth": {"secret": "file:secret"},
            "cache": {"directory": "cache", "memory_bytes": memory_bytes},
            **{f"projects.{name}": keys for name, keys in projects.items()},
        }
        (folder / "secret").write_text("a secret of the benchmark, and of nothing else, 0123456789")
        self._folder = folder
        self._management = keys.get("management")
        self._config = folder / "server.toml"
        self._config.write_text("\n".join(_toml(name, keys) for name, keys in tables.items()))
        self._connections: dict[str, datom_flight.Connection] = {}
        self._process: Process | None = None
        self.token = self.run("token", "create", "--principal", "bench", "--role", "developer").strip()

    @property
    def process(self) -> Process:
        """The one that runs now."""
        if self._process is None:
            line = [command("datom-flight-server"), "serve", "--config", str(self._config)]
            self._process = Process(line, self._folder / "server.log", _SERVES)
        return self._process

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.process.said

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of one of its metrics that have these labels; needs the key ``management``."""
        with urlopen(f"http://{self._management}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"datom_flight_{name}" and labels.items() <= sample.labels.items()
        )

    def connection(self, project: str) -> datom_flight.Connection:
        """A developer's connection by the project's own client, the same every time."""
        if project not in self._connections:
            self._connections[project] = datom_flight.connect(self.url, project, token=self.token)
        return self._connections[project]

    def run(self, *arguments: str) -> str:
        """What a command of the server prints, with this server's configuration."""
        line = [command("datom-flight-server"), *arguments, "--config", str(self._config)]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout

    def stop(self) -> None:
        """End it, and the connections to it; what it cached is gone. Asked again, it starts again."""
        while self._connections:
            self._connections.popitem()[1].close()
        if self._process is not None:
            self._process.stop()
            self._process = None
        shutil.rmtree(self._folder / "cache", ignore_errors=True)


def _toml(name: str, keys: Mapping[str, Any]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
