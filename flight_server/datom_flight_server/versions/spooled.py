"""A whole table on the disk: its values hashed and encoded from there, column by column and row group by row group."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from datom_flight.identity import data_sha
from datom_flight.protocol.errors import UnavailableError

from .arrivals import Deadline
from .stored_form import StoredForm, batch_bytes

_ROW_GROUP_ROWS = 1_000_000
_ROW_GROUP_BYTES = 16 * 1024 * 1024
_ROW_GROUP_BYTES_PER_COLUMN = 16 * 1024
_MAX_ROW_GROUP_BYTES = 128 * 1024 * 1024
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Encoded:
    """The table's parquet file, which goes when the spooled table does."""

    path: Path
    parquet_sha: str
    size_bytes: int


class Spooled:
    """A whole table on the disk, which `Spool.receive` gives and takes away again.

    Attributes:
        schema: the stored one; see `StoredForm`.
        rows: at least one.
        bytes: of its values as Arrow holds them.
    """

    def __init__(self, path: Path, form: StoredForm, rows: int, bytes_: int, deadline: Deadline) -> None:
        self.schema: pa.Schema = form.schema
        self.rows = rows
        self.bytes = bytes_
        self._path = path
        self._form = form
        self._deadline = deadline

    @property
    def num_rows(self) -> int:
        """`rows`, as a `ColumnSource` calls them."""
        return self.rows

    def chunks(self, column: int) -> Iterator[pa.Array]:
        """The values of the column at that position, from the start at every call."""
        for batch in self._flat([column]):
            yield self._form.column(column, batch.column(0))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows as they are stored, from the start at every call."""
        return map(self._form.whole, self._flat(None))

    def data_sha(self) -> str:
        """The ``datom-cv1`` hash of its values. Columns are read apart, in parallel.

        Raises:
            DatomError: ``not_hashable`` when a text holds a NUL character; ``timeout``.
        """
        return data_sha(self)

    def encode(self) -> Encoded:
        """The table as parquet, written beside it: snappy, dictionaries, statistics, the Arrow schema stored.

        Raises:
            DatomError: ``overloaded`` when the disk is full; ``timeout``.
        """
        path = self._path.with_name("table.parquet")
        with disk_errors(), path.open("wb") as file:
            hashing = _HashingFile(file)
            with pq.ParquetWriter(
                hashing, self.schema, compression="snappy", use_dictionary=True, write_statistics=True
            ) as writer:
                for group in _row_groups(self.batches(), self.schema):
                    writer.write_table(group, row_group_size=_ROW_GROUP_ROWS)
            file.flush()
            return Encoded(path, hashing.digest.hexdigest(), path.stat().st_size)

    def identify(self) -> tuple[str, Encoded]:
        """`data_sha` and `encode`, side by side."""
        with ThreadPoolExecutor(1, "datom-encode") as pool:
            encoding = pool.submit(self.encode)
            return self.data_sha(), encoding.result()

    def _flat(self, fields: list[int] | None) -> Iterator[pa.RecordBatch]:
        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
        # no memory map: only the pieces asked for are read, and what was read is let go of
        with disk_errors(), pa.OSFile(str(self._path)) as file, pa.ipc.open_file(file, options=options) as reader:
            for index in range(reader.num_record_batches):
                self._deadline.check()
                yield reader.get_batch(index)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Around work on the disk: its errors in terms that name no path."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise UnavailableError("the server's disk is full", code="overloaded") from None
        raise UnavailableError(
            f"the server's disk cannot be used: {os.strerror(error.errno or errno.EIO)}", code="unavailable"
        ) from None


class _HashingFile:
    """What the parquet writer needs of a file, hashing what it writes."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._file = file

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.flush()


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The batches as tables that make a row group each: small enough to skip, large enough to be worth a request."""
    most = min(_MAX_ROW_GROUP_BYTES, max(_ROW_GROUP_BYTES, len(schema) * _ROW_GROUP_BYTES_PER_COLUMN))
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        bytes_ = batch_bytes(batch)
        if pending and (rows + batch.num_rows > _ROW_GROUP_ROWS or size + bytes_ > most):
            yield pa.Table.from_batches(pending, schema)
            pending, rows, size = [], 0, 0
        pending.append(batch)
        rows += batch.num_rows
        size += bytes_
    if pending:
        yield pa.Table.from_batches(pending, schema)
