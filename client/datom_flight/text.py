"""Aligned text and HTML for the small tables that people look at."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

MAX_CELL_LENGTH = 48
SHORT_ID_LENGTH = 8


def aligned(headers: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool]) -> str:
    """The cells as columns two spaces apart; the columns marked in `right` end flush."""
    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(headers))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def html_table(headers: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """The cells as an HTML table, for notebooks."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    table = f"<table><thead>{line(headers, 'th')}</thead><tbody>{body}</tbody></table>"
    return table + (f"<p>{html.escape(note)}</p>" if note else "")


def card(title: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A title, and below it one ``* name: value`` a line, the values aligned."""
    known = list(pairs)
    width = max(len(name) for name, _ in known) + 1
    return "\n".join([f"-- {title}", *(f"* {name + ':':<{width}} {value}" for name, value in known)])


def clean(value: object) -> str:
    """`value` on one line, without characters that would move a terminal's cursor; None is ``-``."""
    if value is None:
        return "-"
    text = " ".join(str(value).split())
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def clipped(value: object, length: int = MAX_CELL_LENGTH) -> str:
    """`clean` text of at most `length` characters."""
    text = clean(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def plural(number: int, noun: str) -> str:
    """The number and its noun: ``1 row``, ``2 rows``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def count(value: int | None) -> str:
    """A whole number with thousands separators."""
    return "-" if value is None else f"{value:,}"


def byte_size(value: int | None) -> str:
    """A number of bytes in the largest decimal unit that leaves at least 1."""
    if value is None:
        return "-"
    size, unit = float(value), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{value} B" if unit == "B" else f"{size:.1f} {unit}"


def instant(value: datetime | None) -> str:
    """A time in UTC, ISO 8601, to the second."""
    return "-" if value is None else value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def short_ids(values: Sequence[str | None]) -> list[str]:
    """Each id's first digits: at least 8, and as many as tell all of them apart."""
    known = {value for value in values if value}
    length = SHORT_ID_LENGTH
    while length < 64 and len({value[:length] for value in known}) < len(known):
        length += 1
    return [clean(value[:length] if value else None) for value in values]
