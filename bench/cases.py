"""All cases, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import latencies, queries, readers, reads, writes
from .rounds import Case
from .stage import Stage


def all_cases() -> Mapping[str, Callable[[Stage], Case]]:
    """What makes each case on a stage, in the order of the report."""
    return {
        "scan": reads.scan,
        "adbc-scan": queries.scan,
        "columns": reads.columns,
        "cold": reads.cold,
        "filter": reads.filtered,
        "subject": reads.subject,
        "limit": reads.limit,
        "wide": reads.wide,
        "wide-columns": reads.wide_columns,
        "small": latencies.small,
        "history": latencies.history,
        "tables": latencies.tables,
        "first-batch": latencies.first_batch,
        "readers": readers.readers,
        "large": reads.large,
        "start": latencies.start,
        "aggregation": queries.aggregation,
        "adbc-filter": queries.filtered,
        "select-1": queries.one,
        "write": writes.write,
    }
