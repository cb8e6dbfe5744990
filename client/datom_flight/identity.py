"""``datom-cv1``: the hash that names a table's values, whatever container they came in.

Two tables have one `data_sha` exactly when R datom would see the same values in the same rows and columns: chunking,
slicing, dictionaries, integer widths, time zones and schema metadata do not matter; row order, column order and
column names do. Both sides compute it, so it needs pyarrow and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .protocol.errors import InvalidRequestError

HASH_ALGORITHM = "datom-cv1"

_PIECE_ROWS = 32 * 1024
_PIECE_BYTES = 16 * 1024 * 1024

# Bits of doubles and of the integers that R takes for missing, as signed 64-bit integers.
_MISSING_DOUBLE = pa.scalar(0x7FF00000000007A2, pa.int64())
_MISSING_INT64 = pa.scalar(-(2**63), pa.int64())
_NAN = pa.scalar(0x7FF8000000000000, pa.int64())
_LOW_HALF = pa.scalar(0xFFFFFFFF, pa.int64())
_MISSING_PAYLOAD = pa.scalar(1954, pa.int64())
_NEGATIVE_ZERO = pa.scalar(-(2**63), pa.int64())
_ZERO_BITS = pa.scalar(0, pa.int64())
_ZERO = pa.scalar(0.0, pa.float64())
_LARGEST_INT32 = 2**31 - 1

_UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class ColumnSource(Protocol):
    """Columns that can be read chunk by chunk, each more than once, and several at a time from different threads."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        ...

    @property
    def num_rows(self) -> int:
        """How many rows every column has."""
        ...

    def chunks(self, column: int) -> Iterable[pa.Array]:
        """The values of the column at that position, in row order, from the start at every call."""
        ...


class ParquetColumns:
    """A `ColumnSource` over a parquet file; memory stays near one batch of one column for each thread."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        with pq.ParquetFile(self._path) as file:
            self._metadata = file.metadata
            self._schema = file.schema_arrow

    @property
    def schema(self) -> pa.Schema:
        """The stored Arrow schema."""
        return self._schema

    @property
    def num_rows(self) -> int:
        """The rows of all row groups."""
        return int(self._metadata.num_rows)

    def chunks(self, column: int) -> Iterator[pa.Array]:
        """The column's values; every call opens the file anew, since a parquet reader serves one thread."""
        name = self._schema.field(column).name
        twin = self._schema.names[:column].count(name)
        with pq.ParquetFile(self._path, metadata=self._metadata, memory_map=True) as file:
            for batch in file.iter_batches(_PIECE_ROWS, columns=[name], use_threads=False):
                # Asked by name, "a" also gives columns named "a" again and "a.b".
                yield batch.column([i for i, other in enumerate(batch.schema.names) if other == name][twin])


def data_sha(source: pa.Table | pa.RecordBatch | ColumnSource) -> str:
    """The ``datom-cv1`` hash of a table's values, as 64 hex digits.

    Columns are hashed in parallel, one thread each up to the number of processors.

    Raises:
        InvalidRequestError: ``not_hashable`` when there are no rows or no columns, or when columns are of types that
            R datom cannot hash or hold a NUL character; all such columns at once, in ``fields["columns"]``.
    """
    if isinstance(source, pa.RecordBatch):
        source = pa.Table.from_batches([source])
    columns: ColumnSource = _TableColumns(source) if isinstance(source, pa.Table) else source
    check_hashable(columns.schema)
    if columns.num_rows == 0:
        raise InvalidRequestError("a table without rows has no identity", code="not_hashable", hint="add rows")
    positions = range(len(columns.schema))
    with ThreadPoolExecutor(min(len(positions), os.cpu_count() or 1), "datom-identity") as pool:
        digests = list(pool.map(lambda position: _column_digest(columns, position), positions))
    with_nul = {
        columns.schema.field(position).name: "text with a NUL character"
        for position, digest in enumerate(digests)
        if digest is None
    }
    if with_nul:
        raise _not_hashable(with_nul, "remove the NUL characters: no R string can hold them")
    whole = hashlib.sha256(HASH_ALGORITHM.encode())
    whole.update(struct.pack("<dd", columns.num_rows, len(positions)))
    for digest in digests:
        whole.update((digest or "").encode())
    return whole.hexdigest()


def check_hashable(schema: pa.Schema) -> None:
    """Return when every column of `schema` is of a type that has a ``datom-cv1`` hash.

    Raises:
        InvalidRequestError: ``not_hashable``, with every refused column and its type in ``fields["columns"]``.
    """
    if len(schema) == 0:
        raise InvalidRequestError("a table without columns has no identity", code="not_hashable", hint="add columns")
    refused = [field for field in schema if not _is_text(field.type) and _numbers(field.type) is None]
    if refused:
        remedies = dict.fromkeys(_remedy(field.type) for field in refused)
        raise _not_hashable({field.name: str(field.type) for field in refused}, "; ".join(remedies))


@dataclass(frozen=True, slots=True)
class _TableColumns:
    table: pa.Table

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    @property
    def num_rows(self) -> int:
        return int(self.table.num_rows)

    def chunks(self, column: int) -> Iterable[pa.Array]:
        chunks: Iterable[pa.Array] = self.table.column(column).iterchunks()
        return chunks


@dataclass(frozen=True, slots=True)
class _Numbers:
    """How a column of numbers is hashed: as doubles of kind `kind`, divided by `divisor`, then `unit`."""

    kind: str
    divisor: int = 1
    unit: bytes = b""


def _numbers(kind: pa.DataType) -> _Numbers | None:
    is_ = pa.types
    if is_.is_boolean(kind) or is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind):
        return _Numbers("num")
    if is_.is_date32(kind):
        return _Numbers("date")
    if is_.is_date64(kind):
        return _Numbers("time", 1_000)
    if is_.is_timestamp(kind):
        return _Numbers("time", _UNITS_PER_SECOND[kind.unit])
    if is_.is_time(kind) or is_.is_duration(kind):
        return _Numbers("drtn", _UNITS_PER_SECOND[kind.unit], b"\0secs")
    return None


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _column_digest(source: ColumnSource, position: int) -> str | None:
    """The column's digest, or None when a text holds a NUL."""
    field = source.schema.field(position)
    if _is_text(field.type):
        return _text_digest(field.name, source, position)
    if pa.types.is_int64(field.type):
        return _int64_digest(field.name, source, position)
    numbers = _numbers(field.type)
    assert numbers is not None
    digest = _start(numbers.kind, field.name)
    for piece in _pieces(source.chunks(position)):
        digest.update(_doubles(piece, numbers.divisor))
    digest.update(numbers.unit)
    return str(digest.hexdigest())


def _start(kind: str, name: str) -> Any:
    return hashlib.sha256(kind.encode() + name.encode() + b"\0")


def _pieces(chunks: Iterable[pa.Array], rows: int = _PIECE_ROWS) -> Iterator[pa.Array]:
    """The chunks cut small enough for the processor's cache, empty ones left out."""
    for chunk in chunks:
        for start in range(0, len(chunk), rows):
            yield chunk.slice(start, rows)


# Numbers.


def _int64_digest(name: str, source: ColumnSource, position: int) -> str:
    digest = _start("num", name)
    for piece in _pieces(source.chunks(position)):
        if not _fits_int32(piece):
            break
        digest.update(_doubles(piece, 1))
    else:
        return str(digest.hexdigest())
    digest = _start("i64", name)
    for piece in _pieces(source.chunks(position)):
        digest.update(_words(piece, _MISSING_INT64))
    return str(digest.hexdigest())


def _fits_int32(piece: pa.Array) -> bool:
    low, high = (bound.as_py() for bound in pc.min_max(piece).values())
    return low is None or (low >= -_LARGEST_INT32 and high <= _LARGEST_INT32)


def _doubles(piece: pa.Array, divisor: int) -> memoryview:
    """The values as doubles in the hash's own bits."""
    if pa.types.is_floating(piece.type):
        bits = _canonical_bits(piece.cast(pa.float64()))
    else:
        if pa.types.is_temporal(piece.type):
            piece = piece.view(pa.int32() if piece.type.bit_width == 32 else pa.int64())
        if pa.types.is_decimal(piece.type):
            piece = piece.cast(pa.string())  # as R arrow does; Arrow's own cast to double is off by a bit at times
        values = piece.cast(pa.float64(), safe=False)
        if divisor != 1:
            values = pc.divide(values, pa.scalar(float(divisor)))
        bits = values.view(pa.int64())
    return _words(bits, _MISSING_DOUBLE)


def _canonical_bits(values: pa.Array) -> pa.Array:
    """The bits of doubles, with one zero and one NaN.

    A NaN that R takes for missing (1954 in its lower half) stays as it is: so does R.
    """
    is_nan = pc.is_nan(values)
    if not pc.any(is_nan).as_py():
        return pc.add(values, _ZERO).view(pa.int64())  # -0 + 0 is +0
    bits = values.view(pa.int64())
    is_missing = pc.equal(pc.bit_wise_and(bits, _LOW_HALF), _MISSING_PAYLOAD)
    bits = pc.if_else(pc.and_not(is_nan, is_missing), _NAN, bits)
    return pc.if_else(pc.equal(bits, _NEGATIVE_ZERO), _ZERO_BITS, bits)


def _words(piece: pa.Array, missing: pa.Scalar) -> memoryview:
    """The bytes of 64-bit integers, with `missing` where there is none."""
    if piece.null_count:
        piece = piece.fill_null(missing)
    first = piece.offset * 8
    return memoryview(piece.buffers()[1])[first : first + len(piece) * 8]


# Text.


def _text_digest(name: str, source: ColumnSource, position: int) -> str | None:
    digest = _start("chr", name)
    for piece in _pieces(source.chunks(position)):
        digest.update(_missing_flags(piece))
    for chunk in source.chunks(position):
        for part in _terminated_chunk(chunk):
            if part is None:
                return None
            digest.update(part)
    return str(digest.hexdigest())


def _missing_flags(piece: pa.Array) -> bytes | memoryview:
    """One byte a row: 1 where the value is missing."""
    if pa.types.is_dictionary(piece.type) and piece.dictionary.null_count:
        piece = _offset_text(piece.dictionary).take(piece.indices)
    if not piece.null_count:
        return bytes(len(piece))
    flags = piece.is_null().cast(pa.uint8())
    return memoryview(flags.buffers()[1])[flags.offset : flags.offset + len(flags)]


def _terminated_chunk(chunk: pa.Array) -> Iterator[bytes | memoryview | None]:
    """Every value followed by a NUL, missing ones as if empty; None once a value itself holds a NUL."""
    if pa.types.is_dictionary(chunk.type):
        levels = _offset_text(chunk.dictionary)
        # long levels, referred to many times, are a multiple of what the chunk itself takes up
        longest = pc.max(pc.binary_length(levels)).as_py() or 0
        indices = _pieces([chunk.indices], min(_PIECE_ROWS, max(1, _PIECE_BYTES // (longest + 1))))
        if levels.null_count == 0 and len(levels) <= len(chunk) and not _holds_nul(levels):
            yield from _terminated_levels(indices, levels)
            return
        pieces = (levels.take(piece) for piece in indices)
    else:
        pieces = (_offset_text(piece) for piece in _pieces([chunk]))
    for piece in pieces:
        yield from _terminated(piece)


def _terminated(piece: pa.Array) -> Iterator[bytes | memoryview | None]:
    if len(piece) > 1 and len(_text_bytes(piece)) > _PIECE_BYTES:
        half = len(piece) // 2
        yield from _terminated(piece.slice(0, half))
        yield from _terminated(piece.slice(half))
        return
    if _holds_nul(piece):
        yield None
        return
    if piece.null_count:
        piece = _missing_as_empty(piece)
    # As the one list of a list array, the values are joined by one tight loop, several times faster than
    # appending to each.
    one_list = pa.ListArray.from_arrays(pa.array([0, len(piece)], pa.int32()), piece)
    yield _text_bytes(pc.binary_join(one_list, pa.scalar("\0", piece.type)))
    yield b"\0"


def _terminated_levels(indices: Iterable[pa.Array], levels: pa.Array) -> Iterator[memoryview]:
    """As `_terminated` for a dictionary: the levels get their NUL once, not once a row."""
    empty, nul = (pa.scalar(text, levels.type) for text in ("", "\0"))
    missing = pa.array([""], levels.type)
    terminated = pc.binary_join_element_wise(pa.concat_arrays([levels, missing]), empty, nul)
    for piece in indices:
        if piece.null_count:
            piece = piece.cast(pa.int64()).fill_null(len(levels))
        yield _text_bytes(terminated.take(piece))


def _offset_text(values: pa.Array) -> pa.Array:
    return values.cast(pa.large_string()) if pa.types.is_string_view(values.type) else values


def _text_bytes(values: pa.Array) -> memoryview:
    """The bytes of all values of a text array, one after the other."""
    _, offsets, data = values.buffers()
    if data is None:
        return memoryview(b"")
    ends = memoryview(offsets).cast("q" if pa.types.is_large_string(values.type) else "i")
    return memoryview(data)[ends[values.offset] : ends[values.offset + len(values)]]


def _missing_as_empty(values: pa.Array) -> pa.Array:
    _, offsets, data = values.buffers()
    if pc.sum(pc.binary_length(values)).as_py() != len(_text_bytes(values)):
        return values.fill_null("")  # bytes that no value uses lie under a missing one
    buffers = [None, offsets, data]
    return pa.Array.from_buffers(values.type, len(values), buffers, null_count=0, offset=values.offset)


def _holds_nul(values: pa.Array) -> bool:
    text = _text_bytes(values)
    if not text:
        return False
    lowest = pc.min_max(pa.Array.from_buffers(pa.uint8(), len(text), [None, pa.py_buffer(text)]))["min"].as_py()
    # bytes that no value uses may lie under a missing one: only a hit is worth the slower look
    return lowest == 0 and bool(pc.any(pc.match_substring(values, "\0")).as_py())


# Refusals.


def _not_hashable(columns: Mapping[str, str], hint: str) -> InvalidRequestError:
    named = ", ".join(f'"{name}" ({kind})' for name, kind in columns.items())
    return InvalidRequestError(
        f"columns that datom cannot hash: {named}", code="not_hashable", hint=hint, fields={"columns": dict(columns)}
    )


def _remedy(kind: pa.DataType) -> str:
    is_ = pa.types
    if is_.is_null(kind):
        return "give an all-missing column a type, for example text"
    if is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_binary_view(kind) or is_.is_fixed_size_binary(kind):
        return "store binary values as text, for example in hex"
    if is_.is_nested(kind):
        return "spread nested values over rows or columns of their own"
    if is_.is_interval(kind):
        return "cast an interval to a duration, or to numbers"
    if is_.is_dictionary(kind) or is_.is_run_end_encoded(kind):
        return "decode a dictionary of anything but text to its plain values"
    return f"cast {kind} to numbers, text, dates or times"
