"""The stock ADBC driver, as analysts connect with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import adbc_driver_flightsql.dbapi as dbapi
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions

from .server import Server


@contextmanager
def adbc(
    server: Server,
    token: str | None = None,
    *,
    autocommit: bool = False,
    headers: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    """A DBAPI connection with a bearer token, a reader's of all projects unless another is given.

    Args:
        autocommit: False is what the driver does by itself: it begins a transaction at once.
        headers: sent with every call.
        options: of the database, by the names of `DatabaseOptions`.
    """
    prefix = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
    settings = {
        DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {token or server.token()}",
        **{prefix + name: value for name, value in (headers or {}).items()},
        **{DatabaseOptions[name].value: value for name, value in (options or {}).items()},
    }
    with dbapi.connect(server.url, db_kwargs=settings, autocommit=autocommit) as connection:
        yield connection


def set_option(connection: Any, name: str, value: str) -> None:
    """Set a session option that DBAPI has no name for."""
    connection.adbc_connection.set_options(**{ConnectionOptions.OPTION_SESSION_OPTION_PREFIX.value + name: value})


def erase_option(connection: Any, name: str) -> None:
    """Take a session option back."""
    connection.adbc_connection.set_options(**{ConnectionOptions.OPTION_ERASE_SESSION_OPTION_PREFIX.value + name: ""})


def get_option(connection: Any, name: str) -> str:
    """A session option, as the server has it."""
    value = connection.adbc_connection.get_option(ConnectionOptions.OPTION_SESSION_OPTION_PREFIX.value + name)
    return str(value)


def rows(connection: Any, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """The rows of one query, with a cursor of its own."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return list(cursor.fetchall())
