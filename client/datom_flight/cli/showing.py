"""Rows of a scan: to a file, to stdout for programs, or the first of them as a table for people."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator

import click
import pyarrow as pa

from .. import rows
from ..progress import RowProgress
from ..protocol.errors import InvalidRequestError
from ..reads import Scan

_BINARY = ("arrow", "parquet")


def check_terminal(how: str, target: str | None) -> None:
    """Refuse to write what is not text to a terminal.

    Raises:
        InvalidRequestError: ``invalid_argument``.
    """
    if target is None and how in _BINARY and sys.stdout.isatty():
        raise InvalidRequestError(f"{how} is not for a terminal", hint=f"write it to a file: -o rows.{how}")


def show(scan: Scan, how: str, target: str | None, most: int, of: str, progress: RowProgress) -> None:
    """Put the rows out.

    Args:
        how: ``table``, or a key of `ROW_WRITERS`; for stdout.
        target: a file to write instead, in the format of its ending.
        most: rows of a table.
        of: what the rows are of, for the line below a table.
    """
    progress.expect(scan.rows)
    if target is not None:
        rows.write_rows(target, scan.schema, _followed(scan, progress))
    elif how == "table":
        _preview(scan, most, of)
    elif how in _BINARY:
        # These formats are written back and forth, which a pipe cannot be.
        with tempfile.TemporaryFile() as file:
            rows.encode_rows(rows.ROW_WRITERS[how], file, scan.schema, _followed(scan, progress))
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()
    else:
        rows.encode_rows(rows.ROW_WRITERS[how], sys.stdout.buffer, scan.schema, _followed(scan, progress))
        sys.stdout.flush()


def _followed(scan: Scan, progress: RowProgress) -> Iterator[pa.RecordBatch]:
    for batch in scan.reader():
        yield batch
        progress.advance(batch.num_rows)


def _preview(scan: Scan, most: int, of: str) -> None:
    """Print the first rows as a table, and on stderr how many there are."""
    batches: list[pa.RecordBatch] = []
    left = most
    for batch in scan.reader():
        batches.append(batch.slice(0, left))
        left -= batches[-1].num_rows
        if left == 0:
            break
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    table, hidden = rows.preview(scan.schema, batches, width)
    click.echo(table)
    shown = most - left
    total = scan.rows if scan.rows is not None else (shown if left else None)
    count = f"{shown:,} of {total:,} rows" if total is not None else f"the first {shown:,} rows"
    columns = f", {hidden} more columns" if hidden else ""
    click.echo(f"{count}{columns}{of}", err=True)
