"""The process that runs queries: DuckDB, locked down, with nothing else of the server's in its memory.

Requests come in on stdin, a JSON object a line; answers leave on stdout as frames, see `FRAME`. The process ends when
stdin does.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from .frames import BATCH, CATALOG, END, FAILED, FRAME, MAX_ROW_BYTES, READY, SCHEMA, RowTooLarge

_BATCH_BYTES = 3 * 1024 * 1024
_MAX_BATCH_BYTES = 4 * 1024 * 1024
_VECTOR_ROWS = 2048
_VALUE_BYTES = 16


class Database:
    """A DuckDB that reads the files of one folder and nothing else, within limits that no query can change.

    Args:
        folder: where the files of queries are; what does not fit memory is spilled beside them.
    """

    def __init__(self, folder: str, memory_bytes: int, spill_bytes: int, threads: int) -> None:
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "autoload_known_extensions": "false",
                "autoinstall_known_extensions": "false",
                "allow_community_extensions": "false",
                "threads": str(threads),
                "memory_limit": f"{memory_bytes}B",
                "temp_directory": os.path.join(folder, "spill"),
            },
        )
        # the catalog that clients know; what names no catalog is in it too
        self._connection.execute(f"ATTACH ':memory:' AS {CATALOG}")
        for setting, value in (
            ("TimeZone", "'UTC'"),
            # given to connect, it is told and not kept to
            ("max_temp_directory_size", f"'{spill_bytes}B'"),
            # gives memory back while no query runs
            ("allocator_background_threads", "true"),
            ("enable_external_file_cache", "false"),
            ("parquet_metadata_cache", "false"),
            ("allowed_directories", [os.path.join(folder, "files") + os.sep]),
            ("enable_external_access", "false"),
            ("lock_configuration", "true"),
        ):
            self._connection.execute(f"SET GLOBAL {setting} = {value}")
        self._running: duckdb.DuckDBPyConnection | None = None

    def interrupt(self) -> None:
        """Make the running query fail soon; nothing happens when none runs."""
        if self._running is not None:
            self._running.interrupt()

    def run(self, setup: list[str], query: str, answers: Answers, *, schema_only: bool) -> None:
        """Answer the schema of `query`, then, unless `schema_only`, its batches. Nothing it makes stays.

        Args:
            setup: statements that make what `query` reads.
        """
        with self._connection.cursor() as connection:
            self._running = connection
            try:
                with _undone(connection) if setup else nullcontext():
                    for statement in setup:
                        connection.execute(statement)
                    if schema_only:
                        _answer_schema(connection.sql(query), answers)
                    else:
                        _answer_rows(connection.sql(query), answers)
            finally:
                self._running = None


class Answers:
    """Frames on their way out."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def send(self, kind: bytes, body: bytes | pa.Buffer = b"", *, more: bool = False) -> None:
        """One frame; with `more` it may wait for the next, which comes soon."""
        self._file.write(FRAME.pack(kind, len(body)))
        self._file.write(memoryview(body))
        if not more:
            self._file.flush()

    def send_batch(self, batch: pa.RecordBatch, schema: pa.Schema) -> None:
        """The rows of `batch`, in `schema`, as messages without it, of a few MiB or of one row."""
        columns = [
            column if column.type == kind else column.cast(kind)
            for column, kind in zip(batch.columns, schema.types, strict=True)
        ]
        for part in _cut(pa.RecordBatch.from_arrays(columns, schema=schema)):
            self.send(BATCH, part.serialize())


def main() -> None:
    """Serve requests until stdin ends. The one argument holds the folder and the limits, as JSON."""
    # service managers tell every process to stop: this one does when its server has
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    options = json.loads(sys.argv[1])
    _limit_memory(options["process_bytes"])
    answers = Answers(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    os.chdir(options["folder"])
    database = Database(options["folder"], options["memory_bytes"], options["spill_bytes"], options["threads"])
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(database, requests), daemon=True).start()
    answers.send(READY)
    while True:
        _serve(requests.get(), database, answers)


def _listen(database: Database, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request.get("interrupt"):
            database.interrupt()
        else:
            requests.put(request)
    os._exit(0)


def _serve(request: Mapping[str, Any], database: Database, answers: Answers) -> None:
    try:
        database.run(request["setup"], request["query"], answers, schema_only=request["schema_only"])
    except Exception as error:
        # a reader's error is an OSError or ArrowException that says DuckDB's text
        answers.send(FAILED, json.dumps({"kind": type(error).__name__, "message": str(error)[:10_000]}).encode())
    else:
        answers.send(END)


def _limit_memory(most_bytes: int) -> None:
    # what DuckDB does not count, like the texts a function makes, is counted here
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type that clients get: an ENUM is a text to them, and UTC has one name."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_timestamp(kind) and kind.tz == "Etc/UTC":
        return pa.timestamp(kind.unit, "UTC")
    return kind


@contextmanager
def _undone(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.begin()
    try:
        yield
    finally:
        connection.rollback()


def _answer_schema(relation: duckdb.DuckDBPyRelation, answers: Answers) -> None:
    # of no row, the types alone: it does not have the names of columns named twice
    kinds = relation.limit(0).to_arrow_table().schema.types
    answers.send(SCHEMA, _schema(relation.columns, kinds).serialize(), more=True)


def _answer_rows(relation: duckdb.DuckDBPyRelation, answers: Answers) -> None:
    names = relation.columns
    with relation.to_arrow_reader(_rows_per_batch(len(names))) as reader:
        schema = _schema(names, reader.schema.types)
        answers.send(SCHEMA, schema.serialize(), more=True)
        for batch in reader:
            answers.send_batch(batch, schema)


def _schema(names: list[str], kinds: list[pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(name, _plain(kind)) for name, kind in zip(names, kinds, strict=True)])


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    size = pa.ipc.get_record_batch_size(batch)
    if size <= _MAX_BATCH_BYTES:
        yield batch
    elif batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _cut(batch.slice(0, half))
        yield from _cut(batch.slice(half))
    elif size > MAX_ROW_BYTES:
        raise RowTooLarge(f"a row of the result has {size} bytes, at most {MAX_ROW_BYTES} are sent")
    else:
        yield batch


def _rows_per_batch(columns: int) -> int:
    """Whole vectors, as many as keep a batch of ordinary values near 3 MiB."""
    return max(1, _BATCH_BYTES // (_VALUE_BYTES * max(1, columns)) // _VECTOR_ROWS) * _VECTOR_ROWS


if __name__ == "__main__":
    main()
