"""Many readers at once get their own rows, all of them, and the server's memory stays where it was."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from support.server import running, write_config
from support.stores import write_store

CLIENTS = 64
TABLES = 200
ROWS = 300
MAX_GROWTH_BYTES = 32 * 1024 * 1024


def table_number(number: int) -> pa.Table:
    return pa.table(
        {
            "TABLE": pa.array([number] * ROWS, pa.int32()),
            "SEQ": range(ROWS),
            "USUBJID": [f"{number:03d}-{row:05d}" for row in range(ROWS)],
            "AVAL": [number + row / 7 for row in range(ROWS)],
            "SEX": pa.array(["F" if row % 2 else "M" for row in range(ROWS)]).dictionary_encode(),
        }
    )


@pytest.mark.slow
def test_64_clients_reading_200_pinned_tables_each_get_the_right_rows_in_flat_memory(tmp_path: Path) -> None:
    tables = {f"t{number:03d}": table_number(number) for number in range(TABLES)}
    versions = write_store(tmp_path / "store", {name: [table] for name, table in tables.items()})
    pins = [(name, versions[name][0]) for name in tables]
    config = write_config(tmp_path / "server", {"STUDY_001": {"data": f"file://{tmp_path / 'store'}"}})
    with running(config) as server:
        token = server.token()
        memory: list[int] = []
        half_way = threading.Barrier(CLIENTS, action=lambda: memory.append(server.rss_bytes))

        def read_all(client: int) -> int:
            right = 0
            with server.connect("STUDY_001", token=token) as connection:
                # Each client begins elsewhere, so that at any time many different tables are under way.
                order = [pins[(client * 3 + step) % TABLES] for step in range(TABLES)]
                for step, (name, version) in enumerate(order):
                    if step == TABLES // 2:
                        half_way.wait(240)
                    right += connection.read(name, version).equals(tables[name])
            return right

        with ThreadPoolExecutor(CLIENTS) as pool:
            results = list(pool.map(read_all, range(CLIENTS)))
        memory.append(server.rss_bytes)
        assert results == [TABLES] * CLIENTS
        assert memory[1] - memory[0] < MAX_GROWTH_BYTES, [f"{size / 2**20:.0f} MiB" for size in memory]
        assert server.alive
