"""What is measured over: made once from a fixed seed, and kept until the code that makes it changes."""

from __future__ import annotations

import hashlib
import inspect
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datom_flight_server.metadata import documents, layout
from datom_flight_server.versions import spool, spooled, stored_form

from . import store
from .store import ProjectStore

STUDY = "STUDY_001"
ARCHIVE = "ARCHIVE"

_SEED = 20260105
_CHUNK_ROWS = 250_000
_TESTS = ("ALB", "ALT", "AST", "BILI", "CREAT", "GLUC", "HGB", "PLAT", "UREAN", "WBC")
_UNITS = ("g/L", "U/L", "U/L", "umol/L", "umol/L", "mmol/L", "g/L", "10^9/L", "mmol/L", "10^9/L")
_VISITS = 25
_DM_ROWS = 48
_SITE_SUBJECTS = 500
_DONE = "made-by"


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything there is."""

    name: str
    lab_rows: int
    long_rows: int
    wide_rows: int
    wide_columns: int
    tables: int
    versions: int


FULL = Size("full", 5_000_000, 20_000_000, 10_000, 2_000, 1_000, 200)
QUICK = Size("quick", 500_000, 2_000_000, 1_000, 2_000, 1_000, 200)
TINY = Size("tiny", 5_000, 10_000, 50, 20, 10, 5)


@dataclass(frozen=True, slots=True)
class Data:
    """Two projects in the folders behind two buckets.

    `STUDY` has ``lb`` (laboratory results), ``dm`` (48 subjects), ``wide`` (a column for each of many analytes) and
    ``long`` (more laboratory results than memory should hold); `ARCHIVE` has many tables of many versions, ``t0000``
    and on.
    """

    buckets: Path

    def bucket(self, project: str) -> Path:
        """The folder behind the bucket of `project`."""
        return self.buckets / bucket_name(project)

    def parquet(self, table: str) -> Path:
        """The stored file of a table of `STUDY`."""
        folder = self.bucket(STUDY) / "datom" / table
        return next(folder.glob("*.parquet"))

    def version(self, table: str) -> str:
        """The full id of the current version of a table of `STUDY`."""
        path = self.bucket(STUDY) / "datom" / layout.history_key(table)
        return str(layout.parse_history(path.read_bytes(), str(path))[0].version)


def bucket_name(project: str) -> str:
    """A bucket for `project`; names of buckets have no underscores."""
    return project.lower().replace("_", "-")


def made(size: Size, folder: Path, say: Callable[[str], None]) -> Data:
    """The data of that size in `folder`, made now unless it is there already."""
    place = folder / size.name
    data = Data(place / "buckets")
    maker = _maker(size)
    if (place / _DONE).exists() and (place / _DONE).read_text() == maker:
        return data
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    say(f"making {size.name} data in {place} (once)")
    study = ProjectStore(data.bucket(STUDY), STUDY, place)
    for name, schema, batches in (
        ("dm", demographics().schema, demographics().to_batches()),
        ("lb", lab_results(0, 1).schema, _chunks(lab_results, size.lab_rows)),
        ("long", lab_results(0, 1).schema, _chunks(lab_results, size.long_rows)),
        ("wide", analytes(0, 1, size.wide_columns).schema, [analytes(0, size.wide_rows, size.wide_columns)]),
    ):
        study.add(name, schema, batches)
    archive = ProjectStore(data.bucket(ARCHIVE), ARCHIVE, place)
    archive.add("t0000", demographics().schema, demographics().to_batches(), size.versions)
    archive.repeat("t0000", [f"t{number:04d}" for number in range(1, size.tables)])
    shutil.rmtree(place / "spool")
    (place / _DONE).write_text(maker)
    return data


def lab_results(first: int, rows: int) -> pa.RecordBatch:
    """Rows of laboratory results from the row `first` on, by subject and test: five columns of text, five not."""
    chance = np.random.default_rng((_SEED, first))
    row = np.arange(first, first + rows)
    subject, within = row // (_VISITS * len(_TESTS)), row % (_VISITS * len(_TESTS))
    test, visit = within // _VISITS, within % _VISITS
    value = np.round(chance.gamma(4.0, 12.0, rows), 1)
    missing = chance.random(rows) < 0.01
    day = visit * 14 + chance.integers(-3, 4, rows)
    date = pa.array(19_800 + subject % 200 + day, pa.int32()).cast(pa.date32())
    return pa.record_batch(
        {
            "USUBJID": _subjects(subject),
            "LBTESTCD": _picked(test, _TESTS),
            "LBORRES": pa.array(value, mask=missing).cast(pa.string()),
            "LBORRESU": _picked(test, _UNITS),
            "LBDTC": date.cast(pa.string()),
            "LBSTRESN": pa.array(value, mask=missing),
            "LBSEQ": pa.array(within + 1, pa.int32()),
            "VISITNUM": pa.array(visit + 1, pa.int32()),
            "LBDY": pa.array(day, pa.int32()),
            "LBDT": date,
        }
    )


def demographics() -> pa.Table:
    """One row for each of 48 subjects."""
    row = np.arange(_DM_ROWS)
    return pa.table(
        {
            "STUDYID": [STUDY] * _DM_ROWS,
            "USUBJID": _subjects(row),
            "SEX": _picked(row % 2, ("F", "M")),
            "AGE": pa.array(30 + row % 50, pa.int32()),
            "ARM": _picked(row % 3, ("Placebo", "10 mg", "20 mg")),
            "RFSTDTC": pa.array(19_800 + row, pa.int32()).cast(pa.date32()).cast(pa.string()),
        }
    )


def analytes(first: int, rows: int, columns: int) -> pa.RecordBatch:
    """A column for the subject, and one for each analyte."""
    chance = np.random.default_rng((_SEED, columns))
    values = {f"A{number:04d}": np.round(chance.normal(50, 9, rows), 2) for number in range(1, columns)}
    return pa.record_batch({"USUBJID": _subjects(np.arange(first, first + rows)), **values})


def _chunks(make: Callable[[int, int], pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for first in range(0, rows, _CHUNK_ROWS):
        yield make(first, min(_CHUNK_ROWS, rows - first))


def _subjects(number: np.ndarray) -> pa.Array:
    known, places = np.unique(number, return_inverse=True)
    names = [f"001-{101 + subject // _SITE_SUBJECTS}-{subject:05d}" for subject in known.tolist()]
    return pc.take(pa.array(names), pa.array(places))


def _picked(places: np.ndarray, texts: tuple[str, ...]) -> pa.Array:
    return pc.take(pa.array(texts), pa.array(places))


def _maker(size: Size) -> str:
    """What the data depends on: other code makes other files."""
    here = inspect.getmodule(made)
    assert here is not None
    modules: list[ModuleType] = [here, store, documents, spool, spooled, stored_form]
    digest = hashlib.sha256(repr(size).encode())
    for module in modules:
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()
