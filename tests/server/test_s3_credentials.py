"""Where the credentials, region and endpoint of S3 come from: the settings, else what boto3 finds; for both clients."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight_server.model import S3Access
from datom_flight_server.storage.s3 import S3Store
from support.faulty import FaultyProxy, faulty_proxy
from support.s3 import ACCESS_KEY, SECRET_KEY, S3Server, serving_s3

BUCKET = "credentials"
KEY = "dm/a1b2c3.parquet"
DATA = b"PAR1 and so on"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving_s3(tmp_path_factory.mktemp("credentials")) as server:
        path = server.bucket(BUCKET) / "datom" / KEY
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA)
        yield server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(server.url) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing in the environment, the files or the network gives credentials yet."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return monkeypatch


def store_at(access: S3Access) -> S3Store:
    return S3Store(BUCKET, "", access)


def assert_both_clients_read(store: S3Store) -> None:
    assert store.read(KEY).data == DATA
    assert b"".join(store.chunks(KEY)) == DATA


def assert_both_clients_are_denied(store: S3Store) -> None:
    for call in (lambda: store.read(KEY), lambda: list(store.chunks(KEY))):
        with pytest.raises(DatomError) as caught:
            call()
        assert caught.value.code == "access_denied", caught.value
        assert SECRET_KEY not in str(caught.value)


def test_keys_of_the_settings_come_before_the_environment(server: S3Server, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", "AKIANOTKNOWNTOTHIS01")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "made-up-and-not-for-this-server")
    assert_both_clients_read(store_at(server.access))


def test_the_environment_gives_what_the_settings_leave_out(server: S3Server, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    environment.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    environment.setenv("AWS_ENDPOINT_URL_S3", server.url)
    assert_both_clients_read(store_at(S3Access()))


def test_no_credentials_at_all_are_denied_until_there_are_some(
    server: S3Server, environment: pytest.MonkeyPatch
) -> None:
    store = store_at(replace(server.access, access_key=None, secret_key=None))
    assert_both_clients_are_denied(store)
    environment.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    assert_both_clients_read(store)


@pytest.mark.parametrize("missing", ["access_key", "secret_key"])
def test_half_a_pair_of_keys_is_denied(server: S3Server, environment: pytest.MonkeyPatch, missing: str) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    assert_both_clients_are_denied(store_at(replace(server.access, **{missing: None})))


def test_credentials_that_expire_are_renewed_with_their_session_token(
    server: S3Server, proxy: FaultyProxy, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    issued = tmp_path / "issued.json"
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat {issued}\n")
    environment.setenv("AWS_CONFIG_FILE", str(config))

    def issue(secret: str, token: str) -> None:
        # So near its end that botocore asks for the next one at every use.
        end = datetime.now(UTC) + timedelta(minutes=5)
        keys = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": secret, "SessionToken": token}
        issued.write_text(json.dumps({"Version": 1, **keys, "Expiration": end.isoformat()}))

    store = store_at(S3Access(region="eu-central-1", endpoint=proxy.url))
    issue(SECRET_KEY, "first")
    assert_both_clients_read(store)
    issue("made-up-and-not-for-this-server", "second")
    assert_both_clients_are_denied(store)
    issue(SECRET_KEY, "third")
    assert_both_clients_read(store)
    for agent in ("Boto3", "aws-sdk-cpp"):
        sent = [headers["x-amz-security-token"] for headers in proxy.headers if agent in headers["user-agent"]]
        assert list(dict.fromkeys(sent)) == ["first", "second", "third"], agent
