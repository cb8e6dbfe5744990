"""Two servers over one project, which are killed and started again, and are watched all the time."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from ..management import ManagementPort
from ..server import Server, write_config

_SAMPLE_SECONDS = 1.0
_GONE_SECONDS = 10.0
_COUNTED = (
    "datom_flight_requests_total",
    "datom_flight_refusals_total",
    "datom_flight_storage_retries_total",
    "datom_flight_storage_call_seconds_count",
    "datom_flight_git_call_seconds_count",
    "datom_flight_verification_failures_total",
    "datom_flight_cache_evictions_total",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process held at one time.

    Attributes:
        generation: how often its replica was started before.
        age: seconds since it listened.
    """

    replica: int
    generation: int
    age: float
    rss_bytes: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Absence:
    """When a replica was dead, from its kill until it listened again, as `time.time` has it."""

    replica: int
    began: float
    ended: float


class Replica:
    """One of them, on ports that it keeps.

    Attributes:
        generation: how often it was started again.
        counted: the counters of `_COUNTED` with their labels, over all its processes; of one that was killed, as they
            were a moment before.
        orphans: processes of its queries that outlived it.
    """

    def __init__(self, number: int, config: Path, management: ManagementPort) -> None:
        self.number = number
        self.generation = 0
        self.counted: Counter[str] = Counter()
        self.orphans: list[int] = []
        self._config = config
        self._management = management
        self.server = Server(config)
        self._born = time.monotonic()

    @property
    def cache(self) -> Path:
        """What it keeps on the disk."""
        return self._config.parent / "cache"

    def sample(self) -> Sample:
        """What it holds now. Raises `OSError` or `ValueError` when it is dead."""
        descriptors = len(os.listdir(f"/proc/{self.server.pid}/fd"))
        age = time.monotonic() - self._born
        return Sample(self.number, self.generation, age, self.server.rss_bytes, descriptors)

    def count(self) -> None:
        """Add what its process has counted."""
        for family in self._management.metrics().values():
            for sample in family.samples:
                if sample.name in _COUNTED:
                    labels = [f"{key}={value}" for key, value in sorted(sample.labels.items())]
                    self.counted[" ".join([sample.name, *labels])] += int(sample.value)

    def die(self, seconds: float) -> Absence:
        """Be killed, and come back after so long."""
        self.count()
        children = _descendants(self.server.pid)
        began = time.time()
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.ended()
        threading.Event().wait(seconds)
        self.server = Server(self._config)
        self._born = time.monotonic()
        self.generation += 1
        ended = time.time()
        gone = time.monotonic() + _GONE_SECONDS
        while (left := [pid for pid in children if _lives(pid)]) and time.monotonic() < gone:
            threading.Event().wait(0.1)
        self.orphans += left
        return Absence(self.number, began, ended)

    def stop(self) -> int:
        """End, and give the exit code."""
        self.count()
        return self.server.stop()


class Replicas:
    """Both of them.

    Attributes:
        samples, absences: in the order of time.
        spared: the number of the one that is not killed any more, if any.
    """

    def __init__(self, folder: Path, project: str, settings: dict[str, str], seed: str) -> None:
        self._chance = random.Random(seed)
        ports = [_port(self._chance) for _ in range(2)]
        self.urls = [f"grpc://127.0.0.1:{port}" for port in ports]
        self.samples: list[Sample] = []
        self.absences: list[Absence] = []
        self.spared: int | None = None
        self.all: list[Replica] = []
        for number, url in enumerate(self.urls):
            management = ManagementPort(_port(self._chance))
            config = write_config(
                folder / f"replica{number}",
                {project: settings},
                server={"listen": url, "management": management.address, "replicas": self.urls},
                cache={"memory_bytes": "64MB", "disk_bytes": "100MB"},
                sql={"memory_bytes": "128MB", "threads": 1},
            )
            self.all.append(Replica(number, config, management))

    @property
    def counted(self) -> Counter[str]:
        """The counters of both."""
        return sum((replica.counted for replica in self.all), Counter())

    def close(self) -> None:
        """End what still runs."""
        for replica in self.all:
            if replica.server.alive:
                replica.server.stop()

    def watch(self, stop: threading.Event) -> None:
        """Take samples until `stop`."""
        while not stop.wait(_SAMPLE_SECONDS):
            for replica in self.all:
                # not of one that was just killed
                with suppress(OSError, ValueError):
                    self.samples.append(replica.sample())

    def kill(self, stop: threading.Event, every_seconds: float) -> None:
        """Kill one after the other until `stop`, but none that is spared."""
        turn = 0
        while not stop.wait(every_seconds):
            replica = self.all[turn % 2]
            turn += 1
            if replica.number != self.spared:
                self.absences.append(replica.die(self._chance.uniform(0, 3)))


def _port(chance: random.Random) -> int:
    """A free port that no outgoing connection is given while its server is dead."""
    while True:
        port = chance.randrange(20_000, 30_000)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _descendants(pid: int) -> list[int]:
    """The processes that it started, and those that they started."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found[1:]


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
