"""Cutting the connections of clients that no longer fetch: their calls hold threads that nothing else can free."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

_DESCRIPTORS = Path("/dev/fd")

Address = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


def cut(peers: Collection[str], port: int) -> None:
    """Close the connections that came to `port` from `peers`, as when a cable is pulled.

    All that is under way on them fails, at both ends, at once. A peer without a connection is passed over.

    Args:
        peers: as gRPC names them: ``ipv4:10.0.0.1:50312``, ``ipv6:[::1]:50312``.
        port: where the server listens, so that no connection of another kind is taken for theirs.
    """
    wanted = {address for peer in peers if (address := _address(peer)) is not None}
    for connection in _connections() if wanted else ():
        with connection, suppress(OSError):
            # IPv6 has two more
            (host, remote), (_, local) = connection.getpeername()[:2], connection.getsockname()[:2]
            if local == port and (_plain(host), remote) in wanted:
                connection.shutdown(socket.SHUT_RDWR)


def _connections() -> Iterator[socket.socket]:
    """This process's Internet connections, as duplicates: what happens to the originals meanwhile does not matter."""
    for name in os.listdir(_DESCRIPTORS):
        with suppress(OSError):
            duplicate = os.dup(int(name))
            if stat.S_ISSOCK(os.fstat(duplicate).st_mode):
                connection = socket.socket(fileno=duplicate)
                if connection.family in (socket.AF_INET, socket.AF_INET6):
                    yield connection
                else:
                    connection.close()
            else:
                os.close(duplicate)


def _address(peer: str) -> Address | None:
    family, _, place = unquote(peer).partition(":")
    host, _, port = place.rpartition(":")
    if family not in ("ipv4", "ipv6"):
        return None
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
