"""A soak from its beginning to its end."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from datom_flight_server.auth.tokens import Tokens
from datom_flight_server.model import Principal, Role

from ..faulty import faulty_proxy
from ..s3 import serving_s3
from ..server import SECRET, clean_environment
from ..writable import Place, empty_place, git_over_http
from .contents import LARGE, SHARED, content, large
from .kinds import KINDS
from .ledger import Entry, entries
from .plans import Plan
from .replicas import Replicas
from .weather import Weather

PROJECT = "STUDY_SOAK"
TESTS = Path(__file__).parents[2]

_ALONE = 6
_THREADS = 11
_END_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Course:
    """How a soak goes.

    Attributes:
        seconds: that clients are at it.
        kill_seconds: between kills.
        spare_seconds: at the end, in which one replica is left alive, to see whether it grows.
        seed: of all that is by chance.
    """

    seconds: float
    kill_seconds: float
    spare_seconds: float
    seed: str


class Soak:
    """Two replicas, a storage and a git server that fail, and fifty clients.

    A context manager: what it started has ended at its end.

    Attributes:
        weathers: of the way to the storage and of that to git, by name.
        entries: what the clients did.
        stuck: processes of clients that did not come to an end.
        began: as `time.time` has it.
    """

    def __init__(self, course: Course, folder: Path) -> None:
        self.course = course
        self.folder = folder
        self.weathers = {name: Weather(f"{course.seed} {name}") for name in ("storage", "git")}
        self.entries: list[Entry] = []
        self.stuck: list[str] = []
        self.began = 0.0
        self._ending = ExitStack()

    def __enter__(self) -> Soak:
        with ExitStack() as ending:
            s3 = ending.enter_context(serving_s3(self.folder / "s3"))
            git = ending.enter_context(git_over_http(self.folder / "place"))
            self._proxies = [
                ending.enter_context(faulty_proxy(s3.url, one_at_a_time=True)),
                ending.enter_context(faulty_proxy(git.url)),
            ]
            for proxy, weather in zip(self._proxies, self.weathers.values(), strict=True):
                proxy.weather = weather
            self.place: Place = empty_place(self.folder / "place", PROJECT, s3, self._proxies[1].url)
            settings = {**self.place.settings, "endpoint": self._proxies[0].url}
            self.replicas = Replicas(self.folder, PROJECT, settings, self.course.seed)
            ending.callback(self.replicas.close)
            self._ending = ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def plan(self, clients: list[tuple[str, str]], number: int) -> Plan:
        """What the process `number` of clients is to do."""
        names = [name for kind, name in _everybody() if kind == "wrote"]
        return Plan(
            clients=clients,
            urls=self.replicas.urls,
            project=PROJECT,
            tokens={role.value: _token(role) for role in (Role.READER, Role.DEVELOPER)},
            tables=[SHARED, *(f"t{name.rpartition(' ')[2]}" for name in names)],
            ledger=str(self.folder / f"{number:02d}.ledger"),
            seed=self.course.seed,
        )

    def run(self) -> None:
        """Let it all happen."""
        self._write_first()
        everybody = _everybody()
        random.Random(self.course.seed).shuffle(everybody)
        alone, rest = everybody[:_ALONE], everybody[_ALONE:]
        groups = [[client] for client in alone] + [rest[at : at + _THREADS] for at in range(0, len(rest), _THREADS)]
        stop = threading.Event()
        processes = [self._start(number, group) for number, group in enumerate(groups)]
        for process in processes:
            assert process.stdout is not None
            with process.stdout as said:
                said.readline()
        with ThreadPoolExecutor(3) as threads:
            self.began = time.time()
            for weather in self.weathers.values():
                weather.begin()
            others = [
                threads.submit(self.replicas.watch, stop),
                threads.submit(self.replicas.kill, stop, self.course.kill_seconds),
                threads.submit(self._forget, stop),
            ]
            try:
                stop.wait(self.course.seconds - self.course.spare_seconds)
                self.replicas.spared = 1
                stop.wait(self.course.spare_seconds)
            finally:
                stop.set()
                self._end(processes)
            for other in others:
                other.result()
        for weather in self.weathers.values():
            weather.end()
        for path in sorted(self.folder.glob("*.ledger")):
            self.entries += entries(path)

    def _write_first(self) -> None:
        plan = self.plan([], 0)
        with plan.connect("developer") as conn:
            conn.write(LARGE, large())
            for table in plan.tables:
                began = time.time()
                receipt = conn.write(table, content("first", len(self.entries)))
                wrote = (table, receipt.version, "first", len(self.entries))
                self.entries.append(Entry("wrote", began, time.time() - began, wrote=wrote))

    def _start(self, number: int, clients: list[tuple[str, str]]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{number:02d}.errors").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "support.soak.clients", self.plan(clients, number).to_json()],
                cwd=TESTS,
                env=clean_environment(self.folder, PYTHONPATH=str(TESTS)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def _end(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        deadline = time.monotonic() + _END_SECONDS
        for number, process in enumerate(processes):
            try:
                code = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            if code:
                said = (self.folder / f"{number:02d}.errors").read_text(errors="replace")
                self.stuck.append(f"process {number} of clients ended with {code}: {said[-1000:]}")

    def _forget(self, stop: threading.Event) -> None:
        """What proxies remember of each request would add up."""
        while not stop.wait(1):
            for proxy in self._proxies:
                proxy.requests.clear()
                proxy.headers.clear()


def _everybody() -> list[tuple[str, str]]:
    return [(kind, f"{kind} {number}") for kind, (count, _) in KINDS.items() for number in range(count)]


def _token(role: Role) -> str:
    return Tokens(SECRET).create(Principal(f"a {role.value}", role), timedelta(days=1))
