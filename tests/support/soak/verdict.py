"""What must hold after a soak."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from statistics import median

from ..git import git
from ..same import assert_same
from ..server import await_condition
from .contents import content
from .course import Soak
from .ledger import Entry
from .replicas import Sample

MEBIBYTE = 2**20

_MOST_BYTES = 768 * MEBIBYTE
_MOST_DESCRIPTORS = 400
_GROWTH_BYTES = 64 * MEBIBYTE
_GROWTH_DESCRIPTORS = 120
"""A clone holds up to a hundred packs open before it is made anew."""
_WARM_SECONDS = 120.0
"""The age from which a process has filled its caches and opened its connections."""
_MENDED_SECONDS = 90
_BACK_SECONDS = 2.0
"""In which a driver that knows one replica may still find it gone: its own pause between attempts to connect."""


def findings(soak: Soak) -> list[str]:
    """What is wrong, a line each. Ends both replicas."""
    found = [*soak.stuck, *(_told(soak, entry) for entry in soak.entries if entry.error and not _expected(soak, entry))]
    found += _mended(soak)
    found += _writes(soak)
    found += _kept(soak)
    found += _grown(soak)
    return found


def _told(soak: Soak, entry: Entry) -> str:
    return f"{entry.kind} at {entry.began - soak.began:.1f} s, after {entry.seconds:.1f} s: {entry.error}"


def _expected(soak: Soak, entry: Entry) -> bool:
    """Whether the driver, which has no other server to go to, was let down by one that was dead."""
    return any(
        absence.replica in entry.replicas
        and entry.began <= absence.ended + _BACK_SECONDS
        and entry.ended >= absence.began
        for absence in soak.replicas.absences
    ) and not str(entry.error).startswith("AssertionError")


def _mended(soak: Soak) -> Iterator[str]:
    """The storage comes to be what git says, by itself."""
    wrong: list[object] = []

    def right() -> bool:
        wrong[:] = [finding for finding in conn.validate() if not finding.ok]
        return not wrong

    with soak.plan([], 0).connect("developer") as conn:
        try:
            await_condition(right, _MENDED_SECONDS, "everything is as recorded")
        except AssertionError:
            yield from (f"validate: {finding}" for finding in wrong)
        for entry in soak.entries:
            if entry.wrote is not None:
                table, version, writer, number = entry.wrote
                try:
                    assert_same(conn.read(table, version), content(writer, number))
                except Exception as error:
                    yield f"{table}@{version}, which was acknowledged, cannot be read: {error}"


def _writes(soak: Soak) -> Iterator[str]:
    """Every write that was acknowledged is in git and in the storage once, and nothing else is."""
    place = soak.place
    acknowledged = Counter(entry.wrote[:2] for entry in soak.entries if entry.wrote)
    yield from (f"{key} was acknowledged {count} times" for key, count in acknowledged.items() if count > 1)
    committed, stored = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for table in {table for table, _ in acknowledged}:
        committed.update((table, row["version"]) for row in place.committed(f"{table}/version_history.json"))
        stored.update((table, row["version"]) for row in place.document(table, "version_history"))
        if place.document(table) != place.committed(f"{table}/metadata.json"):
            yield f"the storage has another current version of {table} than git"
    if committed != stored:
        yield f"git has {committed - stored}, which the storage has not; the storage {stored - committed}"
    if lost := acknowledged - committed:
        yield f"lost: {lost}"
    if more := committed - acknowledged:
        yield f"written without an acknowledgement, or twice: {more}"
    if merges := git("rev-list", "--merges", "main", cwd=place.remote):
        yield f"git has merges: {merges}"


def _kept(soak: Soak) -> Iterator[str]:
    """Nothing unfinished is left, and no fault of the servers' own."""
    for replica in soak.replicas.all:
        yield from (f"process {pid} outlived the server that started it" for pid in replica.orphans)
        if (code := replica.stop()) != 0:
            yield f"replica {replica.number} ended with {code}"
        left = [path for path in replica.cache.rglob("*") if path.is_file() and path.suffix == ".part"]
        left += list((replica.cache / "spool").glob("*"))
        yield from (f"left in the cache: {path.relative_to(replica.cache)}" for path in left)
        log = replica.server.log
        for line in re.findall(r".*(?:Traceback|internal).*", log)[:10]:
            yield f"in the log of replica {replica.number}: {line}"
    yield from (f"left in the storage: {path}" for path in soak.place.unfinished())
    for key, count in soak.replicas.counted.items():
        if count and (key.startswith("datom_flight_verification_failures_total") or "code=internal" in key):
            yield f"{key}: {count}"


def long_lived(soak: Soak) -> tuple[list[Sample], list[Sample]]:
    """What the replica that was spared held: in the first quarter of the time since it was warm, and in the last.

    Both are empty where it did not get so old.
    """
    last = soak.replicas.all[1].generation
    warm = [
        sample
        for sample in soak.replicas.samples
        if (sample.replica, sample.generation) == (1, last) and sample.age > _WARM_SECONDS
    ]
    quarter = len(warm) // 4
    return warm[:quarter], warm[len(warm) - quarter :]


def _grown(soak: Soak) -> Iterator[str]:
    """No process takes more than it should, and one that lives for long no more than when it was warm."""
    for what, most, growth in (
        ("rss_bytes", _MOST_BYTES, _GROWTH_BYTES),
        ("descriptors", _MOST_DESCRIPTORS, _GROWTH_DESCRIPTORS),
    ):
        held = [[int(getattr(sample, what)) for sample in part] for part in (soak.replicas.samples, *long_lived(soak))]
        if max(held[0]) > most:
            yield f"{what}: {max(held[0]):,} at most"
        if held[1] and median(held[2]) - median(held[1]) > growth:
            yield f"{what} grew from {median(held[1]):,} to {median(held[2]):,}"
