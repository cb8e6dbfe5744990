"""Writing versions into the demo's project: git and storage, in an order that a reader never sees half of."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datom_flight.identity import data_sha

from ..metadata import layout
from ..metadata.current import Current
from ..metadata.documents import Change, TableWrite, plan_table, storage_documents
from ..metadata.git import Author
from ..metadata.jsonlite import parse
from ..metadata.manifest import MANIFEST_PATH
from ..model import DataLocation, Kind
from .repository import AUTHOR, DemoRepository


@dataclass(frozen=True, slots=True)
class DemoProject:
    """A project's two places: its git repository, and its folder of objects.

    Attributes:
        repository: the bare data repository.
        location: where its objects are.
    """

    name: str
    repository: Path
    location: DataLocation

    @property
    def objects(self) -> Path:
        """The ``datom`` folder itself."""
        return Path(self.location.root) / self.location.prefix / "datom"


def write_version(project: DemoProject, name: str, table: pa.Table, message: str, when: datetime) -> str:
    """Write `table` as the current version of `name`; the version's id.

    A version that is in the history already is not written again. The payload goes first, then the commit, then
    the documents, the manifest last: whoever reads meanwhile sees the version before or this one, whole.

    Raises:
        InvalidRequestError: ``invalid_name`` or ``not_hashable``.
    """
    repository = DemoRepository(project.repository)
    address = data_sha(table)
    payload = project.objects / layout.payload_key(name, Kind.TABLE, address)
    if not payload.exists():
        put(payload, _parquet(table))
    # What is recorded is the stored object's hash: the same values can make other parquet bytes.
    stored = payload.read_bytes()
    write = TableWrite(
        data_sha=address,
        parquet_sha=hashlib.sha256(stored).hexdigest(),
        size_bytes=len(stored),
        rows=table.num_rows,
        columns=tuple(table.column_names),
    )
    current = Current.read(name, repository.read)
    plan = plan_table(current, write, Change(Author(*AUTHOR), when, message))
    if plan.version not in current.versions:
        repository.commit(plan.files, plan.message, when)
    mirror(project)
    return plan.version


def versions(project: DemoProject, name: str) -> tuple[str, ...]:
    """The versions of `name` as git has them, newest first; none before the first."""
    return Current.read(name, DemoRepository(project.repository).read).versions


def mirror(project: DemoProject) -> None:
    """Bring the storage's documents to what git says; those that say it already are left alone."""
    repository = DemoRepository(project.repository)
    manifest = repository.read(MANIFEST_PATH) or b""
    for name in parse(manifest)["artifacts"]:
        history_path = project.objects / layout.history_key(name)
        mirrored = parse(history_path.read_bytes()) if history_path.exists() else []
        # Only the newest commit's version can be missing: each is mirrored before the next is committed.
        commits = dict.fromkeys(versions(project, name), repository.head or "")
        commits |= {entry["version"]: entry["commit_sha"] for entry in mirrored}
        for key, content in storage_documents(name, repository.read, commits).items():
            if key != layout.MANIFEST_KEY:
                put(project.objects / key, content)
    put(project.objects / layout.MANIFEST_KEY, manifest)


def put(path: Path, content: bytes | pa.Buffer) -> None:
    """Make `path` hold `content`, at once or not at all, even if the machine stops."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _parquet(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", use_dictionary=True, write_statistics=True, store_schema=True)
    return sink.getvalue()
