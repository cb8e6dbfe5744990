"""What the pages about clients show in Python runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from support.adbc import adbc
from support.server import Server, running, write_config
from support.writable import empty_place

DOCS = Path(__file__).parents[2] / "docs"

DM = pa.table(
    {
        "USUBJID": ["01-001", "01-002", "01-003"],
        "AGE": pa.array([71, 64, 58], pa.int32()),
        "SEX": pa.array(["F", "M", "F"]).dictionary_encode(),
    }
)
LB = pa.table(
    {
        "USUBJID": ["01-001", "01-002", "01-003", "01-001"],
        "LBSEQ": pa.array([1, 2, 3, 4], pa.int64()),
        "LBTESTCD": ["ALT", "ALT", "ALT", "AST"],
        "LBSTRESN": [1.5, 2.5, 3.5, 4.5],
    }
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("client_docs")
    projects = {"STUDY_001": empty_place(folder / "writable", "STUDY_001").settings}
    with running(write_config(folder, projects)) as server:
        with server.connect("STUDY_001", token=server.token("developer")) as conn:
            versions = {name: conn.write(name, table).version for name, table in (("dm", DM), ("lb", LB))}
            conn.write_set(
                "study001-adam",
                [
                    {"id": {"project": "STUDY_001", "name": name, "kind": "table", "version": version}}
                    for name, version in versions.items()
                ],
            )
        yield server


def examples(page: str, section: str = "") -> list[str]:
    """The blocks of Python in a page, or in a section of it."""
    text = (DOCS / page).read_text()
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


@pytest.mark.parametrize(
    ("page", "section", "left"),
    [
        ("client.md", "SQL", {"means", "old", "alt", "again"}),
        ("client.md", "DuckDB", set()),
        ("client.md", "ADBC", set()),
        ("clients/adbc-python.md", "", set()),
        ("clients/duckdb.md", "", {"database"}),
        ("clients/pandas.md", "", {"dm"}),
        ("clients/polars.md", "", {"dm", "old"}),
    ],
)
def test_the_examples_run_in_the_order_they_stand_in(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, section: str, left: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    developer = server.token("developer")
    blocks = examples(page, section)
    assert blocks
    frame = pl.DataFrame({"n": [1]}) if "polars" in page else pd.DataFrame({"n": [1]})
    with (
        server.connect("STUDY_001", token=developer) as conn,
        adbc(server, developer, headers={"x-datom-project": "STUDY_001"}, autocommit=True) as connection,
    ):
        names: dict[str, Any] = {"conn": conn, "connection": connection, "frame": frame}
        for block in blocks:
            code = block.replace("grpc://127.0.0.1:8815", server.url).replace("TOKEN", developer)
            # The store of this test is of today.
            exec(compile(code.replace("2026-01-15", "2099-01-15"), page, "exec"), names)
        assert left <= set(names)
        if "means" in left:
            assert names["again"].equals(names["means"])
            assert names["alt"].num_rows == 3
        for opened in (names.get("database"), names["conn"]):
            if opened is not None:
                opened.close()
