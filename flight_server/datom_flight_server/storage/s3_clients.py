"""Clients of S3: boto3's, whose session finds region, endpoint, credentials, proxy and certificates."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import NoCredentialsError

from datom_flight.protocol.errors import DatomError

from ..model import S3Access
from .deadlines import Deadlines

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

POOLED_CONNECTIONS = 128
_RANGES_AHEAD = 8


class S3Clients:
    """Clients that stores share: one for each way of access and each patience, built when first needed.

    Safe in many threads. Looking for credentials in boto3's ordinary chain may ask the network; it has a session of
    its own, so that stores whose keys are given never wait for it.

    Every method raises what boto3 raises when there are no credentials (the next call looks again), or they are not
    a pair.

    Attributes:
        retries: how often stores sent a request again.
        places_ahead: for ranges of large objects that are fetched before they are needed.
    """

    def __init__(self, deadlines: Deadlines | None = None) -> None:
        self.deadlines = deadlines or Deadlines()
        self.retries = 0
        self.places_ahead = threading.BoundedSemaphore(_RANGES_AHEAD)
        self._with_keys = _Session()
        self._with_chain = _Session()
        self._built: dict[tuple[S3Access, float], S3Client] = {}

    def reading(self, access: S3Access) -> S3Client:
        """The client. It sends each request once: only the caller sees bodies fail, and knows the deadline."""
        return self._client(access, self.deadlines.read_seconds)

    def writing(self, access: S3Access) -> S3Client:
        """The same for requests that store something, which the storage may take longer to answer."""
        return self._client(access, self.deadlines.write_silence_seconds)

    def count_retry(self, *_: object) -> None:
        """A request is about to be sent again."""
        self.retries += 1

    def _client(self, access: S3Access, silence_seconds: float) -> S3Client:
        known = access, silence_seconds
        if known not in self._built:
            home = self._with_chain if access.access_key is None else self._with_keys
            with home.lock:
                if known not in self._built:
                    self._built[known] = self._build(home.session, access, silence_seconds)
        return self._built[known]

    def _build(self, session: boto3.Session, access: S3Access, silence_seconds: float) -> S3Client:
        if access.access_key is None and session.get_credentials() is None:
            raise NoCredentialsError  # a client made without would never look for them again
        try:
            return session.client(
                "s3",
                region_name=access.region,
                endpoint_url=access.endpoint,
                aws_access_key_id=access.access_key,
                aws_secret_access_key=access.secret_key,
                config=Config(
                    connect_timeout=self.deadlines.connect_seconds,
                    read_timeout=silence_seconds,
                    max_pool_connections=POOLED_CONNECTIONS,
                    retries={"total_max_attempts": 1},
                    # a checksum that the storage repeats with a 304, which has no body, makes botocore fail; what is
                    # put carries Content-MD5, and what is read is hashed
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except ValueError:
            raise DatomError.of(
                "store_unreachable", "the S3 endpoint is not a URL", hint="write it like http://127.0.0.1:9000"
            ) from None


class _Session:
    """A boto3 session, made when first used, and the lock to use it under: sessions are not safe in many threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    @cached_property
    def session(self) -> boto3.Session:
        return boto3.Session()
