"""Rows as parquet, arrow, csv and json, and their first ones as text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from . import text
from .files import replacing
from .output import json_value, to_json
from .protocol.errors import InvalidRequestError

_ROW_GROUP_BYTES = 128 * 1024 * 1024

RowWriter = Callable[[IO[bytes], pa.Schema, Iterable[pa.RecordBatch]], None]


def file_format(path: str | os.PathLike[str]) -> str:
    """The format that a file's ending asks for, a key of `ROW_WRITERS`.

    Raises:
        InvalidRequestError: ``invalid_argument``: the ending is none of those known.
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in ROW_WRITERS:
        raise InvalidRequestError(
            f'"{os.fspath(path)}" does not end in a known format',
            hint="known: " + ", ".join(f".{e}" for e in ROW_WRITERS),
        )
    return ending


def read_schema(path: str | os.PathLike[str]) -> pa.Schema:
    """The schema of rows that `write_rows` wrote to a file with one of `SCHEMA_ENDINGS`.

    Raises:
        InvalidRequestError: ``invalid_argument``: the file is something else.
        OSError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            if Path(path).suffix.lower() == ".parquet":
                return pq.read_schema(file)
            with pa.ipc.open_file(file) as reader:
                return reader.schema
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0][:200]
    raise InvalidRequestError(f'"{os.fspath(path)}" holds no rows: {reason}')


def write_rows(path: str | os.PathLike[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write rows to a file in the format of its ending. The file appears whole, or not at all."""
    write = ROW_WRITERS[file_format(path)]
    with replacing(path) as temporary, temporary.open("wb") as file:
        encode_rows(write, file, schema, batches)


def encode_rows(write: RowWriter, file: IO[bytes], schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write rows with one of `ROW_WRITERS`.

    Raises:
        InvalidRequestError: ``unsupported``: the format cannot hold a column's type.
    """
    try:
        write(file, schema, batches)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
    else:
        return
    raise InvalidRequestError(
        f"the format cannot hold these columns: {reason}", code="unsupported", hint="write .parquet instead"
    )


def _write_parquet(file: IO[bytes], schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pq.ParquetWriter(file, schema) as writer:
        held: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            held.append(batch)
            size += batch.nbytes
            if size >= _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held, schema).unify_dictionaries())
                held, size = [], 0
        if held:
            writer.write_table(pa.Table.from_batches(held, schema).unify_dictionaries())


def _write_arrow(file: IO[bytes], schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    if any(pa.types.is_dictionary(field.type) for field in schema):
        # The file format allows a column one dictionary, and the last batch may still bring new values.
        table = pa.Table.from_batches(batches, schema).unify_dictionaries()
        batches = table.to_batches()
    with pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_csv(file: IO[bytes], schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    plain = _plain(pa.RecordBatch.from_pylist([], schema)).schema
    with pa_csv.CSVWriter(file, plain) as writer:
        for batch in batches:
            writer.write_batch(_plain(batch))


def _write_json(file: IO[bytes], schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    separator = b"[\n"
    for batch in batches:
        for row in _plain(batch).to_pylist():
            file.write(separator + to_json(row, indent=None).encode())
            separator = b",\n"
    file.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


ROW_WRITERS: Mapping[str, RowWriter] = {
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "feather": _write_arrow,
    "csv": _write_csv,
    "json": _write_json,
}

SCHEMA_ENDINGS = (".parquet", ".arrow", ".feather")
"""Of files that keep what the rows say of themselves."""


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` in types that text formats have: factors as their labels, times as ISO 8601, time spans as seconds."""
    return pa.RecordBatch.from_arrays([_plain_column(column) for column in batch.columns], names=batch.schema.names)


def _plain_column(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain_column(column.dictionary_decode())
    if pa.types.is_timestamp(kind):
        return pc.replace_substring(column.cast(pa.string()), " ", "T")
    if pa.types.is_duration(kind):
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        return pc.divide(column.cast(pa.int64()).cast(pa.float64()), float(per_second))
    return column


def preview(schema: pa.Schema, batches: list[pa.RecordBatch], width: int | None) -> tuple[str, int]:
    """The rows as an aligned table of at most `width` characters (None: any), and how many columns did not fit."""
    headers = [text.clipped(name) for name in schema.names]
    rows = [list(row.values()) for batch in batches for row in _keyed(_plain(batch)).to_pylist()]
    cells = [[text.clipped(json_value(value)) for value in row] for row in rows]
    right = [
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) for kind in schema.types
    ]
    shown = len(headers)
    if width is not None:
        ends = _ends(headers, cells)
        shown = max(1, sum(end <= width for end in ends))
    return text.aligned(headers[:shown], [row[:shown] for row in cells], right[:shown]), len(headers) - shown


def _keyed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` with its columns' positions as names, so that two of one name both stay."""
    return batch.rename_columns([str(index) for index in range(batch.num_columns)])


def _ends(headers: list[str], cells: list[list[str]]) -> Iterator[int]:
    end = -2
    for index, header in enumerate(headers):
        end += 2 + max(len(header), *(len(row[index]) for row in cells)) if cells else 2 + len(header)
        yield end
