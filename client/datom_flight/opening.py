"""Opening a connection: where the server is, who the caller is, and with what rights."""

from __future__ import annotations

import os
from datetime import datetime
from functools import partial

from .addresses import parse_urls
from .calls import Calls
from .connection import Connection, single
from .credentials import FixedToken, SessionToken, find_token
from .protocol.compression import validate_codec
from .protocol.errors import InvalidRequestError
from .replicas import Replicas
from .results import Identity, parse_timestamp, required

ROLES = ("reader", "developer", "admin")


def connect(
    url: str | None = None,
    project: str | None = None,
    *,
    token: str | None = None,
    role: str | None = None,
    tls_root_certs: str | os.PathLike[str] | bytes | None = None,
    timeout: float | None = None,
    compression: str | None = None,
) -> Connection:
    """A connection to a datom server, after asking it who the caller is.

    Args:
        url: ``grpc://host:port`` or ``grpc+tls://host:port``, or several replicas with commas between; None takes
            the environment's DATOM_FLIGHT_URL.
        project: the project that names of tables are looked up in; None takes DATOM_FLIGHT_PROJECT, else the only
            project the caller may see.
        token: None takes DATOM_FLIGHT_TOKEN, else what ``datom-flight login`` stored; empty sends none.
        role: work with no more rights than this role has, even if the token has them.
        tls_root_certs: the authority of the server's certificate, PEM text or the path of a file; None takes those
            this machine trusts.
        timeout: seconds for each call; None allows 30 for a question and 300 for a stream of rows.
        compression: ``lz4`` or ``zstd``: the server compresses the rows it sends, which pays where the network is slow.

    Raises:
        AuthenticationError: ``unauthenticated``: the token is not valid.
        PermissionDeniedError: ``permission_denied``: `role` is wider than the token's.
        UnavailableError: ``unavailable`` or ``timeout``: no server answers.
        InvalidRequestError: ``invalid_argument``: an argument is not of its form.
    """
    url = url or os.environ.get("DATOM_FLIGHT_URL")
    if not url:
        raise InvalidRequestError("no URL was given", hint="name the server, or set DATOM_FLIGHT_URL")
    if role is not None and role not in ROLES:
        raise InvalidRequestError(f'role "{role}" is not one of {", ".join(ROLES)}')
    urls = parse_urls(url)
    if compression is not None:
        validate_codec(compression)
    replicas = Replicas(urls, tls_root_certs, compression)
    calls = Calls(replicas, FixedToken(find_token(token, urls)), timeout)
    try:
        if role is not None:
            calls = calls.authorised_by(SessionToken(partial(_session, calls, role)))
        identity = Identity.from_wire(single(calls.action("datom.whoami", {}), "datom.whoami"))
        return Connection(calls, identity, project or os.environ.get("DATOM_FLIGHT_PROJECT") or None)
    except BaseException:
        calls.close()
        raise


def _session(calls: Calls, role: str) -> tuple[str, datetime | None]:
    answer = single(calls.action("datom.session", {"role": role}), "datom.session")
    return required(answer, "token"), parse_timestamp(answer.get("expires"))
