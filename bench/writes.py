"""Writing the whole table."""

from __future__ import annotations

import hashlib
import itertools

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .rounds import Bar, Case, Contender
from .stage import WRITTEN, Stage


def write(stage: Stage) -> Case:
    """A new version of the table, in a folder and on S3."""
    table = pq.read_table(stage.data.parquet("lb"))
    day = table.schema.get_field_index("LBDY")
    numbers = itertools.count(1)
    fresh = [table]

    def change() -> None:
        fresh[0] = table.set_column(day, "LBDY", pc.add(table.column(day), pa.scalar(next(numbers), pa.int32())))

    def ours(where: str) -> Contender:
        connection = stage.written_server.connection(WRITTEN[where])
        return Contender(
            lambda: connection.write("lb", fresh[0]), before=change, process=lambda: stage.written_server.process
        )

    def encode() -> str:
        pq.write_table(table, stage.folder / "encoded.parquet")
        return _sha256(table)

    return Case(
        "write",
        "write of the whole table",
        {
            "ours": ours("folder"),
            "ours, on S3": ours("S3"),
            "pyarrow's parquet and one sha256": Contender(encode),
        },
        [_at_most_twice("ours", "in a folder"), _at_most_twice("ours, on S3", "on S3")],
        warm=False,
    )


def _at_most_twice(ours: str, where: str) -> Bar:
    theirs = "pyarrow's parquet and one sha256"
    return Bar(
        f"{where}: ≤ 2 × the time of pyarrow's parquet and one sha256",
        lambda t: t[ours].median / t[theirs].median,
        at_most=2,
        needs=(ours, theirs),
    )


def _sha256(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in filter(None, chunk.buffers()):
                digest.update(buffer)
    return digest.hexdigest()
