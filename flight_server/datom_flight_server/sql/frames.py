"""What passes between the server and a process that runs queries; apart from it, so that the server needs no DuckDB."""

from __future__ import annotations

import struct

FRAME = struct.Struct("<cQ")
"""The head of a frame: its kind, and how many bytes follow."""

READY, SCHEMA, BATCH, END, FAILED = b"R", b"S", b"B", b"Z", b"E"

CATALOG = "datom"
"""What queries read is in this catalog."""

MAX_ROW_BYTES = 64 * 1024 * 1024
"""The server holds a few rows at a time, whatever they are."""


class RowTooLarge(Exception):  # noqa: N818
    """A row that no server would hold for its reader."""
