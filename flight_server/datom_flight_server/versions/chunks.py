"""The rows of a row group on their way out of parquet: one thread decodes, any number read along."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pyarrow as pa

from .pieces import Piece


class TooLargeError(Exception):
    """The row group is larger than there is room for: the rest of it does not come."""


class Chunks:
    """Pieces that one thread adds and any number of others read from the start, waiting for what is to come.

    Those with equal dictionaries get to share one.

    Attributes:
        size_bytes: of the buffers of all added so far.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._pieces: list[Piece] = []
        self._ended = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def add(self, batch: pa.RecordBatch) -> None:
        """The next rows."""
        size = int(batch.get_total_buffer_size())
        if self._pieces:
            batch, saved = _sharing(batch, self._pieces[-1].rows)
            size -= saved
        piece = Piece.of(batch)
        with self._changed:
            self._pieces.append(piece)
            self.size_bytes += size
            self._changed.notify_all()

    def end(self, failure: BaseException | None = None) -> None:
        """There are no more rows; `failure` is what those who wait for some get."""
        with self._changed:
            self._ended = True
            self._failure = failure
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Piece]:
        index = 0
        while (piece := self._piece(index)) is not None:
            yield piece
            index += 1

    def _piece(self, index: int) -> Piece | None:
        if index < len(self._pieces):
            return self._pieces[index]
        with self._changed:
            self._changed.wait_for(lambda: self._ended or index < len(self._pieces))
            if index < len(self._pieces):
                return self._pieces[index]
            if self._failure is not None:
                raise self._failure
            return None


def _sharing(batch: pa.RecordBatch, before: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
    """`batch` with the dictionaries of `before` wherever they are equal, and the bytes that saves."""
    saved = 0
    for index, field in enumerate(batch.schema):
        if not pa.types.is_dictionary(field.type):
            continue
        column, known = batch.column(index), before.column(index).dictionary
        if column.dictionary.equals(known):
            saved += int(column.dictionary.get_total_buffer_size())
            shared = pa.DictionaryArray.from_arrays(column.indices, known, ordered=field.type.ordered, safe=False)
            batch = batch.set_column(index, field, shared)
    return batch, saved
