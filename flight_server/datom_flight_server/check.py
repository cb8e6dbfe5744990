"""What ``datom-flight-server check`` looks at before anybody depends on it."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from datom_flight.protocol.errors import DatomError

from .auth.tokens import WEAK_SECRET_BYTES
from .certificates import unusable
from .governance.configured import ConfiguredProjects, project_source
from .metadata import layout
from .model import Kind, PreviousLocation, Project
from .settings import Settings, SettingsError, SqlSettings
from .storage.base import ObjectStore
from .stores import Stores

CHECKS_AT_ONCE = 8


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
    yield _secret(settings)
    yield from _tls(settings)
    yield _cache(settings)
    yield from _memory(settings.sql)
    source = project_source(settings)
    source.start()
    try:
        yield from _governance(settings, source)
        yield from _projects(settings, source, Stores().open)
    finally:
        source.close()


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
        with tempfile.TemporaryFile(dir=directory):
            return Result("cache.directory", State.OK, str(directory))
    except OSError as error:
        return Result("cache.directory", State.FAILED, f'"{directory}" cannot be written: {error.strerror}')


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


def _projects(
    settings: Settings, source: ConfiguredProjects, open_store: Callable[[Project], ObjectStore]
) -> Iterator[Result]:
    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        for results in pool.map(lambda project: list(_project(project, open_store)), source.projects().values()):
            yield from results


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
