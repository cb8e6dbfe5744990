"""What clients of each kind do, and what they see to."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from typing import Any

import adbc_driver_flightsql.dbapi as dbapi
import numpy as np
import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions

import datom_flight
from datom_flight.identity import data_sha

from ..same import assert_same
from .contents import LARGE, LARGE_ROWS, SHARED, assert_whole, content, large
from .plans import Plan


class Client:
    """One user: who they are, what they may use, and what they remember.

    Attributes:
        conn: to all replicas; readers of a process share one.
        chance: their own.
    """

    def __init__(self, plan: Plan, name: str, conn: Callable[[], datom_flight.Connection]) -> None:
        self.plan = plan
        self.name = name
        self.chance = random.Random(f"{plan.seed} {name}")
        self.written = 0
        self.replicas: tuple[int, ...] = ()
        self.wrote: tuple[str, str, str, int] | None = None
        self.driver: Any = None
        self._conn = conn

    @property
    def conn(self) -> datom_flight.Connection:
        """As said."""
        return self._conn()

    @property
    def table(self) -> str:
        """Some table that others write to."""
        return self.chance.choice(self.plan.tables)

    @cached_property
    def own(self) -> datom_flight.Connection:
        """A developer's connection, for this client alone."""
        return self.plan.connect("developer")


def current(client: Client) -> None:
    """Read what is current, and hash it again."""
    rows = client.conn.read(client.table)
    assert_whole(rows)
    assert rows.schema.metadata[b"datom.data_sha"].decode() == data_sha(rows), "the values have another data_sha"


def pinned(client: Client) -> None:
    """Read a version of long ago by its id, and hash it again."""
    table = client.table
    entry = client.chance.choice(client.conn.history(table))
    rows = client.conn.read(table, entry.version)
    assert_whole(rows)
    assert entry.data_sha == data_sha(rows), f"{table}@{entry.version} is not what its history says"


def abandoned(client: Client) -> None:
    """Scan the large table and let go half way."""
    reader = client.conn.scan(LARGE)
    seen = 0
    for _ in range(client.chance.randrange(1, 6)):
        batch = next(reader, None)
        if batch is None:
            break
        assert batch.equals(large().slice(seen, batch.num_rows).combine_chunks().to_batches()[0]), "wrong rows"
        seen += batch.num_rows
    reader.close()


def whole(client: Client) -> None:
    """Read the large table, which comes in parts from both replicas."""
    rows = client.conn.read(LARGE)
    assert rows.num_rows == LARGE_ROWS, f"{rows.num_rows} rows"
    for name in rows.column_names:
        assert np.array_equal(rows[name].to_numpy(), large()[name].to_numpy()), f'wrong rows in "{name}"'


def filtered(client: Client) -> None:
    """Read a few columns of a few rows."""
    first = client.chance.randrange(LARGE_ROWS)
    count = client.chance.randrange(1, 5000)
    rows = client.conn.read(LARGE, columns=["AVAL", "SEQ"], where=f"SEQ >= {first} AND SEQ < {first + count}")
    assert_same(rows, large().select(["AVAL", "SEQ"]).slice(first, count))


def listed(client: Client) -> None:
    """Ask what there is."""
    names = {row.name for row in client.conn.tables()}
    assert {*client.plan.tables, LARGE} <= names, f"only {sorted(names)} are listed"
    table = client.table
    versions = [entry.version for entry in client.conn.history(table, limit=20)]
    assert len(set(versions)) == len(versions) > 0, f"the history of {table} has {versions}"
    version = client.chance.choice(versions)
    assert client.conn.metadata(table, version)["kind"] == "table"


def queried(client: Client) -> None:
    """Ask the server to compute, and again for the same versions."""
    table = client.table
    figures = 'count(*) AS n, sum("SEQ")::BIGINT AS s, count("AVAL") AS a'
    query = f'SELECT "WRITER", "NUMBER", {figures} FROM {table} GROUP BY ALL'
    found = client.conn.sql(query)
    (row,) = found.to_pylist()
    rows = content(row["WRITER"], row["NUMBER"])
    expected = {"n": rows.num_rows, "s": sum(range(rows.num_rows)), "a": rows.num_rows - rows["AVAL"].null_count}
    assert {key: row[key] for key in expected} == expected, f"{row}, and it should be {expected}"
    assert client.conn.sql(query, pin=found).equals(found), "another answer for the same versions"


def fetched(client: Client) -> None:
    """Have the server fetch what is current."""
    failed = [row for row in client.conn.prefetch(client.plan.tables) if row.error]
    assert not failed, f"not fetched: {failed}"


def connected(client: Client) -> None:
    """Come anew, ask who one is, and go."""
    with client.plan.connect() as conn:
        assert conn.whoami().role == "reader"
        assert_whole(conn.read(client.table))


def driven(client: Client) -> None:
    """Use the stock driver, which knows one replica alone."""
    number = int(client.name.rpartition(" ")[2]) % len(client.plan.urls)
    client.replicas = (number,)
    if client.driver is None:
        options = {
            DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {client.plan.tokens['reader']}",
            DatabaseOptions.RPC_CALL_HEADER_PREFIX.value + "x-datom-project": client.plan.project,
        }
        client.driver = dbapi.connect(client.plan.urls[number], db_kwargs=options, autocommit=True)
    try:
        with closing(client.driver.cursor()) as cursor:
            if client.chance.random() < 0.2:
                # the parts of a large table come from both
                client.replicas = (0, 1)
                cursor.execute(f"SELECT * FROM {LARGE}")
                seqs = cursor.fetch_arrow_table()["SEQ"].to_numpy()
                assert np.array_equal(seqs, large()["SEQ"].to_numpy()), "wrong rows"
            else:
                cursor.execute(f"SELECT * FROM {client.table}")
                assert_whole(pa.table(cursor.fetch_arrow_table()))
    except dbapi.Error:
        # as its users do: another connection does not wait for this one to find its server again
        driver, client.driver = client.driver, None
        driver.close()
        raise


def wrote(client: Client) -> None:
    """Write the next version, mostly to one's own table, and see that it is there."""
    client.written += 1
    table = SHARED if client.chance.random() < 0.3 else f"t{client.name.rpartition(' ')[2]}"
    rows = content(client.name, client.written)
    receipt = client.own.write(table, rows)
    client.wrote = (table, receipt.version, client.name, client.written)
    assert receipt.data_sha == data_sha(rows), "the receipt has another data_sha"
    assert_same(client.own.read(table, receipt.version), rows)


def refused(client: Client) -> None:
    """Try to write without the right to."""
    try:
        client.conn.write(client.table, content(client.name, 0))
    except datom_flight.DatomError as error:
        if error.code != "permission_denied":
            raise
    else:
        raise AssertionError("a reader wrote")


KINDS: dict[str, tuple[int, Callable[[Client], None]]] = {
    "current": (8, current),
    "pinned": (8, pinned),
    "abandoned": (4, abandoned),
    "whole": (3, whole),
    "filtered": (6, filtered),
    "listed": (4, listed),
    "queried": (4, queried),
    "fetched": (1, fetched),
    "connected": (1, connected),
    "driven": (4, driven),
    "wrote": (5, wrote),
    "refused": (2, refused),
}
"""How many clients of each kind there are, and what they do."""
