"""Connections are cut by their peers' addresses, and no others."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from datom_flight_server.flight.connections import cut


@pytest.mark.parametrize(
    ("listen", "reach", "form"),
    [
        ("127.0.0.1", "127.0.0.1", "ipv4:127.0.0.1:{}"),
        ("::1", "::1", "ipv6:[::1]:{}"),
        ("::1", "::1", "ipv6:%5B::1%5D:{}"),
        ("::", "127.0.0.1", "ipv4:127.0.0.1:{}"),
    ],
)
def test_only_the_connection_of_the_peer_is_cut(listen: str, reach: str, form: str) -> None:
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    dual = family == socket.AF_INET6 and listen == "::"
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server((listen, 0), family=family, dualstack_ipv6=dual))
        port = server.getsockname()[1]
        clients = [stack.enter_context(socket.create_connection((reach, port), timeout=10)) for _ in range(2)]
        accepted = [stack.enter_context(server.accept()[0]) for _ in clients]
        peer = form.format(clients[0].getsockname()[1])
        # of another port: nothing
        cut([peer], port + 1)
        accepted[0].sendall(b"still here")
        assert clients[0].recv(100) == b"still here"
        cut([peer, "ipv4:127.0.0.1:1", "unix:/somewhere"], port)
        assert clients[0].recv(100) == b""
        accepted[1].sendall(b"still here")
        assert clients[1].recv(100) == b"still here"
