"""Which replica serves which part of a table: the same answer on each of them, whichever is asked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

REUSE_CONNECTION = "arrow-flight-reuse-connection://?"
"""The location that Flight has for wherever the FlightInfo came from."""

_NAMED = 3
"""How many replicas are named for a part: the one that serves it, and those to go to when it is not there."""


class Placement:
    """Spreads the parts of tables over replicas, so that each keeps its share of what is decoded in memory.

    By rendezvous hashing: a part is with the replica whose hash with it is the highest, unless that one has its even
    share of the table already. A replica that comes or goes moves less than twice its own share.

    Args:
        replicas: gives their URLs, in any order; none is no spreading.
    """

    def __init__(self, replicas: Callable[[], Sequence[str]]) -> None:
        self._replicas = replicas

    def locations(self, data_sha: str, parts: Sequence[int]) -> list[list[str]]:
        """Where each part of a table is to be fetched, best first, the connection it was asked about on last.

        Empty lists, which mean that connection too, where there is nothing to spread.

        Args:
            data_sha: of the table.
            parts: the first row group of each.
        """
        replicas = self._replicas()
        if len(parts) < 2 or not replicas:
            return [[] for _ in parts]
        share, larger_shares = divmod(len(parts), len(replicas))
        taken: Counter[str] = Counter()
        located = []
        for part in parts:
            ranked = sorted(replicas, key=lambda url: _score(url, data_sha, part), reverse=True)
            most = share + (sum(count > share for count in taken.values()) < larger_shares)
            ranked.sort(key=lambda url: taken[url] >= most)
            taken[ranked[0]] += 1
            located.append([*ranked[:_NAMED], REUSE_CONNECTION])
        return located


def _score(url: str, data_sha: str, part: int) -> bytes:
    return hashlib.sha256(f"{url} {data_sha} {part}".encode()).digest()
