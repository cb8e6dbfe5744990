"""Names of projects, tables and versions, and instants: what is well formed.

The rules are the storage format's own. Both sides check before a name goes anywhere near a path or a key.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time

from .errors import InvalidRequestError

MAX_NAME_LENGTH = 128
RESERVED_NAMES = frozenset({".metadata", ".datom", "input_files", "datom", ".git", ".gitignore", "renv"})

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_ ()-]*")
_FULL_VERSION = re.compile(r"[0-9a-f]{64}")


def validate_name(name: object, what: str = "table") -> str:
    """`name`, if it is one that datom writes.

    Raises:
        InvalidRequestError: ``invalid_name``, saying which rule it breaks.
    """

    def refuse(why: str) -> InvalidRequestError:
        return InvalidRequestError(f"{what} name {_quoted(name)} {why}", code="invalid_name")

    if not isinstance(name, str) or not name:
        raise refuse("is not a text of at least one character")
    if len(name) > MAX_NAME_LENGTH:
        raise refuse(f"has {len(name)} characters, at most {MAX_NAME_LENGTH} are allowed")
    if not _NAME.fullmatch(name):
        raise refuse("holds a character that names do not have")
    if name.lower() in RESERVED_NAMES:
        raise refuse("is reserved")
    return name


def is_full_version(version: str) -> bool:
    """Whether `version` is a whole version id, 64 hex digits, and not a prefix of one."""
    return _FULL_VERSION.fullmatch(version) is not None


def parse_instant(text: str) -> datetime:
    """The instant that an ``as_of`` text names, in UTC.

    A time without a zone is UTC; a bare date means the last microsecond of that day, UTC.

    Raises:
        InvalidRequestError: ``invalid_argument`` when it is not ISO 8601.
    """
    try:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            instant = datetime.fromisoformat(text)
        else:
            instant = datetime.combine(day, time.max)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequestError(
            f"as_of {_quoted(text)} is not an ISO 8601 date or time",
            hint='write it like "2026-01-15" or "2026-01-15T12:00:00Z"',
        ) from None


def format_instant(value: str | date | datetime) -> str:
    """`value` as an ``as_of`` text. A naive datetime means UTC; a date stays a date.

    Raises:
        InvalidRequestError: ``invalid_argument`` when it is neither, or a text that is not ISO 8601.
    """
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if not isinstance(value, str):
        raise InvalidRequestError(f"as_of takes a date, a datetime or ISO 8601 text, not {type(value).__name__}")
    parse_instant(value)
    return value


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    shown = text if len(text) <= 80 else text[:77] + "..."
    return '"' + shown.encode("unicode_escape").decode("ascii") + '"'
