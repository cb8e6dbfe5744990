"""The one tree of errors, and its form on the wire.

Every refusal, on either side, is a `DatomError` with a ``code`` from `CODES`. The server sends it as the
``extra_info`` of a Flight error (JSON: ``code``, ``message``, ``hint``, ``fields``, ``request_id``); the client
turns that back into the same class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple


class DatomError(Exception):
    """A refusal or failure, with what to do about it.

    Attributes:
        code: one of `CODES`; stable, made for programs.
        message: what went wrong, in one line.
        hint: what to do about it, in one line; may be empty.
        fields: details by name (for example ``current`` of a `ConflictError`).
        request_id: names the request in the server's log; None if no server was involved.
    """

    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        fields: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        self.code = code or self.default_code
        self.message = message
        self.hint = CODES[self.code].hint if hint is None and self.code in CODES else (hint or "")
        self.fields: dict[str, Any] = dict(fields or {})
        self.request_id = request_id
        super().__init__(message)

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        if self.hint:
            text += f" ({self.hint})"
        if self.request_id:
            text += f" [request {self.request_id}]"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process pools; keyword arguments need telling how.
        return _rebuild, (type(self), self.to_dict())

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later without anybody changing anything."""
        return self.code in CODES and CODES[self.code].retryable

    def to_dict(self) -> dict[str, Any]:
        """The wire form, as a dict with the five attributes."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "fields": self.fields,
            "request_id": self.request_id,
        }

    def to_json(self) -> bytes:
        """The wire form, as UTF-8 JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, default=str).encode()

    @classmethod
    def of(cls, code: str, message: str, **details: Any) -> DatomError:
        """The error class that `code` belongs to, made with `message`.

        An unknown code (a newer server's) gives a plain `DatomError` that keeps it.
        """
        kind = CODES[code].kind if code in CODES else DatomError
        return kind(message, code=code, **details)

    @classmethod
    def from_json(cls, data: bytes) -> DatomError | None:
        """The error that `to_json` wrote, or None when `data` is something else."""
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(body, dict) or not isinstance(body.get("code"), str):
            return None
        fields = body.get("fields")
        request_id = body.get("request_id")
        return cls.of(
            body["code"],
            str(body.get("message", "")),
            hint=str(body.get("hint") or ""),
            fields=fields if isinstance(fields, dict) else {},
            request_id=request_id if isinstance(request_id, str) else None,
        )

    def with_request_id(self, request_id: str) -> DatomError:
        """A copy of this error that names the request it answers; requests may share the original."""
        return _rebuild(type(self), {**self.to_dict(), "request_id": request_id})


def _rebuild(kind: type[DatomError], body: dict[str, Any]) -> DatomError:
    return kind(
        body["message"],
        code=body["code"],
        hint=body["hint"],
        fields=body["fields"],
        request_id=body["request_id"],
    )


class NotFoundError(DatomError):
    """What was named does not exist, or the caller may not see it."""

    default_code = "not_found"


class VersionError(NotFoundError):
    """No version, or more than one, answers to the name given."""

    default_code = "version_not_found"


class InvalidRequestError(DatomError):
    """The request itself is wrong; sending it again changes nothing."""

    default_code = "invalid_argument"


class StoredDataError(DatomError):
    """What is stored is damaged, or not in a form this release reads."""

    default_code = "metadata_corrupt"


class IntegrityError(StoredDataError):
    """Bytes differ from the hash that names them. Nothing of them was used."""

    default_code = "integrity_mismatch"


class AuthenticationError(DatomError):
    """The caller is not known."""

    default_code = "unauthenticated"


class PermissionDeniedError(DatomError):
    """The caller is known and may not do this."""

    default_code = "permission_denied"


class ConflictError(DatomError):
    """Somebody else wrote first; ``fields["current"]`` is the version they wrote."""

    default_code = "conflict"


class UnavailableError(DatomError):
    """The server, or something it needs, cannot answer now."""

    default_code = "unavailable"


class InternalError(DatomError):
    """A fault of the server's own."""

    default_code = "internal"


class Code(NamedTuple):
    """What a code means: its class, a sentence, what to do unless the error says better, and whether to retry."""

    kind: type[DatomError]
    meaning: str
    hint: str = ""
    retryable: bool = False


CODES: Mapping[str, Code] = {
    "not_found": Code(
        NotFoundError,
        "no such project, table or stored object, or the caller may not see it",
        "list what you may see with `datom-flight projects` and `datom-flight tables`",
    ),
    "version_not_found": Code(
        VersionError,
        "no version of the table answers to that name or instant",
        "see `datom-flight history NAME`",
    ),
    "version_ambiguous": Code(
        VersionError, "several versions begin with that prefix", "give more digits of the version"
    ),
    "integrity_mismatch": Code(
        IntegrityError,
        "stored bytes differ from the hash recorded for them; nothing of them was served",
        "tell the data team: the stored object was altered or damaged",
    ),
    "schema_unsupported": Code(
        StoredDataError,
        "a stored document declares a newer format than this server reads",
        "upgrade the server",
    ),
    "schema_invalid": Code(
        StoredDataError,
        "a stored document's schema_version is not a whole number from 1",
        "tell the data team: the document was damaged or edited by hand",
    ),
    "kind_mismatch": Code(
        InvalidRequestError,
        "a set was read as a table, or a table as a set",
        "read tables with `read`, sets with `set`",
    ),
    "metadata_corrupt": Code(
        StoredDataError, "a stored document lacks a field that every writer records", "tell the data team"
    ),
    "document_unreadable": Code(
        StoredDataError, "a stored document is not JSON of the expected shape", "tell the data team"
    ),
    "document_sha_missing": Code(
        StoredDataError,
        "a set's metadata records no document_sha, so it cannot be verified",
        "tell the data team",
    ),
    "set_payload_malformed": Code(
        StoredDataError, "a set's stored members are not a list of records", "tell the data team"
    ),
    "set_member_malformed": Code(StoredDataError, "a member of a stored set has no usable id", "tell the data team"),
    "member_not_found": Code(
        NotFoundError, "the set has no such member", "see the set's members with `conn.set(name)`"
    ),
    "member_ambiguous": Code(
        NotFoundError, "several members of the set answer to that name", "narrow it by `tags` or `version`"
    ),
    "member_kind_unknown": Code(
        StoredDataError, "a member is of a kind this release does not know", "upgrade the client"
    ),
    "member_project_mismatch": Code(
        NotFoundError,
        "a member belongs to another project and could not be read",
        "ask for access to that project",
    ),
    "invalid_name": Code(
        InvalidRequestError,
        "not a name that datom writes",
        "names start with a letter and hold letters, digits, spaces and _ ( ) -, at most 128",
    ),
    "invalid_address": Code(
        StoredDataError,
        "a recorded data address is not 6 to 64 hex digits",
        "tell the data team: do not trust the document",
    ),
    "invalid_argument": Code(InvalidRequestError, "an argument is missing, unknown or of the wrong form"),
    "access_denied": Code(
        UnavailableError, "the storage refused the server's own credentials", "tell whoever runs the server"
    ),
    "store_unreachable": Code(
        UnavailableError,
        "the project's storage or repository cannot be reached",
        "try again later",
        retryable=True,
    ),
    "manifest_unreadable": Code(
        StoredDataError, "the project's manifest is missing or damaged", "tables can still be read by name"
    ),
    "unauthenticated": Code(
        AuthenticationError,
        "no valid token came with the request",
        "run `datom-flight login URL`, or set DATOM_FLIGHT_TOKEN to a valid token",
    ),
    "permission_denied": Code(
        PermissionDeniedError, "the token's role does not allow this", "ask for a token with the role needed"
    ),
    "conflict": Code(
        ConflictError,
        "the table moved on since the expected version",
        "read the current version, then write again",
    ),
    "not_hashable": Code(
        InvalidRequestError, "columns are of types that datom cannot hash", "cast or drop the columns named"
    ),
    "too_large": Code(InvalidRequestError, "the request or its result is over a limit", "ask for less at once"),
    "sql_error": Code(InvalidRequestError, "the SQL cannot be run"),
    "overloaded": Code(UnavailableError, "the server is at a limit", "wait, then try again", retryable=True),
    "unavailable": Code(
        UnavailableError, "the server cannot be reached or is stopping", "try again later", retryable=True
    ),
    "mirror_pending": Code(
        UnavailableError,
        "the version is committed but not mirrored to storage yet",
        "try again later",
        retryable=True,
    ),
    "timeout": Code(UnavailableError, "no answer within the deadline", "try again, or allow more time", retryable=True),
    "cancelled": Code(UnavailableError, "the request was cancelled"),
    "truncated": Code(
        UnavailableError,
        "the stream ended before its end record; the rows were dropped",
        "try again",
        retryable=True,
    ),
    "unsupported": Code(InvalidRequestError, "this server does not do that"),
    "internal": Code(InternalError, "a fault of the server's own", "report it with the request id"),
}
