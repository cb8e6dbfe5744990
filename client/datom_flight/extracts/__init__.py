"""Extracts: tables in files of many formats, read as rows to be written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..protocol.errors import InvalidRequestError
from ..sources import RowSource

INSTALL = "pip install 'datom-flight[files]'"


class Format(NamedTuple):
    """How files of one ending are read.

    Attributes:
        module: of this package; its function `function` gives the rows of a path.
        needs: a library that comes with the extra ``files``; None where none is needed.
        inferred: whether the file itself does not say what types its columns have.
    """

    module: str
    function: str
    needs: str | None = None
    inferred: bool = False


FORMATS: Mapping[str, Format] = {
    "parquet": Format("columnar", "read_parquet"),
    "arrow": Format("columnar", "read_arrow"),
    "feather": Format("columnar", "read_arrow"),
    "csv": Format("delimited", "read_csv", inferred=True),
    "tsv": Format("delimited", "read_tsv", inferred=True),
    "xpt": Format("readstat", "read_xpt", "pyreadstat"),
    "sas7bdat": Format("readstat", "read_sas7bdat", "pyreadstat"),
    "sav": Format("readstat", "read_sav", "pyreadstat"),
    "xlsx": Format("workbooks", "read_xlsx", "python_calamine", inferred=True),
}


def extract_format(path: str | os.PathLike[str]) -> str:
    """The format of a file by its ending, a key of `FORMATS`; what reads it is installed.

    Raises:
        InvalidRequestError: ``unsupported``: the ending is none of those known, or its reader is not installed.
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise InvalidRequestError(
            f'files that end in ".{ending}" are not read' if ending else "files without an ending are not read",
            code="unsupported",
            hint="known: " + ", ".join(f".{each}" for each in FORMATS),
        )
    needs = FORMATS[ending].needs
    if needs is not None and find_spec(needs) is None:
        raise InvalidRequestError(
            f'reading ".{ending}" needs {needs.replace("_", "-")}, which is not installed',
            code="unsupported",
            hint=INSTALL,
        )
    return ending


def open_extract(path: str | os.PathLike[str]) -> RowSource:
    """The rows of a file, by its ending. Parquet and Arrow files are read batch by batch, others as a whole.

    Raises:
        InvalidRequestError: ``unsupported`` as `extract_format`; ``invalid_argument``: the file is damaged, or not one
            table. Going through the rows may raise it too.
        OSError: the file cannot be read.
    """
    chosen = FORMATS[extract_format(path)]
    with open(path, "rb"):
        pass  # the readers' own errors say less about a file that is not there
    read: Callable[[Path], RowSource] = getattr(import_module(f".{chosen.module}", __name__), chosen.function)
    return read(Path(path))
