"""Calls to the servers: with a deadline and the caller's token, retried where that can help, failing as DatomError."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Any, TypeVar

import pyarrow.flight as fl
from tenacity import RetryCallState, Retrying, wait_random_exponential

from .credentials import Credential
from .failures import TRANSPORT_ERRORS, to_datom_error
from .protocol.errors import AuthenticationError, DatomError, InternalError, InvalidRequestError
from .protocol.listings import PACKED, RESULTS_HEADER, unpack
from .protocol.messages import decode_object, encode_object
from .replicas import Replica, Replicas

T = TypeVar("T")
U = TypeVar("U")

Headers = Sequence[tuple[bytes, bytes]]

ACTION_SECONDS = 30.0
STREAM_SECONDS = 300.0
WRITE_SECONDS = 3600.0

RETRY_SECONDS = 10.0
"""How long is waited, in all, between attempts of one call."""
BUSY_SECONDS = 60.0
"""How long for a server that is at a limit."""

CONCURRENT_LOOKUPS = 8
"""How many tables are asked about at a time."""

_MORE_ATTEMPTS = 4
_PASSING = frozenset({"unavailable", "store_unreachable", "mirror_pending"})
"""Codes of what comes back by itself: a server that restarts, a storage that cannot be reached for a moment."""
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
        # Calls run in threads of their own, because pyarrow's cannot be interrupted: Ctrl-C ends the wait at once.
        self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="datom-flight")

    def authorised_by(self, credential: Credential) -> Calls:
        """The same calls with another credential; closing either closes both.

        Calls that others make with the Flight clients carry the new one.
        """
        other = copy(self)
        other._credential = credential
        self.replicas.authorisation.token = credential.token
        return other

    def token(self) -> str | None:
        """The token that a call would carry now; None is none. Raises what asking for one raises."""
        return self._credential.token()

    def close(self) -> None:
        """Refuse calls from now on, and fail those under way."""
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
        """What `attempt` gives, tried again while its failure is of a retryable code, within the deadline.

        Other replicas are tried at once, the same one again after a pause. Pauses add up to `RETRY_SECONDS` at most; to
        `BUSY_SECONDS` where a server is ``overloaded``, which is asked when it says that there may be room. After a
        deadline that passed there is no other attempt, unless the last one had `progressed`. Before any server has
        answered there are only a few: the address may be wrong.

        Args:
            servers: how many the attempts go to, where those are more than the connection's own.
            seconds: the deadline of all attempts together, unless the connection has one for all calls.
        """
        replicas = max(servers, len(self.replicas.urls))
        jitter = wait_random_exponential(multiplier=0.1, max=2)

        def pause(state: RetryCallState) -> float:
            return 0 if state.attempt_number < replicas else _told_to_wait(state) + jitter(state)

        def again(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            if not isinstance(error, DatomError) or not error.retryable:
                return False
            if state.attempt_number < replicas:
                return True
            if error.code == "overloaded":
                most = min(BUSY_SECONDS, self.timeout or seconds)
                return state.idle_for + _told_to_wait(state) < most
            if state.attempt_number >= replicas + _MORE_ATTEMPTS and not (self._answered and error.code in _PASSING):
                return False
            in_time = state.idle_for < RETRY_SECONDS and (state.seconds_since_start or 0) < (self.timeout or seconds)
            return progressed() or (error.code != "timeout" and in_time)

        found = Retrying(retry=again, wait=pause)(attempt)
        self._answered = True
        return found

    def _results(self, name: str, body: Mapping[str, Any], headers: Headers = ()) -> list[bytes]:
        action = fl.Action(name, encode_request(body, name))

        def call(replica: Replica, options: fl.FlightCallOptions) -> list[bytes]:
            return [result.body.to_pybytes() for result in replica.client.do_action(action, options)]

        seconds = STREAM_SECONDS if name in _LONG_ACTIONS else ACTION_SECONDS
        return self.retried(lambda: self.attempt(call, seconds, headers=headers))

    def _attempt(
        self,
        call: Callable[[Replica, fl.FlightCallOptions], T],
        seconds: float,
        replica: Replica | None,
        headers: Headers,
        token: str | None,
    ) -> T:
        replica = replica or self.replicas.current()
        options = fl.FlightCallOptions(timeout=self.timeout or seconds, headers=headers)
        # Raised outside the handlers: as a context, Flight's error would keep its frames and their batches alive.
        try:
            return self._threads.submit(self._carrying, token, call, replica, options).result()
        except DatomError as error:
            failure = error
        except TRANSPORT_ERRORS as error:
            failure = to_datom_error(error, replica.url)
        if failure.retryable:
            self.replicas.leave(replica)
        raise failure

    def _carrying(
        self,
        token: str | None,
        call: Callable[[Replica, fl.FlightCallOptions], T],
        replica: Replica,
        options: fl.FlightCallOptions,
    ) -> T:
        with self.replicas.authorisation.carrying(token):
            return call(replica, options)


def _told_to_wait(state: RetryCallState) -> float:
    """The seconds after which the server that failed said there may be room."""
    error = state.outcome.exception() if state.outcome else None
    told = error.fields.get("retry_after_seconds") if isinstance(error, DatomError) else None
    return max(0.0, told) if isinstance(told, int | float) else 0.0


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
