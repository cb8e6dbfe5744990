"""What any answer of the server to a plain Flight client may be, and what none may hold."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight

from datom_flight.protocol.errors import CODES, DatomError

from .server import SECRET, Server

# What a Python server lets slip when an error leaves it unguarded.
_SLIPS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|<frozen|<module>|line \d+, in |object at 0x|pyarrow\.lib|botocore|duckdb\."
)


def assert_reveals_nothing(text: str, server: Server) -> None:
    """Fail when `text`, an error as a client sees it, holds a traceback, a path on the server, or a secret."""
    slip = _SLIPS.search(text)
    assert slip is None, f"{slip.group() if slip else ''!r} in {text!r}"
    for folder in (str(server.config.parent), str(Path.home()), str(Path(__file__).parent.parent.parent)):
        assert folder not in text, f"a path in {text!r}"
    assert SECRET not in text
    assert "eyJ" not in text, f"a token in {text!r}"


def code_of(error: BaseException) -> str:
    """The code that a Flight error carries, which must be one of ours.

    Where Flight can carry no details (an unimplemented call, GetSchema), the text alone says it.
    """
    details = getattr(error, "extra_info", None)
    if details:
        known = DatomError.from_json(details)
        assert known is not None, f"no details of ours in {error!r}"
        assert known.code in CODES
        assert known.message
        return known.code
    words: list[str] = [word for word in re.findall(r"(?:^|[:\]] )([a-z_]+)(?=: )", str(error)) if word in CODES]
    assert words, f"no code in {error!r}"
    return words[0]


FLIGHT_ERRORS = (flight.FlightError, pa.ArrowException, OSError)
"""What pyarrow raises for an answer that is an error; of GetSchema, a plain `ArrowException`."""
