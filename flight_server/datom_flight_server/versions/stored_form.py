"""The Arrow form in which tables are stored: the one that comes back from parquet, and that R reads.

Types that parquet would bring back as others, or that R cannot hold, become their nearest kin before anything is
written; their values, and so the `data_sha`, stay the same. A factor stays a dictionary: its levels are gathered over
all batches, so that each batch of a stream may bring a dictionary of its own.
"""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from datom_flight.identity import check_hashable
from datom_flight.protocol.errors import InvalidRequestError

MAX_LEVEL_BYTES = 64 * 1024 * 1024
"""Of the levels of one factor, which stay in memory while it is written."""

_INDEX = pa.int32()
_VIEW_WORDS = 4
_DECIMAL128_DIGITS = 38


class StoredForm:
    """How batches of `schema` become batches of the stored schema, one stream of them.

    Args:
        schema: of the batches that will come.

    Attributes:
        schema: the stored one. What says of an earlier version that it was read is no part of it.
        flat_schema: the same with a factor as its indices alone; that of the batches that `flat` gives.

    Raises:
        InvalidRequestError: ``not_hashable`` or ``invalid_argument``, naming every column that cannot be stored.
    """

    def __init__(self, schema: pa.Schema) -> None:
        check_hashable(schema)
        _check_storable(schema)
        metadata = {k: v for k, v in (schema.metadata or {}).items() if not k.startswith((b"datom.", b"ARROW:"))}
        fields = [pa.field(field.name, _stored_type(field.type), metadata=_kept(field.metadata)) for field in schema]
        self.schema = pa.schema(fields, metadata=metadata or None)
        self.flat_schema = pa.schema([(f.name, _INDEX if _is_factor(f.type) else f.type) for f in fields])
        self._not_null = [field.name for field in schema if not field.nullable]
        self._levels = {
            i: _Levels(field.name, field.type.ordered) for i, field in enumerate(schema) if _is_factor(field.type)
        }

    def flat(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` in the stored form, factors as indices into levels that may still grow.

        Raises:
            InvalidRequestError: ``invalid_argument`` when a value does not fit, ``too_large`` for too many levels.
        """
        for name in self._not_null:
            if batch.column(name).null_count:
                raise InvalidRequestError(f'column "{name}" has missing values, and its schema says it has none')
        columns = [
            self._levels[i].indices(column) if i in self._levels else _cast(column, field)
            for i, (column, field) in enumerate(zip(batch.columns, self.flat_schema, strict=True))
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.flat_schema)

    def column(self, position: int, flat: pa.Array) -> pa.Array:
        """A column of a flat batch as it is stored: a factor with all levels met so far."""
        levels = self._levels.get(position)
        if levels is None:
            return flat
        return pa.DictionaryArray.from_arrays(flat, levels.values, ordered=levels.ordered, safe=False)

    def whole(self, flat: pa.RecordBatch) -> pa.RecordBatch:
        """A flat batch as it is stored."""
        columns = [self.column(i, column) for i, column in enumerate(flat.columns)]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def batch_bytes(batch: pa.RecordBatch) -> int:
    """What the values of a batch take up in the stored form, about; text counts as often as it is referred to."""
    return sum(_view_bytes(c) if pa.types.is_string_view(c.type) else _plain_bytes(c) for c in batch.columns)


class _Levels:
    """The levels of one factor, in the order they are first met; none is missing, none stands twice."""

    def __init__(self, name: str, ordered: bool) -> None:
        self.name = name
        self.ordered = ordered
        self._known: dict[str, int] = {}
        self._bytes = 0
        self._values = pa.array([], pa.string())
        self._dictionary: pa.Array | None = None
        self._places = pa.array([], _INDEX)

    @property
    def values(self) -> pa.Array:
        """All levels met so far."""
        if len(self._values) < len(self._known):
            self._values = pa.array(self._known, pa.string())
        return self._values

    def indices(self, column: pa.DictionaryArray) -> pa.Array:
        """The column's values as places in `values`, which gains those it lacks."""
        dictionary = column.dictionary
        if self._dictionary is None or not dictionary.equals(self._dictionary):
            self._places = self._take_in(dictionary.to_pylist())
            self._dictionary = dictionary
        return self._places.take(column.indices)

    def _take_in(self, texts: list[str | None]) -> pa.Array:
        before = len(self._known)
        for text in texts:
            if text is not None and text not in self._known:
                self._known[text] = len(self._known)
                self._bytes += len(text.encode())
        if self._bytes > MAX_LEVEL_BYTES:
            raise InvalidRequestError(
                f'the levels of column "{self.name}" take up more than {MAX_LEVEL_BYTES} bytes',
                code="too_large",
                hint="store it as text",
                fields={"limit": "levels", "value": MAX_LEVEL_BYTES},
            )
        places = [None if text is None else self._known[text] for text in texts]
        if self.ordered and not _keeps_order(places, before, len(self._known)):
            raise InvalidRequestError(
                f'the batches of ordered factor "{self.name}" do not agree on the order of its levels',
                hint="send the same levels with every batch",
            )
        return pa.array(places, _INDEX)


def _keeps_order(places: list[int | None], before: int, total: int) -> bool:
    """Whether levels at `places` stand in their order, and new ones after all those met before."""
    met = [place for place in places if place is not None]
    return all(here < after for here, after in pairwise(met)) and (total == before or len(met) == total)


def _is_factor(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind))


def _stored_type(kind: pa.DataType) -> pa.DataType:
    is_ = pa.types
    if is_.is_dictionary(kind):
        return pa.dictionary(_INDEX, pa.string(), ordered=kind.ordered)
    if is_.is_string_view(kind):
        return pa.string()
    if is_.is_date64(kind):
        return pa.timestamp("ms")
    if is_.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if is_.is_time32(kind):
        return pa.time32("ms")
    if is_.is_decimal(kind) and kind.precision <= _DECIMAL128_DIGITS:
        return pa.decimal128(kind.precision, kind.scale)
    return kind


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if column.type.equals(field.type):
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid:
        raise InvalidRequestError(
            f'column "{field.name}" has values of type {column.type} that do not fit {field.type}',
            hint="correct the values out of range",
        ) from None


def _check_storable(schema: pa.Schema) -> None:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        named = ", ".join(f'"{name[:80]}"' for name in twice[:20])
        raise InvalidRequestError(f"several columns have the same name: {named}", hint="give each its own")
    unprintable = [name for name in schema.names if "\0" in name]
    if unprintable:
        raise InvalidRequestError(f"the name of column {unprintable[0][:80]!a} holds a NUL character")
    shifted = [field for field in schema if pa.types.is_decimal(field.type) and field.type.scale < 0]
    if shifted:
        raise InvalidRequestError(
            "columns that parquet cannot hold: " + ", ".join(f'"{field.name}" ({field.type})' for field in shifted),
            code="not_hashable",
            hint="cast a decimal of negative scale to one of scale 0",
            fields={"columns": {field.name: str(field.type) for field in shifted}},
        )


def _kept(metadata: dict[bytes, bytes] | None) -> dict[bytes, bytes] | None:
    """A field's metadata without what a parquet reader or Arrow itself put there."""
    return {k: v for k, v in (metadata or {}).items() if not k.startswith((b"PARQUET:", b"ARROW:"))} or None


def _plain_bytes(column: pa.Array) -> int:
    return int((column.indices if _is_factor(column.type) else column).nbytes)


def _view_bytes(column: pa.Array) -> int:
    validity, views, *_ = column.buffers()
    rows = len(column)
    words = pa.Array.from_buffers(pa.int32(), (column.offset + rows) * _VIEW_WORDS, [None, views])
    kind = pa.list_(pa.int32(), _VIEW_WORDS)
    # the first word of a view is the length of its text
    lengths = pc.list_element(
        pa.Array.from_buffers(kind, column.offset + rows, [validity], children=[words]).slice(column.offset), 0
    )
    return int(pc.sum(lengths.cast(pa.int64())).as_py() or 0) + _VIEW_WORDS * rows
