"""What clients of S3 take from the settings, and else from the AWS configuration that boto3 finds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from datom_flight.protocol.errors import DatomError
from datom_flight_server.model import S3Access
from datom_flight_server.storage.deadlines import Deadlines
from datom_flight_server.storage.s3 import S3Store
from datom_flight_server.storage.s3_clients import S3Clients
from support.faulty import Fault, FaultyProxy, faulty_proxy
from support.s3 import ACCESS_KEY, SECRET_KEY, S3Server, serving_s3

BUCKET = "credentials"
KEY = "dm/a1b2c3.parquet"
DATA = b"PAR1 and so on"


@pytest.fixture(scope="module")
def server(s3: S3Server) -> S3Server:
    path = s3.bucket(BUCKET) / "datom" / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    return s3


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(server.url) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing in the environment, the files or the network says anything about S3 yet."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return monkeypatch


def store_at(access: S3Access) -> S3Store:
    return S3Store(BUCKET, "", access)


def assert_all_is_read(store: S3Store) -> None:
    assert store.read(KEY).data == DATA
    assert b"".join(store.chunks(KEY)) == DATA


def assert_all_is_denied(store: S3Store) -> None:
    for call in (lambda: store.read(KEY), lambda: list(store.chunks(KEY))):
        with pytest.raises(DatomError) as caught:
            call()
        assert caught.value.code == "access_denied", caught.value
        assert SECRET_KEY not in str(caught.value)


def test_keys_of_the_settings_come_before_the_environment(server: S3Server, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", "AKIANOTKNOWNTOTHIS01")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "made-up-and-not-for-this-server")
    assert_all_is_read(store_at(server.access))


def test_the_environment_gives_what_the_settings_leave_out(server: S3Server, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    environment.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    environment.setenv("AWS_ENDPOINT_URL_S3", server.url)
    assert_all_is_read(store_at(S3Access()))


def test_no_credentials_at_all_are_denied_until_there_are_some(
    server: S3Server, environment: pytest.MonkeyPatch
) -> None:
    store = store_at(replace(server.access, access_key=None, secret_key=None))
    assert_all_is_denied(store)
    environment.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    assert_all_is_read(store)


@pytest.mark.parametrize("missing", ["access_key", "secret_key"])
def test_half_a_pair_of_keys_is_denied(server: S3Server, environment: pytest.MonkeyPatch, missing: str) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    assert_all_is_denied(store_at(replace(server.access, **{missing: None})))


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
    assert_all_is_read(store)
    issue("made-up-and-not-for-this-server", "second")
    assert_all_is_denied(store)
    issue(SECRET_KEY, "third")
    assert_all_is_read(store)
    sent = [headers["x-amz-security-token"] for headers in proxy.headers]
    assert list(dict.fromkeys(sent)) == ["first", "second", "third"]


def test_an_endpoint_that_is_no_url_is_unreachable(server: S3Server) -> None:
    store = store_at(replace(server.access, endpoint="127.0.0.1:9000"))
    for call in (lambda: store.read(KEY), lambda: list(store.chunks(KEY))):
        with pytest.raises(DatomError, match="endpoint is not a URL") as caught:
            call()
        assert caught.value.code == "store_unreachable"


def test_the_proxy_of_the_environment_is_used_unless_the_host_is_exempt(
    server: S3Server, proxy: FaultyProxy, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("HTTP_PROXY", proxy.url)
    assert_all_is_read(store_at(server.access))
    assert [request.split()[0] for request in proxy.requests] == ["GET", "GET", "HEAD"]
    environment.setenv("NO_PROXY", "127.0.0.1")
    proxy.requests.clear()
    assert_all_is_read(store_at(server.access))
    assert proxy.requests == []


def test_the_addressing_style_of_the_configuration_file_is_used(
    server: S3Server, proxy: FaultyProxy, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The proxy sees each URL in full, and stands in for the name service.
    environment.setenv("HTTP_PROXY", proxy.url)
    proxy.inject(Fault(status=403))
    access = replace(server.access, endpoint="http://s3.example:9000")
    assert_all_is_denied(store_at(access))
    assert {request.split()[1] for request in proxy.requests} == {f"http://s3.example:9000/{BUCKET}/datom/{KEY}"}
    config = tmp_path / "config"
    config.write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    environment.setenv("AWS_CONFIG_FILE", str(config))
    proxy.requests.clear()
    assert_all_is_denied(store_at(access))
    assert {request.split()[1] for request in proxy.requests} == {f"http://{BUCKET}.s3.example:9000/datom/{KEY}"}


def test_a_certificate_is_trusted_when_the_configuration_names_its_authority(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    with serving_s3(tmp_path / "tls", "--cert", str(certificate), "--key", str(key)) as server:
        (server.bucket(BUCKET) / "datom" / "dm").mkdir(parents=True)
        (server.bucket(BUCKET) / "datom" / KEY).write_bytes(DATA)
        assert server.url.startswith("https://")
        store = S3Store(BUCKET, "", server.access, S3Clients(Deadlines(attempts=1)))
        for call in (lambda: store.read(KEY), lambda: list(store.chunks(KEY))):
            with pytest.raises(DatomError) as caught:
                call()
            assert caught.value.code == "store_unreachable"
        environment.setenv("AWS_CA_BUNDLE", str(certificate))
        assert_all_is_read(store_at(server.access))


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths
