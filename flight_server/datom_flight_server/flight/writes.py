"""Versions over Flight: a DoPut's rows become a table's new version."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from datom_flight.protocol.errors import InvalidRequestError, UnavailableError
from datom_flight.protocol.messages import encode_object, optional_text, required_name
from datom_flight.protocol.writes import (
    Parent,
    WriteEnd,
    WriteReceipt,
    WriteRequest,
    optional_expected,
    optional_message,
)

from ..auth.base import Authenticator, Policy
from ..metadata.documents import lineage_union
from ..model import Kind, Project, Role
from ..versions.projects import Projects
from ..versions.spool import Spool
from ..versions.validation import Finding
from ..versions.writer import author_of, table_content
from ..versions.writers import Writers
from .admission import Stream, Streams
from .middleware import Request

_RETRY_SECONDS = 1.0

Body = Mapping[str, Any]
Records = Sequence[Mapping[str, Any]]


def write_request(descriptor: fl.FlightDescriptor) -> WriteRequest:
    """What a DoPut's descriptor asks for: a JSON command, or a path ``[project, table]``.

    Raises:
        InvalidRequestError: ``invalid_argument`` or ``invalid_name``.
    """
    if descriptor.descriptor_type == fl.DescriptorType.CMD:
        return WriteRequest.from_json(descriptor.command)
    path = [part.decode("utf-8", "replace") for part in descriptor.path or ()]
    if len(path) != 2:
        raise InvalidRequestError("the descriptor of a write is neither a JSON command nor the path [project, table]")
    return WriteRequest.from_json(encode_object({"project": path[0], "table": path[1]}))


class Writes:
    """Answers DoPut, and the action that writes sets."""

    def __init__(
        self,
        projects: Projects,
        policy: Policy,
        authenticator: Authenticator,
        spool: Spool,
        writers: Writers,
        streams: Streams,
        max_concurrent: int,
    ) -> None:
        self._projects = projects
        self._policy = policy
        self._authenticator = authenticator
        self._spool = spool
        self._writers = writers
        self._streams = streams
        self._max_concurrent = max_concurrent
        self._places = threading.BoundedSemaphore(max_concurrent)

    def put(
        self, request: Request, descriptor: fl.FlightDescriptor, reader: fl.MetadataRecordBatchReader
    ) -> WriteReceipt:
        """Write the rows that `reader` brings. Nothing is visible before all have come and the token still holds."""
        asked = write_request(descriptor)
        self.authorise(request, asked)
        return self.write(request, asked, reader.schema, rows_of(request, reader, asked))

    def authorise(self, request: Request, asked: WriteRequest) -> None:
        """Return when the caller may write what `asked` names; raises as `Policy.authorise` does."""
        request.call.about(asked.project, asked.table)
        self._policy.authorise(request.principal, asked.project, Role.DEVELOPER)

    def write(
        self, request: Request, asked: WriteRequest, schema: pa.Schema, batches: Iterator[pa.RecordBatch]
    ) -> WriteReceipt:
        """Write these rows, of `schema` and not to be trusted, as `put` does."""
        self.authorise(request, asked)
        catalog = self._projects.catalog(asked.project)
        writer = self._writers.writer(catalog.project)
        parents, lineage = self._parents(request, asked.parents)
        with (
            self._streams.running(request) as stream,
            self._place(),
            self._spool.receive(schema, _awaited(batches, stream)) as spooled,
        ):
            request.call.count(spooled.rows, spooled.bytes)
            content = table_content(spooled)
            # it may have expired while the rows came
            self._authenticator.authenticate(request.bearer)
            receipt = writer.write_table(
                asked.table,
                content,
                author_of(request.principal.name),
                message=asked.message,
                custom=asked.metadata,
                parents=parents,
                source_lineage=lineage,
                original=_original(asked),
                expected=asked.expected,
            )
        catalog.refresh(asked.table)
        request.call.about(asked.project, asked.table, receipt.version)
        return receipt

    def put_set(self, request: Request, body: Body) -> WriteReceipt:
        """Write the set that the body of ``datom.write_set`` describes."""
        project, name = required_name(body, "project"), required_name(body, "table")
        request.call.about(project, name)
        self._policy.authorise(request.principal, project, Role.DEVELOPER)
        catalog = self._projects.catalog(project)
        members = body.get("members")
        if not isinstance(members, list):
            raise InvalidRequestError('"members" is not a list')
        for member in members:
            self._check_member(request, member)
        receipt = self._writers.writer(catalog.project).write_set(
            name,
            members,
            author_of(request.principal.name),
            tags=body.get("tags"),
            message=optional_message(body),
            expected=optional_expected(body),
        )
        catalog.refresh(name)
        request.call.about(project, name, receipt.version)
        return receipt

    def agreement(self, project: Project, name: str | None) -> Iterator[Finding]:
        """Whether the storage's documents say what git's do, of each artifact; nothing where git is not known here."""
        if project.repository is None:
            return
        for artifact, keys in self._writers.writer(project).differing(name).items():
            detail = "not as git has it: " + ", ".join(keys) if keys else "the storage says what git says"
            yield Finding(artifact, None, "git", not keys, detail)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise UnavailableError(
                f"{self._max_concurrent} tables are being written, the most at once",
                code="overloaded",
                fields={
                    "limit": "writes.max_concurrent",
                    "value": self._max_concurrent,
                    "retry_after_seconds": _RETRY_SECONDS,
                },
            )
        try:
            yield
        finally:
            self._places.release()

    def _parents(self, request: Request, parents: Sequence[Parent] | None) -> tuple[Records | None, Records]:
        """The parents as documents record them, and the union of their source lineages.

        Raises:
            DatomError: as resolving and reading each does; ``invalid_argument`` when one has another data_sha.
        """
        if not parents:
            return None, ()
        records, lineages = [], []
        for parent in parents:
            self._policy.authorise(request.principal, parent.source, Role.READER)
            catalog = self._projects.catalog(parent.source)
            found = catalog.resolve(parent.table, Kind.TABLE, parent.version)
            if parent.data_sha not in (None, found.data_sha):
                raise InvalidRequestError(
                    f'parent "{parent.table}" version {found.version} has data_sha {found.data_sha}, '
                    f"the request says {parent.data_sha}"
                )
            records.append(
                {
                    "source": parent.source,
                    "table": parent.table,
                    "version": found.version,
                    "data_sha": found.data_sha,
                }
            )
            lineages.append(catalog.metadata(parent.table, found.version).get("source_lineage"))
        return records, lineage_union(*lineages)

    def _check_member(self, request: Request, member: Any) -> None:
        """Refuse a member that cites what is not there, as far as the caller may see it."""
        identity = member.get("id") if isinstance(member, Mapping) else None
        if not isinstance(identity, Mapping):
            raise InvalidRequestError('a member has no "id"')
        project, name = required_name(identity, "project"), required_name(identity, "name")
        version, kind = optional_text(identity, "version"), identity.get("kind")
        if version is None or kind not in {known.value for known in Kind}:
            raise InvalidRequestError(f'member "{name}" has no version, or is neither a table nor a set')
        self._policy.authorise(request.principal, project, Role.READER)
        self._projects.catalog(project).resolve(name, Kind(kind), version)


def _awaited(batches: Iterator[pa.RecordBatch], stream: Stream) -> Iterator[pa.RecordBatch]:
    while True:
        stream.wait()
        batch = next(batches, None)
        stream.check()
        if batch is None:
            return
        yield batch


def _original(asked: WriteRequest) -> tuple[str, str] | None:
    if asked.original_file_sha is None or asked.original_format is None:
        return None
    return asked.original_file_sha, asked.original_format


def rows_of(request: Request, reader: fl.MetadataRecordBatchReader, asked: WriteRequest) -> Iterator[pa.RecordBatch]:
    """The rows that come, batch by batch; to the end record, where the request promises one.

    Raises:
        DatomError: ``truncated`` when the end record does not come or counts other rows, ``cancelled`` when the client
            goes away, ``invalid_argument`` when what comes is not Arrow data.
    """
    rows = 0
    while True:
        try:
            chunk = reader.read_chunk()
        except StopIteration:
            break
        except (fl.FlightCancelledError, fl.FlightUnavailableError):
            raise UnavailableError("the client went away before all rows had come", code="cancelled") from None
        except pa.ArrowException as error:
            reason = (str(error).splitlines() or [""])[0][:200]
            raise InvalidRequestError(f"the rows cannot be read: {reason}") from None
        if chunk.data is not None and chunk.data.num_rows:
            rows += chunk.data.num_rows
            yield chunk.data
        end = WriteEnd.from_json(chunk.app_metadata.to_pybytes()) if chunk.app_metadata is not None else None
        if end is not None:
            if end.rows != rows:
                raise UnavailableError(f"{rows} rows came where the client sent {end.rows}", code="truncated")
            return
    if request.is_cancelled():
        # Flight ends the rows of a client that was killed like those of one that is done
        raise UnavailableError("the client went away before all rows had come", code="cancelled")
    if asked.end_record:
        raise UnavailableError(f"the rows ended after {rows}, before their end record", code="truncated")
