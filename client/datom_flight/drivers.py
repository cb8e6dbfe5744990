"""The stock ADBC driver, connected as the caller is."""

from __future__ import annotations

from adbc_driver_flightsql import DatabaseOptions, dbapi

from .calls import Calls

PROJECT_HEADER = "x-datom-project"
AS_OF_HEADER = "x-datom-as-of"

AdbcConnection = dbapi.Connection


def adbc_connection(calls: Calls, project: str | None, as_of: str | None, autocommit: bool) -> AdbcConnection:
    """A connection of the driver to the server that `calls` go to now, with the token they carry now.

    Args:
        project: where tables named alone are; None leaves that to the server.
        as_of: ISO 8601; the instant tables are read as of.
    """
    url, token, certificates = calls.replicas.current().url, calls.token(), calls.replicas.root_certificates
    headers = {PROJECT_HEADER: project, AS_OF_HEADER: as_of, **calls.replicas.headers}
    prefix = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
    options = {prefix + name: value for name, value in headers.items() if value is not None}
    if token is not None:
        options[DatabaseOptions.AUTHORIZATION_HEADER.value] = f"Bearer {token}"
    if certificates is not None:
        options[DatabaseOptions.TLS_ROOT_CERTS.value] = certificates.decode("ascii", errors="replace")
    if calls.timeout is not None:
        for option in (DatabaseOptions.TIMEOUT_QUERY, DatabaseOptions.TIMEOUT_FETCH, DatabaseOptions.TIMEOUT_UPDATE):
            options[option.value] = str(float(calls.timeout))
    return dbapi.connect(url, db_kwargs=options, autocommit=autocommit)
