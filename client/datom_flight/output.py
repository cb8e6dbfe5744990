"""Answers on stdout: as tables for people, json and csv for programs."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from . import text
from .results import Listing


def to_json(value: object, indent: int | None = 2) -> str:
    """`value` as JSON, dataclasses by field name; not-a-number and infinity become null."""
    return json.dumps(json_value(value), ensure_ascii=False, indent=indent, allow_nan=False)


def json_value(value: object) -> Any:
    """`value` in JSON's own types: dataclasses as objects, times as ISO 8601, time spans as seconds, bytes as hex."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return json_value(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(entry) for entry in value]
    if isinstance(value, datetime):
        return text.instant(value) if value.tzinfo else value.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, Decimal) else value


def print_listing(listing: Listing[Any], how: str) -> None:
    """Print a list of answers on stdout: as ``table``, ``json`` or ``csv``."""
    if how == "json":
        print(to_json(list(listing)))
    elif how == "csv":
        names = list(listing.records()[0]) if listing else [column.name for column in listing.columns]
        print_csv(names, listing.records())
    elif listing and sys.stdout.isatty():
        _print_rich(listing)
    elif listing:
        headers, rows = listing.cells()
        print(text.aligned(headers, rows, [column.right for column in listing.columns]))
    else:
        print(listing.empty, file=sys.stderr)


def print_answer(answer: Any, how: str) -> None:
    """Print one answer on stdout: as ``table``, ``json`` or ``csv``."""
    if how == "json":
        print(to_json(answer))
    elif how == "csv":
        record = asdict(answer)
        print_csv(list(record), [record])
    else:
        print(answer)


def print_csv(names: list[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Print records as CSV on stdout; nested values as JSON."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for record in records:
        values = [json_value(record[name]) for name in names]
        writer.writerow([to_json(value, indent=None) if isinstance(value, dict | list) else value for value in values])


def _print_rich(listing: Listing[Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    headers, rows = listing.cells()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header, column in zip(headers, listing.columns, strict=True):
        table.add_column(header, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
