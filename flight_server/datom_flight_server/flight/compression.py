"""Rows on their way out, compressed for callers who ask for it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from datom_flight.protocol.compression import validate_codec


def row_stream_of(schema: pa.Schema, batches: Generator[Any, None, None], codec: str | None) -> fl.GeneratorStream:
    """What sends `batches`, each a batch, a batch and its metadata, or a reader, to a caller who asked for `codec`.

    Raises:
        InvalidRequestError: ``invalid_argument``: there is no such codec.
    """
    if codec is None:
        # without options, the environment is asked for some, every time
        return fl.GeneratorStream(schema, batches, options=pa.ipc.IpcWriteOptions())
    options = pa.ipc.IpcWriteOptions(compression=validate_codec(codec))
    return fl.GeneratorStream(schema, _compressed(batches, options), options=options)


def _compressed(batches: Generator[Any, None, None], options: pa.ipc.IpcWriteOptions) -> Generator[Any, None, None]:
    with closing(batches):
        for each in batches:
            # a reader goes out by options of its own
            yield fl.RecordBatchStream(each, options) if isinstance(each, pa.RecordBatchReader) else each
