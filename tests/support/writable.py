"""Projects that can be written to: a bare remote, a storage, and all that either of them holds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import datom as peer
import pyarrow as pa
import pyarrow.flight as fl

from datom_flight.protocol.writes import WriteEnd, WriteRequest
from datom_flight_server.metadata import jsonlite
from datom_flight_server.metadata.manifest import new_manifest

from .answers import code_of
from .expected import FIXTURES, Store
from .git import git
from .git_http import GitServer, git_server
from .s3 import S3Server

TOKEN = "a token for the tests' git server"

CREATED_AT = "2026-01-01T00:00:00Z"


class Reachable(Protocol):
    """A server that plain clients can reach."""

    def raw(self) -> fl.FlightClient:
        """A client without credentials."""
        ...

    def call_options(self, token: str | None = None, seconds: float = 30) -> fl.FlightCallOptions:
        """Its credentials, and a deadline."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """A project, and where it is.

    Attributes:
        remote: its bare data repository.
        objects: the ``datom`` folder of its storage on this machine, of a bucket too.
        settings: the keys of its settings.
    """

    project: str
    remote: Path
    objects: Path
    settings: dict[str, str]

    @property
    def head(self) -> str:
        """The commit that the remote's branch is at."""
        return git("rev-parse", "main", cwd=self.remote).strip()

    @property
    def state(self) -> dict[str, str]:
        """The hash of every stored file, and where the remote's branches are."""
        files = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in self.files()}
        return {**files, "refs": git("for-each-ref", cwd=self.remote)}

    def files(self) -> Iterator[Path]:
        """Every file in the storage, unfinished ones too."""
        return (path for path in self.objects.rglob("*") if path.is_file())

    def unfinished(self) -> list[Path]:
        """The files in the storage that are no objects: what a writer has not finished, or left behind."""
        return [path for path in self.files() if path.suffix not in (".json", ".parquet") or path.name.startswith(".")]

    def document(self, name: str, which: str = "metadata") -> Any:
        """One of the stored documents of an artifact."""
        return json.loads((self.objects / name / ".metadata" / f"{which}.json").read_text())

    def manifest(self) -> Any:
        """The stored manifest."""
        return json.loads((self.objects / ".metadata" / "manifest.json").read_text())

    def committed(self, path: str, commit: str = "main") -> Any:
        """A JSON document that the remote's branch, or `commit`, has."""
        return json.loads(git("show", f"{commit}:{path}", cwd=self.remote))

    def commits(self) -> list[str]:
        """The commits of the branch, newest first."""
        return git("rev-list", "main", cwd=self.remote).split()


def empty_remote(folder: Path, project: str) -> Path:
    """A bare repository in `folder` with what a new project's has: its description and an empty manifest."""
    work, remote = folder / "initial", folder / f"{project}.git"
    (work / ".datom").mkdir(parents=True)
    (work / ".datom" / "manifest.json").write_bytes(jsonlite.pretty(new_manifest(project, CREATED_AT)))
    (work / ".datom" / "project.yaml").write_text(f"project_name: {project}\ndatom_version: 0.2.0\nschema_version: 1\n")
    git("init", "--quiet", "--initial-branch", "main", cwd=work)
    git("add", "--all", "--force", cwd=work)
    git("commit", "--quiet", "--message", "Initialize datom repository", cwd=work)
    git("clone", "--quiet", "--bare", str(work), str(remote), cwd=folder)
    git("config", "http.receivepack", "true", cwd=remote)
    shutil.rmtree(work)
    return remote


def empty_place(folder: Path, project: str, s3: S3Server | None = None, git_url: str | None = None) -> Place:
    """A new project without tables, stored in `folder` or in a bucket of `s3`.

    Args:
        git_url: of the server over `folder`; None reaches the remote by its path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remote = empty_remote(folder, project)
    objects, settings = _storage(folder, project, "", s3)
    documents = objects / ".metadata"
    documents.mkdir(parents=True)
    (documents / "manifest.json").write_bytes(jsonlite.pretty(new_manifest(project, CREATED_AT)))
    return Place(project, remote, objects, settings | _reached(remote, git_url))


def copied_place(folder: Path, store: Store, s3: S3Server | None = None, git_url: str | None = None) -> Place:
    """A copy of a store that R wrote, with its repository."""
    folder.mkdir(parents=True, exist_ok=True)
    remote = folder / f"{store.project}.git"
    git("clone", "--quiet", "--bare", str(FIXTURES / store.name / "repo.bundle"), str(remote), cwd=folder)
    git("config", "http.receivepack", "true", cwd=remote)
    objects, settings = _storage(folder, store.project, store.prefix, s3)
    shutil.copytree(store.data, objects, dirs_exist_ok=True)
    return Place(store.project, remote, objects, settings | _reached(remote, git_url))


@contextmanager
def git_over_http(folder: Path) -> Iterator[GitServer]:
    """A git server over `folder` that wants `TOKEN`; the file ``git_token`` in it holds that for settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "git_token").write_text(TOKEN)
    with git_server(folder, TOKEN) as server:
        yield server


def peer_of(place: Place, s3: S3Server | None = None) -> peer.Conn:
    """The official Python reader on the storage of `place`."""
    where = place.settings["data"]
    if s3 is None:
        return peer.get_conn(peer.store_local(where.removeprefix("file://")), place.project)
    import boto3

    bucket, _, prefix = where.removeprefix("s3://").partition("/")
    access = s3.access
    store = peer.store_s3(bucket, prefix or None, str(access.region), credentials=dict)
    # it takes no endpoint of its own
    store._client = boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        region_name=access.region,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
    )
    return peer.get_conn(store, place.project)


def put(
    server: Reachable,
    descriptor: fl.FlightDescriptor,
    batches: pa.Table | list[pa.RecordBatch],
    token: str,
    *,
    end_record: bool = False,
    seconds: float = 60,
) -> dict[str, Any]:
    """The receipt of one write by a plain Flight client, which tries once."""
    parts = batches.to_batches() if isinstance(batches, pa.Table) else batches
    schema = parts[0].schema
    with server.raw() as client:
        writer, answers = client.do_put(descriptor, schema, server.call_options(token, seconds))
        with writer:
            for part in parts:
                writer.write_batch(part)
            if end_record:
                end = WriteEnd(sum(part.num_rows for part in parts))
                writer.write_with_metadata(pa.RecordBatch.from_pylist([], schema=schema), end.to_json())
            writer.done_writing()
            answer = answers.read()
    receipt: dict[str, Any] = json.loads(bytes(answer))
    return receipt


def command(project: str, table: str, **more: Any) -> fl.FlightDescriptor:
    """The descriptor of a write as JSON."""
    return fl.FlightDescriptor.for_command(WriteRequest(project, table, **more).to_json())


def refusal(server: Reachable, descriptor: fl.FlightDescriptor, batches: Any, token: str, **options: Any) -> str:
    """The code with which a write by a plain Flight client ends; fails when it does not."""
    try:
        receipt = put(server, descriptor, batches, token, **options)
    except (fl.FlightError, pa.ArrowException) as error:
        return code_of(error)
    raise AssertionError(f"it was written: {receipt}")


def _storage(folder: Path, project: str, prefix: str, s3: S3Server | None) -> tuple[Path, dict[str, str]]:
    if s3 is not None:
        bucket = f"{project.lower().replace('_', '-')}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
        return s3.bucket(bucket) / prefix / "datom", s3.settings(bucket, prefix)
    root = folder / f"{project}-storage"
    (root / prefix).mkdir(parents=True, exist_ok=True)
    return root / prefix / "datom", {"data": f"file://{root / prefix}"}


def _reached(remote: Path, git_url: str | None) -> dict[str, str]:
    if git_url is None:
        return {"repo": str(remote)}
    return {"repo": f"{git_url}/{remote.name}", "repo_token": f"file:{remote.parent / 'git_token'}"}
