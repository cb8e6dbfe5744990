"""The real server, as its command starts it: one process, one configuration file, one port."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.flight as flight

import datom_flight

START_SECONDS = 60
STOP_SECONDS = 40
SECRET = "a secret of the tests, and of nothing else, 0123456789"

Table = Mapping[str, Any]


def command(name: str) -> str:
    """The path of one of the project's commands in the environment the tests run in."""
    return str(Path(sys.executable).parent / name)


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """An environment with nothing of the developer's own in it: no AWS keys, no tokens, no keyring."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "AWS_EC2_METADATA_DISABLED": "true",
        **more,
    }


def write_config(folder: Path, projects: Mapping[str, Table], **sections: Table) -> Path:
    """A configuration in `folder` that serves `projects` on free ports; `sections` add to it, or change it.

    The file is ``server.toml``; its signing secret and its cache are beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "secret").write_text(SECRET)
    body: dict[str, dict[str, Any]] = {
        "server": {
            "listen": "grpc://127.0.0.1:0",
            "management": "127.0.0.1:0",
            "health": "127.0.0.1:0",
            "shutdown_grace_seconds": 2,
        },
        "auth": {"secret": "file:secret"},
        "cache": {"directory": "cache"},
    }
    for name, keys in sections.items():
        body[name] = {**body.get(name, {}), **keys}
    for name, keys in projects.items():
        body[f"projects.{name}"] = dict(keys)
    lines = []
    for name, keys in body.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()), ""]
    path = folder / "server.toml"
    path.write_text("\n".join(lines))
    return path


class Server:
    """A running server, its configuration, and what it wrote.

    Attributes:
        config: the configuration file.
        url: where it listens.
        tls_root_certs: what a client must trust to reach it; None without TLS.
    """

    def __init__(self, config: Path, *, tls_root_certs: bytes | None = None, **environment: str) -> None:
        self.config = config
        self.tls_root_certs = tls_root_certs
        self._environment = clean_environment(config.parent, **environment)
        self._tokens: dict[tuple[str, ...], str] = {}
        self._log = (config.parent / "server.log").open("ab")
        self._process = subprocess.Popen(
            [command("datom-flight-server"), "serve", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            cwd=config.parent,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read_lines, daemon=True).start()
        try:
            self.url = self._await_listening()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """All it wrote to stderr so far."""
        return (self.config.parent / "server.log").read_text(errors="replace")

    @property
    def rss_bytes(self) -> int:
        """Its resident memory now."""
        return _status_bytes(self.pid, "VmRSS")

    @property
    def peak_rss_bytes(self) -> int:
        """Its largest resident memory since it started, or since `forget_peak`."""
        return _status_bytes(self.pid, "VmHWM")

    def forget_peak(self) -> None:
        """Make `peak_rss_bytes` start anew from the present use."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def token(self, role: str = "reader", *projects: str, principal: str = "ann", expires: str | None = None) -> str:
        """A token that `token create` printed; `projects` none: all of them."""
        arguments = ["--principal", principal, "--role", role]
        for project in projects:
            arguments += ["--project", project]
        if expires is not None:
            arguments += ["--expires", expires]
        key = tuple(arguments)
        if key not in self._tokens:
            done = subprocess.run(
                [command("datom-flight-server"), "token", "create", "--config", str(self.config), *arguments],
                capture_output=True,
                text=True,
                timeout=START_SECONDS,
                env=self._environment,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            self._tokens[key] = done.stdout.strip()
        return self._tokens[key]

    def connect(
        self, project: str | None = None, *, token: str | None = None, **options: Any
    ) -> datom_flight.Connection:
        """A connection of a reader of all projects, unless `token` says otherwise."""
        options.setdefault("tls_root_certs", self.tls_root_certs)
        return datom_flight.connect(self.url, project, token=token or self.token(), **options)

    def raw(self) -> flight.FlightClient:
        """A plain pyarrow client, without credentials."""
        options = {} if self.tls_root_certs is None else {"tls_root_certs": self.tls_root_certs}
        return flight.FlightClient(self.url, **options)

    def call_options(
        self, token: str | None = None, seconds: float = 30, headers: Mapping[str, str] | None = None
    ) -> flight.FlightCallOptions:
        """Options for a plain client: a reader's token, unless another is given, a deadline, and more headers."""
        sent = {"authorization": f"Bearer {token or self.token()}", **(headers or {})}
        return flight.FlightCallOptions(
            timeout=seconds, headers=[(name.encode(), value.encode()) for name, value in sent.items()]
        )

    def stop(self) -> int:
        """End the process the polite way, by its id, and give its exit code."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end of a process that was asked to end, and give its exit code."""
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
            raise
        finally:
            self._log.close()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def _await_listening(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                line = self._lines.get(timeout=deadline - time.monotonic())
            except (queue.Empty, ValueError):
                raise TimeoutError(f"the server was not listening after {START_SECONDS} s: {self.log}") from None
            if line is None:
                raise RuntimeError(f"the server ended before it listened: {self.log}")
            if line.startswith("listening on "):
                return line.removeprefix("listening on ").strip()


@contextmanager
def running(config: Path, **options: Any) -> Iterator[Server]:
    """A server for the time of a ``with`` block."""
    server = Server(config, **options)
    try:
        yield server
    finally:
        server.stop()


def run_command(name: str, *arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One run of a command as a user would type it, in a clean environment."""
    return subprocess.run(
        [command(name), *arguments],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        env=clean_environment(home, **environment),
        cwd=home,
        check=False,
    )


def await_condition(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll `condition` until it is true; fail naming `what` once `seconds` have passed."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        pause.wait(0.05)


def _status_bytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{key} is not in the status of process {pid}")
