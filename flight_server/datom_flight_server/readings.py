"""Metrics of what the server's parts count for themselves, read when somebody asks."""

from __future__ import annotations

import platform
import resource
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
from prometheus_client import Metric

from .governance.base import ProjectSource
from .metrics import counted, gauge, summary
from .model import Project
from .outcomes import Outcomes
from .repositories import Repositories
from .sql.engine import Engine
from .stores import Stores
from .versions.documents import Documents
from .versions.payloads import Payloads
from .versions.writers import Writers


def of_process(is_ready: bool) -> Iterator[Metric]:
    """What runs, and whether it is well."""
    built = version("datom-flight"), platform.python_version(), pa.__version__
    yield gauge("build_info", "1; the labels say what runs.", "version python pyarrow", {built: 1})
    yield gauge("ready", "1 while new requests are welcome.", "", {(): is_ready})
    yield gauge("arrow_bytes", "Memory that Arrow holds for data.", "", {(): pa.total_allocated_bytes()})


def of_streams(running: int, queued: int) -> Iterator[Metric]:
    """Streams of rows."""
    yield gauge("open_streams", "Streams that run now.", "", {(): running})
    yield gauge("queued_streams", "Streams that wait for a place.", "", {(): queued})


def of_caches(payloads: Payloads) -> Iterator[Metric]:
    """What is kept: on the disk whole objects, in memory decoded rows."""
    disk, decoder = payloads.files, payloads.decoder
    memory = decoder.memory
    yield counted(
        "cache_hits", "Found where it was looked for.", "cache", {("disk",): payloads.hits, ("memory",): decoder.hits}
    )
    yield counted(
        "cache_misses",
        "Not there: fetched from the storage, or decoded.",
        "cache",
        {("disk",): payloads.misses, ("memory",): decoder.misses},
    )
    yield counted(
        "cache_evictions", "Dropped for others.", "cache", {("disk",): disk.evictions, ("memory",): memory.evictions}
    )
    yield gauge(
        "cache_bytes", "What is kept now.", "cache", {("disk",): disk.size_bytes, ("memory",): memory.size_bytes}
    )
    yield gauge(
        "cache_max_bytes", "What may be kept.", "cache", {("disk",): disk.max_bytes, ("memory",): memory.max_bytes}
    )
    yield counted(
        "verification_failures",
        "Bytes that are not those recorded, by where they came from.",
        "source",
        {("storage",): payloads.mismatches, ("disk",): disk.spoiled},
    )


def of_queries(engine: Engine) -> Iterator[Metric]:
    """Queries in processes of their own."""
    yield gauge("queries", "Queries now.", "state", {("running",): engine.running, ("waiting",): engine.waiting})
    used = sum(map(_resident_bytes, engine.process_ids))
    yield gauge("query_processes_bytes", "Resident memory of their processes.", "", {(): used})


def of_storage(stores: Stores) -> Iterator[Metric]:
    """What is asked of the storage."""
    yield _tried("storage_call_seconds", "Calls to the storage, and what they took.", stores.outcomes)
    yield counted("storage_retries", "Requests sent to the storage again.", "", {(): stores.retries})


def of_git(repositories: Repositories, writers: Writers) -> Iterator[Metric]:
    """What is asked of the data repositories, and how far the storages are behind them."""
    yield _tried("git_call_seconds", "Calls to data repositories, and what they took.", repositories.outcomes)
    lags = {(project,): lag for project, lag in writers.lags().items()}
    yield gauge("mirror_lag_seconds", "Since the storage was known to say what git says.", "project", lags)


def of_metadata(documents: Documents, projects: Iterable[Project]) -> Iterator[Metric]:
    """How fresh it is what is known of projects."""
    known = documents.ages()
    ages = {(project.name,): known[uri] for project in projects if (uri := project.location.uri) in known}
    yield gauge("metadata_age_seconds", "Since the storage last said how a document is.", "project", ages)


def of_governance(source: ProjectSource) -> Iterator[Metric]:
    """Which projects there are."""
    yield gauge("projects", "Projects known now.", "", {(): len(source.projects())})
    age = source.age_seconds()
    ages = {} if age is None else {(): age}
    yield gauge("governance_age_seconds", "Since the governance repository was last read.", "", ages)
    yield _tried("governance_call_seconds", "Fetches of the governance repository.", source.outcomes)


def _tried(name: str, told: str, outcomes: Outcomes) -> Metric:
    return summary(
        name,
        told,
        "operation code",
        {labels: (total.count, total.seconds) for labels, total in outcomes.totals().items()},
    )


def _resident_bytes(process_id: int) -> int:
    try:
        pages = Path(f"/proc/{process_id}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0  # it ended meanwhile
    return int(pages) * resource.getpagesize()
