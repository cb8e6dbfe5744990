"""The two clients of S3: boto3 for control requests, pyarrow's C++ file system for bulk bytes.

Both get region, endpoint, credentials, proxy and certificates from one place, boto3's session, so that whatever the
AWS configuration says holds for both.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import pyarrow.fs
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError
from botocore.httpsession import ProxyConfiguration
from botocore.session import Session
from botocore.utils import get_environ_proxies

from datom_flight.protocol.errors import DatomError

from ..model import S3Access
from .deadlines import Deadlines

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

POOLED_CONNECTIONS = 128


class S3Clients:
    """Clients that stores share: one of each kind for each way of access, built when first needed.

    Safe in many threads. Looking for credentials in boto3's ordinary chain may ask the network; it has a session of
    its own, so that stores whose keys are given never wait for it.

    Every method raises what boto3 and pyarrow raise when there are no credentials (the next call looks again), or
    they are not a pair.

    Attributes:
        retries: how often stores sent a control request again.
    """

    def __init__(self, deadlines: Deadlines | None = None) -> None:
        self.deadlines = deadlines or Deadlines()
        self.retries = 0
        self._with_keys = _Session()
        self._with_chain = _Session()
        self._chain: Credentials | None = None
        self._control: dict[tuple[S3Access, float], S3Client] = {}
        self._bulk: dict[tuple[S3Access, str], tuple[ReadOnlyCredentials, Any]] = {}

    def control(self, access: S3Access) -> S3Client:
        """The boto3 client. It sends each request once: only the caller sees bodies fail, and knows the deadline."""
        return self._boto(access, self.deadlines.read_seconds)

    def writing(self, access: S3Access) -> S3Client:
        """The same for requests that store something, which the storage may take longer to answer."""
        return self._boto(access, self.deadlines.write_silence_seconds)

    def bulk(self, access: S3Access, bucket: str) -> Any:
        """The ``pyarrow.fs.S3FileSystem`` for `bucket`, another one each time the credentials have been renewed."""
        client = self.control(access)
        credentials = self._credentials(access)
        known = self._bulk.get((access, bucket))
        if known is None or known[0] != credentials:
            known = credentials, self._build_bulk(client, access, bucket, credentials)
            self._bulk[access, bucket] = known
        return known[1]

    def count_retry(self, *_: object) -> None:
        """A request is about to be sent again."""
        self.retries += 1

    def _boto(self, access: S3Access, silence_seconds: float) -> S3Client:
        known = access, silence_seconds
        if known not in self._control:
            home = self._home(access)
            with home.lock:
                if known not in self._control:
                    self._control[known] = self._build_control(home.session, access, silence_seconds)
        return self._control[known]

    def _home(self, access: S3Access) -> _Session:
        return self._with_chain if access.access_key is None else self._with_keys

    def _credentials(self, access: S3Access) -> ReadOnlyCredentials:
        if access.access_key is not None and access.secret_key is not None:
            return ReadOnlyCredentials(access.access_key, access.secret_key, None)
        assert self._chain is not None  # the client could not have been built
        return self._chain.get_frozen_credentials()

    def _build_control(self, session: boto3.Session, access: S3Access, silence_seconds: float) -> S3Client:
        if access.access_key is None:
            # A client made without credentials would never look for them again.
            self._chain = session.get_credentials()
            if self._chain is None:
                raise NoCredentialsError
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

    def _build_bulk(self, client: S3Client, access: S3Access, bucket: str, credentials: ReadOnlyCredentials) -> Any:
        url, region = client.meta.endpoint_url, client.meta.region_name
        endpoint = urlsplit(url)
        on_aws = endpoint.hostname in {
            "s3.amazonaws.com",
            f"s3.{region}.amazonaws.com",
            f"s3.{region}.amazonaws.com.cn",
        }
        if endpoint.hostname == "s3.amazonaws.com" and not access.region:
            # boto3 follows redirects to the bucket's region, the C++ client does not.
            region = pyarrow.fs.resolve_s3_region(bucket)
        addressing = (client.meta.config.s3 or {}).get("addressing_style")  # type: ignore[attr-defined]
        return pyarrow.fs.S3FileSystem(
            access_key=credentials.access_key,
            secret_key=credentials.secret_key,
            session_token=credentials.token,
            region=region,
            scheme=endpoint.scheme,
            endpoint_override=None if on_aws else endpoint.netloc + endpoint.path.rstrip("/"),
            force_virtual_addressing=addressing == "virtual",
            proxy_options=ProxyConfiguration(get_environ_proxies(url)).proxy_url_for(url),
            tls_ca_file_path=self._home(access).core.get_config_variable("ca_bundle"),
            connect_timeout=self.deadlines.connect_seconds,
            request_timeout=self.deadlines.read_seconds,
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=self.deadlines.attempts),
        )


class _Session:
    """A boto3 session, made when first used, and the lock to use it under: sessions are not safe in many threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    @cached_property
    def core(self) -> Session:
        return Session()

    @cached_property
    def session(self) -> boto3.Session:
        return boto3.Session(botocore_session=self.core)
