"""Whether the Flight port still answers: the server calls itself, again and again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pyarrow as pa
import pyarrow.flight as fl

EVERY_SECONDS = 5.0
CALL_SECONDS = 5.0
SILENT_SECONDS = 20.0
"""Without an answer for so long, the port is dead; a machine that is only busy answers sooner."""


class Pulse:
    """Calls a Flight server in a thread of its own, from `start` until `close`.

    Any answer will do, a refusal for want of a token included: it has passed all that a caller's request passes before
    it is looked at. A call that hangs is noticed too, since `beats` looks only at when the last answer came.

    Args:
        url: of the server; its certificate is not looked at.
        silent_seconds: without an answer, after which it does not beat any more.

    Attributes:
        request_id: what the calls are named, so that the server can tell its own. Nobody else knows it.
    """

    def __init__(
        self,
        url: str,
        silent_seconds: float = SILENT_SECONDS,
        every_seconds: float = EVERY_SECONDS,
        call_seconds: float = CALL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self.request_id = os.urandom(16).hex()
        self._silent_seconds = silent_seconds
        self._every_seconds = every_seconds
        self._call_seconds = call_seconds
        self._clock = clock
        self._answered = clock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    @property
    def silence(self) -> float:
        """Seconds since the last answer, or since this was made."""
        return self._clock() - self._answered

    @property
    def beats(self) -> bool:
        """Whether there was an answer lately."""
        return self.silence <= self._silent_seconds

    def problems(self) -> list[str]:
        """That it does not beat, in a sentence."""
        return [] if self.beats else [f"the Flight port has not answered for {self.silence:.0f} seconds"]

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def close(self) -> None:
        """End calling; a call under way is left to its deadline."""
        self._closed.set()

    def _run(self) -> None:
        options = fl.FlightCallOptions(
            timeout=self._call_seconds, headers=[(b"x-request-id", self.request_id.encode())]
        )
        with fl.FlightClient(self._url, disable_server_verification=True) as client:
            while not self._closed.is_set():
                if _is_answered(client, options):
                    self._answered = self._clock()
                self._closed.wait(self._every_seconds)


def _is_answered(client: fl.FlightClient, options: fl.FlightCallOptions) -> bool:
    try:
        list(client.list_actions(options))
    except fl.FlightError as error:
        # what is refused with details, the server itself refused
        return bool(error.extra_info)
    except pa.ArrowException:
        return False
    return True
