"""What the errors of boto3 mean."""

from __future__ import annotations

import botocore.exceptions as aws
from urllib3.exceptions import HTTPError

_THROTTLED = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout"})
_DAMAGED_UNDER_WAY = frozenset({"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"})
_CLOCK = "RequestTimeTooSkewed"
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"})
_NO_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.TokenRetrievalError,
    aws.NoAuthTokenError,
    aws.SSOError,
    aws.ProfileNotFound,
)
_TIMEOUTS = (TimeoutError, aws.ReadTimeoutError, aws.ConnectTimeoutError)
_INTERRUPTED = (aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError, aws.FlexibleChecksumError, HTTPError)
FAILURES = (aws.BotoCoreError, aws.ClientError, HTTPError, OSError)
"""What boto3 raises, and what it lets through of urllib3 where the body of a refusal breaks off."""


def meaning(error: Exception) -> tuple[str, str]:
    """The code, and the words that follow "object …" or "bucket …"; ``not_found`` may mean the bucket too."""
    if isinstance(error, _TIMEOUTS):
        return "timeout", "did not answer in time"
    if isinstance(error, _NO_CREDENTIALS):
        return "access_denied", "needs credentials, and the server has no valid ones"
    name = name_of(error)
    if name == "NoSuchUpload":
        return "store_unreachable", "lost its upload, or the answer that it was complete"
    if isinstance(error, FileNotFoundError) or status_of(error) == 404:
        return "not_found", "does not exist"
    if name == _CLOCK:
        return "access_denied", f"refuses the server's clock, which is minutes off ({name})"
    if status_of(error) in {401, 403} or name in _EXPIRED:
        return "access_denied", f"is closed to the server's credentials ({name})"
    return "store_unreachable", f"could not be reached ({name})"


def is_passing(error: BaseException) -> bool:
    """Whether the same request may well succeed if sent again at once."""
    if isinstance(error, aws.ClientError):
        return status_of(error) in {429, 500, 502, 503, 504} or name_of(error) in _THROTTLED | _DAMAGED_UNDER_WAY
    return isinstance(error, _INTERRUPTED)


def status_of(error: BaseException) -> int | None:
    if not isinstance(error, aws.ClientError):
        return None
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")


def name_of(error: BaseException) -> str:
    """What the service or boto3 calls the error; never its text, which names the host."""
    if isinstance(error, aws.ClientError):
        return error.response.get("Error", {}).get("Code", "unknown")
    return type(error).__name__
