"""Listings as they travel: a JSON object a row; or, for callers who say so in a header, one for many rows.

A header, because servers that do not know it pass it over: whoever sends it takes either form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from .errors import InvalidRequestError
from .messages import MAX_REQUEST_BYTES, encode_object

RESULTS_HEADER = "x-datom-results"
PACKED = "packed"

_ROWS = "rows"
_PACK_ROWS = 1000


def pack(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """`rows`, in order, in objects of many each: ``{"rows": [...]}`` in UTF-8, at most 4 MiB unless one row is more."""
    left = iter(rows)
    while some := list(islice(left, _PACK_ROWS)):
        yield from _packed(some)


def unpack(results: Sequence[bytes], what: str) -> list[dict[str, Any]]:
    """The rows in the results of an action, whichever form each has; `what` names it in errors.

    Raises:
        InvalidRequestError: ``invalid_argument``: one is not a JSON object, or what it packs is not objects.
    """
    rows: list[dict[str, Any]] = []
    try:
        # all at once: a call of the parser costs more than a row
        bodies = json.loads(b"[%s]" % b",".join(results))
        for body in bodies:
            rows += body[_ROWS] if body.keys() == {_ROWS} else [body]
        if len(bodies) == len(results) and all(isinstance(row, dict) for row in rows):
            return rows
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise InvalidRequestError(f"{what} is not JSON objects in UTF-8")


def _packed(rows: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    body = encode_object({_ROWS: rows})
    if len(body) <= MAX_REQUEST_BYTES or len(rows) == 1:
        yield body
    else:
        half = len(rows) // 2
        yield from _packed(rows[:half])
        yield from _packed(rows[half:])
