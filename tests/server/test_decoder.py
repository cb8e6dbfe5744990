"""Row groups are decoded once for all who want them, within what memory there is."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from datom_flight_server.versions.chunks import Chunks, TooLargeError
from datom_flight_server.versions.decoder import Batches, Decoder, RowGroup
from support.server import await_condition

MIB = 1024 * 1024
SCHEMA = pa.schema([("n", pa.int64())])


def batch(first: int, bytes_: int = 80) -> pa.RecordBatch:
    return pa.record_batch([pa.array(np.arange(first, first + bytes_ // 8))], schema=SCHEMA)


class Source:
    """Row groups of 8 batches each, counted as they are decoded.

    Attributes:
        decoded: how many batches so far.
        go_on: waited for before each batch but the first.
    """

    def __init__(self, batch_bytes: int = MIB) -> None:
        self.decoded = 0
        self.closed = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self._batch_bytes = batch_bytes

    def batches(self) -> Batches:
        try:
            for number in range(8):
                if number:
                    assert self.go_on.wait(10)
                self.decoded += 1
                yield batch(number * 1000, self._batch_bytes)
        finally:
            self.closed += 1

    def chunks(
        self, decoder: Decoder, index: int = 0, columns: tuple[str, ...] | None = None, estimated: int | None = None
    ) -> Chunks | None:
        return decoder.chunks(group(index, columns), estimated or 8 * self._batch_bytes, self.batches)


def group(index: int = 0, columns: tuple[str, ...] | None = None) -> RowGroup:
    return RowGroup("content", index, columns)


def rows_of(chunks: Chunks | None) -> int:
    assert chunks is not None
    return sum(piece.rows.num_rows for piece in chunks)


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.go_on.set()


def test_64_callers_at_once_decode_once(source: Source) -> None:
    decoder = Decoder(100 * MIB)
    assert (decoder.hits, decoder.misses) == (0, 0)
    with ThreadPoolExecutor(64) as callers:
        rows = list(callers.map(lambda _: rows_of(source.chunks(decoder)), range(64)))
    assert rows == [8 * MIB // 8] * 64
    assert source.decoded == 8
    assert (decoder.hits, decoder.misses) == (63, 1)


def test_the_first_rows_are_there_before_the_last_are_decoded(source: Source) -> None:
    source.go_on.clear()
    chunks = source.chunks(Decoder(100 * MIB))
    assert chunks is not None
    rows = iter(chunks)
    assert next(rows).rows.num_rows == MIB // 8
    assert source.decoded == 1
    source.go_on.set()
    assert len(list(rows)) == 7


def test_fewer_columns_are_taken_from_all_of_them(source: Source) -> None:
    decoder = Decoder(100 * MIB)
    whole = source.chunks(decoder)
    rows_of(whole)
    assert source.chunks(decoder, columns=("n",)) is whole
    assert decoder.find(group(columns=("n",))) is whole
    assert decoder.find(group(1)) is None


def test_what_fails_fails_for_all_who_wait_and_is_tried_anew(source: Source) -> None:
    def failing() -> Batches:
        yield batch(0)
        raise pa.ArrowInvalid("damaged")

    decoder = Decoder(100 * MIB)
    for _ in range(2):
        with pytest.raises(pa.ArrowInvalid, match="damaged"):
            rows_of(decoder.chunks(group(), 10 * MIB, failing))
    assert rows_of(source.chunks(decoder)) == 8 * MIB // 8


def test_what_nobody_wants_any_more_is_not_decoded_to_its_end(source: Source) -> None:
    decoder = Decoder(MIB)
    source.go_on.clear()
    chunks = source.chunks(decoder)
    assert chunks is not None
    next(iter(chunks))
    del chunks
    gc.collect()
    source.go_on.set()
    await_condition(lambda: source.closed, 10, "decoding ends")
    assert source.decoded < 8
    assert source.chunks(decoder) is not None, "its room is given back"


def test_there_is_no_room_for_ever_more_row_groups_on_their_way() -> None:
    decoder = Decoder(MIB)
    source = Source(4 * MIB)
    held = [chunks for index in range(20) if (chunks := source.chunks(decoder, index)) is not None]
    assert [rows_of(chunks) for chunks in held] == [32 * MIB // 8] * 2, "64 MiB of them, and no more"
    held.clear()
    await_condition(lambda: source.chunks(decoder, 30), 10, "room is given back")


def test_a_row_group_that_cannot_be_kept_and_is_large_is_not_decoded_as_one(source: Source) -> None:
    decoder = Decoder(MIB)
    assert source.chunks(decoder, estimated=65 * MIB) is None
    assert source.decoded == 0


def test_a_row_group_that_turns_out_far_larger_than_thought_is_given_up(source: Source) -> None:
    decoder = Decoder(MIB)
    huge = Source(20 * MIB)
    chunks = huge.chunks(decoder, estimated=MIB)
    assert chunks is not None
    rows = iter(chunks)
    next(rows)
    with pytest.raises(TooLargeError):
        list(rows)
    assert huge.decoded < 8
    assert group() not in decoder.memory


def test_what_is_kept_is_accounted_for_as_it_turns_out() -> None:
    decoder = Decoder(100 * MIB)
    chunks = Source(2 * MIB).chunks(decoder, estimated=5 * MIB)
    rows_of(chunks)
    assert decoder.memory.size_bytes == 16 * MIB


def test_batches_with_equal_dictionaries_share_one() -> None:
    def coded(levels: list[str]) -> pa.RecordBatch:
        column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int32()), pa.array(levels), ordered=True)
        return pa.record_batch({"f": column, "n": pa.array([1, 2, 3])})

    chunks = Chunks()
    given = [coded(["low", "high"]), coded(["low", "high"]), coded(["low", "other"])]
    for part in given:
        chunks.add(part)
    chunks.end()
    first, second, third = (piece.rows for piece in chunks)
    assert [first, second, third] == given
    assert first.schema == second.schema == third.schema
    places = [part.column(0).dictionary.buffers()[2].address for part in (first, second, third)]
    assert places[0] == places[1] != places[2]
    assert chunks.size_bytes < sum(part.get_total_buffer_size() for part in given)


def test_batches_are_made_ahead_and_closed_with_their_reader(source: Source) -> None:
    decoder = Decoder(MIB)
    batches = decoder.ahead(source.batches())
    assert next(batches).num_rows == MIB // 8
    await_condition(lambda: source.decoded == 2, 10, "the next batch is decoded meanwhile")
    batches.close()
    assert source.closed == 1
    assert len(list(decoder.ahead(Source().batches()))) == 8


def test_a_decoder_that_nobody_has_any_more_lets_go_of_what_it_kept(source: Source) -> None:
    decoder = Decoder(100 * MIB)
    chunks = source.chunks(decoder)
    assert rows_of(chunks)
    gone = weakref.ref(chunks)
    del decoder, chunks
    gc.collect()
    assert gone() is None
