"""Addresses to listen on, tried before the libraries that will."""

from __future__ import annotations

import socket

from datom_flight.protocol.errors import UnavailableError

from .addresses import split_host_port


def refuse_taken(key: str, address: str) -> None:
    """Return when ``HOST:PORT`` can be listened on now. gRPC, asked to, would report to stderr and not say why.

    Args:
        key: the settings key it comes from, for the message.

    Raises:
        UnavailableError: ``unavailable``, saying why not.
    """
    host, port = split_host_port(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise UnavailableError(
            f'{key}: "{address}" cannot be listened on: {error.strerror}',
            hint="is another process listening there?",
        ) from None


def reached_at(listen: str, port: int) -> str:
    """The URL under which this machine reaches what listens on `listen`, a URL, with `port` taken for it."""
    scheme, _, address = listen.partition("://")
    host, _ = split_host_port(address)
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"{scheme}://[{own}]:{port}" if ":" in own else f"{scheme}://{own}:{port}"
