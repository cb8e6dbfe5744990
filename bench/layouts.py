"""What the writer's choice of parquet layout costs and gives: ``python -m bench.layouts [rows]``.

Lab results, sorted by subject as they come, written in several layouts and read by the server's own code with nothing
in memory, and by DuckDB, as queries are. The least CPU time of a few rounds in which the layouts take turns; the table
goes into docs/decisions/row-groups.md.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datom_flight_server.model import Kind, TableVersion
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.payloads import Payloads
from datom_flight_server.versions.tables import Selection, StoredTable

from .data import lab_results

ROUNDS = 3
MIB = 1024 * 1024

_CHUNK_ROWS = 250_000
_DATA_SHA = "0" * 64
_CHOSEN: Mapping[str, Any] = {"compression": "snappy", "use_dictionary": True, "write_statistics": True}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is written.

    Attributes:
        group_bytes: of Arrow data in a row group.
        options: of the parquet writer, where they differ from what is chosen.
    """

    name: str
    group_bytes: int = 16 * MIB
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, table: pa.Table, path: Path) -> None:
        """Write `table` to `path`."""
        rows = max(1, table.num_rows * self.group_bytes // table.nbytes)
        pq.write_table(table, path, row_group_size=rows, **{**_CHOSEN, **self.options})


LAYOUTS = (
    Layout("chosen"),
    Layout("8 MiB", 8 * MIB),
    Layout("32 MiB", 32 * MIB),
    Layout("128 MiB", 128 * MIB),
    Layout("one row group", 2**62),
    Layout("page index", options={"write_page_index": True}),
    Layout("no statistics", options={"write_statistics": False}),
    Layout("no dictionaries", options={"use_dictionary": False}),
    Layout("data pages of version 2", options={"data_page_version": "2.0"}),
    Layout("zstd", options={"compression": "zstd"}),
    Layout("lz4", options={"compression": "lz4"}),
    Layout("not compressed", options={"compression": "none"}),
)
"""The first is the server's; the others differ from it in what their names say."""


class Stored:
    """A written table, as the server finds it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "store" / "datom" / "lb" / f"{_DATA_SHA}.parquet"
        self.path.parent.mkdir(parents=True)

    def read(self, selection: Selection) -> float:
        """The server's time for the rows of `selection`; the file is at hand, nothing is decoded yet."""
        sha = hashlib.sha256(self.path.read_bytes()).hexdigest()
        found = TableVersion("P", "lb", Kind.TABLE, "1" * 64, _DATA_SHA, sha)
        payloads = Payloads(self._folder / "cache", 10**10)
        with StoredTable.open(payloads, LocalStore(self._folder / "store"), found) as table:
            # the file is checked, and its columns are sampled
            list(table.runs(Selection(limit=1)))
            return timed(lambda: list(table.runs(selection)))

    def query(self, condition: str) -> float:
        """DuckDB's time for the rows for which `condition` is true."""
        with duckdb.connect() as connection:
            return timed(lambda: connection.sql(f"FROM '{self.path}' WHERE {condition}").to_arrow_table())


def timed(work: Callable[[], object]) -> float:
    """The CPU time of `work`, all threads together, in milliseconds."""
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1e3


def measures(table: pa.Table) -> Mapping[str, Callable[[Layout, Stored], float]]:
    """What is measured of each layout, in the order of the columns."""
    subject = table["USUBJID"][table.num_rows // 2].as_py()
    one = pc.field("USUBJID") == subject
    few = (pc.field("LBTESTCD") == "ALT") & (pc.field("LBSTRESN") > 100)
    two = ("LBTESTCD", "LBSTRESN")
    return {
        "write": lambda layout, stored: timed(lambda: layout.write(table, stored.path)),
        "MB": lambda layout, stored: stored.path.stat().st_size / 1e6,
        "row groups": lambda layout, stored: pq.read_metadata(stored.path).num_row_groups,
        "full scan": lambda layout, stored: stored.read(Selection()),
        "two columns": lambda layout, stored: stored.read(Selection(columns=two)),
        "filter": lambda layout, stored: stored.read(Selection(predicate=few, predicate_columns=two, pruning=few)),
        "one subject": lambda layout, stored: stored.read(
            Selection(predicate=one, predicate_columns=("USUBJID",), pruning=one)
        ),
        "DuckDB: filter": lambda layout, stored: stored.query("LBTESTCD = 'ALT' AND LBSTRESN > 100"),
        "DuckDB: one subject": lambda layout, stored: stored.query(f"USUBJID = '{subject}'"),
    }


def main() -> None:
    """Print a row for each layout: what is measured, CPU times in milliseconds."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_200_000
    table = pa.Table.from_batches(
        lab_results(first, min(_CHUNK_ROWS, rows - first)) for first in range(0, rows, _CHUNK_ROWS)
    ).combine_chunks()
    asked = measures(table)
    with tempfile.TemporaryDirectory() as folder:
        places = [(layout, Stored(Path(folder) / str(number))) for number, layout in enumerate(LAYOUTS)]
        found: dict[str, dict[str, float]] = {layout.name: {} for layout in LAYOUTS}
        for _ in range(ROUNDS):
            for layout, place in places:
                for name, measure in asked.items():
                    value = measure(layout, place)
                    found[layout.name][name] = min(value, found[layout.name].get(name, value))
    print(f"{rows} rows, {table.nbytes / 1e6:.0f} MB of Arrow; CPU time in ms, the least of {ROUNDS} rounds\n")
    print("| layout | " + " | ".join(asked) + " |\n|---|" + "--:|" * len(asked))
    for name, values in found.items():
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in values.values()) + " |")


if __name__ == "__main__":
    main()
