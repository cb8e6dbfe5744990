"""Transactions: an instant, fixed when one begins, as of which all its statements read.

Nothing of a transaction is kept: its id says the instant, so that any replica knows it and none has to forget it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.messages import decode_object, encode_object, optional_text
from datom_flight.protocol.names import parse_instant

from . import flight_sql_pb2 as messages

Clock = Callable[[], datetime]


def now() -> datetime:
    """This instant, in UTC."""
    return datetime.now(UTC)


def begin(clock: Clock) -> tuple[bytes, str]:
    """The id of a transaction that begins now, and its instant."""
    instant = clock().isoformat()
    return encode_object({"as_of": instant}), instant


def instant_of(transaction: bytes) -> str:
    """The instant of the transaction with this id, ISO 8601.

    Raises:
        InvalidRequestError: ``invalid_argument`` when `begin` made no such id.
    """
    as_of = optional_text(decode_object(transaction, "the transaction id", ("as_of",)), "as_of")
    if as_of is None:
        raise InvalidRequestError("the transaction id names no instant", hint="begin a transaction, and use its id")
    parse_instant(as_of)
    return as_of


def end(asked: messages.ActionEndTransactionRequest) -> None:
    """Check a commit or rollback. Neither does anything: nothing was changed, and nothing is held.

    Raises:
        InvalidRequestError: ``invalid_argument`` when it is neither, or of no transaction.
    """
    if asked.action not in (asked.END_TRANSACTION_COMMIT, asked.END_TRANSACTION_ROLLBACK):
        raise InvalidRequestError("the end of a transaction is neither COMMIT nor ROLLBACK")
    instant_of(asked.transaction_id)
