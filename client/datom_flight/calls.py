"""Calls to the servers: with a deadline and the caller's token, retried where that can help, failing as DatomError."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from copy import copy
from functools import partial
from typing import Any, TypeVar

import pyarrow.flight as fl

from .credentials import Credential
from .failures import TRANSPORT_ERRORS, to_datom_error
from .protocol.errors import AuthenticationError, DatomError, InternalError, InvalidRequestError
from .protocol.listings import PACKED, RESULTS_HEADER, unpack
from .protocol.messages import decode_object, encode_object
from .replicas import Replica, Replicas, authorised, closed_error
from .retries import Attempts

T = TypeVar("T")
U = TypeVar("U")

Headers = Sequence[tuple[bytes, bytes]]

ACTION_SECONDS = 30.0
STREAM_SECONDS = 300.0
WRITE_SECONDS = 3600.0

CONCURRENT_LOOKUPS = 8
"""How many tables are asked about at a time."""

_MAX_THREADS = 64
_LONG_ACTIONS = frozenset({"datom.prefetch", "datom.validate", "datom.write_set"})


class Calls:
    """Makes calls with one credential. Safe to use from many threads.

    Args:
        timeout: seconds for each call; None is `ACTION_SECONDS`, and `STREAM_SECONDS` for streams.

    Attributes:
        timeout: the same.

    Raises:
        InvalidRequestError: ``invalid_argument`` when `timeout` is not a number above 0.
    """

    def __init__(self, replicas: Replicas, credential: Credential, timeout: float | None = None) -> None:
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
            raise InvalidRequestError(f'timeout "{timeout}" is not a number of seconds above 0')
        self.replicas = replicas
        self.replicas.authorisation.token = credential.token
        self._credential = credential
        self.timeout = timeout
        self._answered = False
        # pyarrow's calls cannot be interrupted: those of the main thread, which Ctrl-C goes to, run in others.
        self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="datom-flight")

    def authorised_by(self, credential: Credential) -> Calls:
        """The same calls with another credential; closing either closes both.

        Calls that others make with lent clients carry the new one.
        """
        other = copy(self)
        other._credential = credential
        self.replicas.authorisation.token = credential.token
        return other

    def token(self) -> str | None:
        """The token that a call would carry now; None is none. Raises what asking for one raises."""
        return self._credential.token()

    def close(self) -> None:
        """Refuse calls from now on, and fail the reads under way."""
        self.replicas.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def action(self, name: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The results of an action, in order. Raises `DatomError` of any code.

        Entries of `body` that are None are left out.
        """
        return [decode_answer(answer, name) for answer in self._results(name, body)]

    def listing(self, name: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """As `action`, for one whose results are the rows of a listing: quicker where there are many."""
        answers = self._results(name, body, [(RESULTS_HEADER.encode(), PACKED.encode())])
        return _understood(unpack, answers, name)

    def flight_info(self, command: bytes, seconds: float = ACTION_SECONDS) -> fl.FlightInfo:
        """What the server has for `command`. Raises `DatomError` of any code."""
        descriptor = fl.FlightDescriptor.for_command(command)
        return self.retried(
            lambda: self.attempt(lambda replica, options: replica.client.get_flight_info(descriptor, options), seconds)
        )

    def attempt(
        self,
        call: Callable[[Replica, fl.FlightCallOptions], T],
        seconds: float,
        replica: Replica | None = None,
        headers: Headers = (),
    ) -> T:
        """What `call` gives, tried once; a second time with a new token if the first one had expired.

        Args:
            call: makes one call of pyarrow's.
            seconds: its deadline, unless the connection has one for all calls.
            replica: the server to use; None is the current one.
            headers: sent besides the connection's own.
        """
        token = self._credential.token()
        try:
            return self._attempt(call, seconds, replica, headers, token)
        except AuthenticationError:
            if not self._credential.refused(token):
                raise
        return self._attempt(call, seconds, replica, headers, self._credential.token())

    def retried(
        self,
        attempt: Callable[[], T],
        progressed: Callable[[], bool] = lambda: False,
        servers: int = 1,
        seconds: float = ACTION_SECONDS,
    ) -> T:
        """What `attempt` gives, tried again as `Attempts` says.

        Args:
            progressed: whether the last attempt got somewhere.
            servers: how many the attempts go to, where those are more than the connection's own.
            seconds: the deadline of all attempts together, unless the connection has one for all calls.
        """
        servers = max(servers, len(self.replicas.urls))
        found = Attempts(servers, self.timeout or seconds, self._answered, progressed).make(attempt)
        self._answered = True
        return found

    def _results(self, name: str, body: Mapping[str, Any], headers: Headers = ()) -> list[bytes]:
        action = fl.Action(name, encode_request(body, name))

        def call(replica: Replica, options: fl.FlightCallOptions) -> list[bytes]:
            return [result.body.to_pybytes() for result in replica.client.do_action(action, options)]

        seconds = STREAM_SECONDS if name in _LONG_ACTIONS else ACTION_SECONDS
        return self.retried(lambda: self.attempt(call, seconds, headers=headers), seconds=seconds)

    def _attempt(
        self,
        call: Callable[[Replica, fl.FlightCallOptions], T],
        seconds: float,
        replica: Replica | None,
        headers: Headers,
        token: str | None,
    ) -> T:
        replica = replica or self.replicas.current()
        # in the call's own options: a middleware would call back into Python four times
        own = {**authorised(token), **self.replicas.headers}
        sent = [*((name.encode(), value.encode()) for name, value in own.items()), *headers]
        options = fl.FlightCallOptions(timeout=self.timeout or seconds, headers=sent)
        # Raised outside the handlers: as a context, Flight's error would keep its frames and their batches alive.
        try:
            return self._interruptible(partial(call, replica, options))
        except DatomError as error:
            failure = error
        except TRANSPORT_ERRORS as error:
            failure = to_datom_error(error, replica.url)
        if failure.retryable:
            self.replicas.leave(replica)
        raise failure

    def _interruptible(self, call: Callable[[], T]) -> T:
        """What `call` gives; Ctrl-C ends the wait for it at once."""
        if threading.current_thread() is not threading.main_thread():
            if self.replicas.closed:
                raise closed_error()
            return call()
        try:
            running = self._threads.submit(call)
        except RuntimeError:
            # closed since the call began
            raise closed_error() from None
        try:
            return running.result()
        except CancelledError:
            raise closed_error() from None


def concurrently(function: Callable[[T], U], items: Iterable[T], most: int) -> list[U]:
    """What `function` gives for each item, in order, so many at a time. A failure does not wait for the others."""
    threads = ThreadPoolExecutor(most)
    try:
        return list(threads.map(function, items))
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def encode_request(body: Mapping[str, Any], what: str) -> bytes:
    """`body` as JSON, entries that are None left out.

    Raises:
        InvalidRequestError: ``invalid_argument``: it holds a value that JSON does not have.
    """
    try:
        return encode_object({key: value for key, value in body.items() if value is not None})
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise InvalidRequestError(f"{what} cannot be sent as JSON: {reason}", hint="give texts, numbers, lists and dicts")


def decode_answer(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object that a server sent.

    Raises:
        InternalError: it is something else.
    """
    return _understood(decode_object, data, what)


def _understood(decode: Callable[[U, str], T], answer: U, what: str) -> T:
    try:
        return decode(answer, f"the answer to {what}")
    except DatomError as error:
        reason = error.message
    raise InternalError(reason, hint="client and server may be of different releases")
