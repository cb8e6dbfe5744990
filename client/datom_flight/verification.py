"""Whether rows still have the values their `data_sha` names, computed on this side of the wire."""

from __future__ import annotations

from .identity import data_sha
from .protocol.errors import DatomError, NotFoundError, StoredDataError
from .reads import Reads, Selection
from .results import Finding
from .text import plural


def verify(reads: Reads, selection: Selection) -> Finding:
    """The finding for one table: its rows are fetched, hashed, and compared with what is pinned or else recorded.

    Data that is damaged, gone although pinned, or cannot be hashed is a finding, not an error.
    """
    request, pinned = selection.request, selection.data_sha
    try:
        table = reads.table(selection)
    except (NotFoundError, StoredDataError) as error:
        if pinned is None and isinstance(error, NotFoundError):
            raise
        return Finding(request.table, request.version, "read", False, str(error))
    metadata = table.schema.metadata or {}
    version = metadata[b"datom.version"].decode() if b"datom.version" in metadata else request.version
    recorded = pinned or metadata.get(b"datom.data_sha", b"").decode()

    def finding(ok: bool, detail: str) -> Finding:
        return Finding(request.table, version, "data_sha", ok, detail)

    try:
        computed = data_sha(table)
    except DatomError as error:
        return finding(False, f"cannot be computed: {error.message}")
    if computed != recorded:
        return finding(False, f"the rows give {computed}, recorded is {recorded}")
    return finding(True, plural(table.num_rows, "row"))
