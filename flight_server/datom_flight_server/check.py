"""What ``datom-flight-server check`` looks at before anybody depends on it."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from datom_flight.protocol.errors import DatomError

from .auth.tokens import WEAK_SECRET_BYTES
from .certificates import unusable
from .governance.configured import ConfiguredProjects, project_source
from .metadata import layout
from .model import Kind, PreviousLocation, Project
from .repositories import Repositories
from .settings import Settings, SettingsError, SqlSettings
from .storage.base import ObjectStore
from .stores import Stores

CHECKS_AT_ONCE = 8

_RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
"""No clock that is right says less."""
_LEEWAY = timedelta(minutes=5)
_BLOCK_BYTES = 4096


class State(Enum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """One check: of what, how it ended, and what there is to say."""

    subject: str
    state: State
    detail: str

    @property
    def is_good(self) -> bool:
        """Whether there is nothing to do."""
        return self.state is State.OK


def run_checks(path: Path, environment: Mapping[str, str]) -> Iterator[Result]:
    """Check all that the settings file at `path` names, most basic first. Nothing is raised, all is told."""
    try:
        settings = Settings.load(path, environment)
    except SettingsError as error:
        for problem in error.problems:
            subject, _, detail = problem.partition(": ")
            yield Result(subject if detail else str(path), State.FAILED, detail or problem)
        return
    yield Result("settings", State.OK, f"{path}: every key is known, every secret is there")
    yield from checks_here(settings)
    source = project_source(settings)
    repositories = Repositories(settings.cache.directory / "repositories")
    source.start()
    try:
        yield from _governance(settings, source)
        yield from _projects(source, lambda project: list(_project(project, Stores().open)))
        yield from _projects(source, lambda project: list(_repository(project, repositories)))
    finally:
        source.close()


def checks_here(settings: Settings) -> Iterator[Result]:
    """Check what takes no network."""
    yield _secret(settings)
    yield from _tls(settings)
    yield _cache(settings)
    yield _clock(datetime.now(UTC))
    yield from _memory(settings.sql)


def failing_here(settings: Settings) -> list[str]:
    """What of this machine keeps requests from being answered, one sentence each."""
    results = (_cache(settings), _clock(datetime.now(UTC)))
    return [f"{result.subject}: {result.detail}" for result in results if result.state is State.FAILED]


def _secret(settings: Settings) -> Result:
    length = len(settings.auth.secret.get_secret_value().encode())
    if length < WEAK_SECRET_BYTES:
        return Result(
            "auth.secret",
            State.WARNING,
            f"weak: {length} bytes can be guessed; use {WEAK_SECRET_BYTES} or more, like `openssl rand -hex 32` gives",
        )
    return Result("auth.secret", State.OK, f"{length} bytes")


def _tls(settings: Settings) -> Iterator[Result]:
    if settings.server.tls is None:
        host = urlsplit(settings.server.listen).hostname or ""
        if not _is_loopback(host):
            yield Result("server.listen", State.WARNING, "tokens and data travel unencrypted: use grpc+tls://")
        return
    why = unusable(*settings.server.tls)
    if why is not None:
        yield Result("server.certificate", State.FAILED, why)
    else:
        yield Result("server.certificate", State.OK, "certificate and key go together")


def _cache(settings: Settings) -> Result:
    directory = settings.cache.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            # a full disk takes a file, but nothing in it
            file.write(bytes(_BLOCK_BYTES))
            file.flush()
            return Result("cache.directory", State.OK, str(directory))
    except OSError as error:
        return Result("cache.directory", State.FAILED, f'"{directory}" cannot be written: {error.strerror}')


def _clock(now: datetime) -> Result:
    if now < _RELEASED:
        return Result(
            "clock", State.FAILED, f"says {now:%Y-%m-%d}, before this release: tokens made elsewhere are refused"
        )
    return Result("clock", State.OK, f"{now:%Y-%m-%dT%H:%M:%SZ}")


def _memory(sql: SqlSettings) -> Iterator[Result]:
    most = sql.max_concurrent * sql.memory_bytes
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if most > machine:
        yield Result(
            "sql.memory_bytes",
            State.WARNING,
            f"{sql.max_concurrent} queries at once may take {most / 10**9:.1f} GB, and the machine has"
            f" {machine / 10**9:.1f} GB: lower it, or sql.max_concurrent",
        )


def _governance(settings: Settings, source: ConfiguredProjects) -> Iterator[Result]:
    if settings.governance is None:
        if not settings.projects:
            yield Result("projects", State.WARNING, "none: add [projects.NAME] or [governance]")
        return
    url = urlsplit(settings.governance.repo)
    if url.scheme == "http" and settings.governance.token and not _is_loopback(url.hostname or ""):
        yield Result("governance.token", State.WARNING, "travels unencrypted: use https://")
    problems = source.problems()
    for problem in problems:
        yield Result("governance.repo", State.FAILED, problem)
    projects = source.projects()
    if not problems:
        governed = sum(project.governed for project in projects.values())
        yield Result("governance.repo", State.OK, f"{settings.governance.repo}: {governed} projects")
    for name, hidden in source.hidden().items():
        if hidden.location != projects[name].location:
            yield Result(
                f"projects.{name}",
                State.WARNING,
                f"served from {projects[name].location.uri} as set here; the governance repository says"
                f" {hidden.location.uri}: leave data out to follow it",
            )
    for name in settings.projects:
        if name not in projects:
            yield Result(
                f"projects.{name}", State.FAILED, "has no data here, and the governance repository does not register it"
            )


def _projects(source: ConfiguredProjects, check: Callable[[Project], list[Result]]) -> Iterator[Result]:
    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        for results in pool.map(check, source.projects().values()):
            yield from results


def _repository(project: Project, repositories: Repositories) -> Iterator[Result]:
    if project.repository is None:
        return
    subject = f"projects.{project.name}.repo"
    try:
        commit = repositories.open(project.repository).fetch()
    except DatomError as error:
        yield Result(subject, State.FAILED, f"{error.code}: {error.message}")
        return
    head = f"at {commit[:12]}" if commit else "empty: `init` begins the project"
    yield Result(subject, State.OK, f'branch "{project.repository.branch}" {head}')


def _project(project: Project, open_store: Callable[[Project], ObjectStore]) -> Iterator[Result]:
    subject = f"projects.{project.name}"
    store = open_store(project)
    try:
        store.check()
        manifest = layout.parse_manifest(store.read(layout.MANIFEST_KEY).data)
        marked = not project.governed and any(True for _ in store.keys(layout.GOVERNANCE_KEY))
    except DatomError as error:
        reason = "there is no datom/.metadata/manifest.json" if error.code == "not_found" else error.message
        yield Result(subject, State.FAILED, f"{project.location.uri}: {error.code}: {reason}")
        return
    kinds = [row.kind for row in manifest.rows.values()]
    tables, sets = kinds.count(Kind.TABLE.value), kinds.count(Kind.SET.value)
    yield Result(subject, State.OK, f"{project.location.uri}: {tables} tables, {sets} sets")
    if (updated := layout.parse_timestamp(manifest.updated_at)) is not None and updated > datetime.now(UTC) + _LEEWAY:
        yield Result(
            subject, State.WARNING, f"was written at {manifest.updated_at}, which is to come: check the clocks"
        )
    if manifest.project not in (None, project.name):
        yield Result(subject, State.WARNING, f'the data there calls itself "{manifest.project}"')
    if marked:
        yield Result(
            subject,
            State.WARNING,
            "a governance repository rules this project, and may move its data without these settings: name it in"
            " [governance], and leave data out here",
        )
    for previous in project.previous:
        yield _previous(subject, previous)


def _previous(subject: str, previous: PreviousLocation) -> Result:
    sunset = layout.parse_timestamp(previous.sunset_at)
    detail = f"moved from {previous.location.uri} on {previous.migrated_at or 'an unknown day'}"
    if sunset is None:
        return Result(subject, State.OK, f"{detail}; no sunset date")
    if sunset <= datetime.now(UTC):
        return Result(subject, State.WARNING, f"{detail}; sunset was {previous.sunset_at}, remove it")
    return Result(subject, State.OK, f"{detail}; sunset {previous.sunset_at}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
