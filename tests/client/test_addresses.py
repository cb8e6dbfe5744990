"""URLs that `connect` takes."""

from __future__ import annotations

import pytest

from datom_flight import DatomError
from datom_flight.addresses import parse_urls


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("grpc://127.0.0.1:8815", ["grpc://127.0.0.1:8815"]),
        ("GRPC+TLS://Datom.Example.ORG:443/", ["grpc+tls://datom.example.org:443"]),
        ("grpc://datom.example.org", ["grpc://datom.example.org:8815"]),
        ("grpc://[::1]:9", ["grpc://[::1]:9"]),
        ("grpc://a:1, grpc://b:2,grpc://a:1,", ["grpc://a:1", "grpc://b:2"]),
    ],
)
def test_urls_have_one_normal_form(given: str, normal: list[str]) -> None:
    assert parse_urls(given) == normal


@pytest.mark.parametrize(
    "given",
    ["", ",", "127.0.0.1:8815", "http://a:1", "grpc://", "grpc://:1", "grpc://a:port", "grpc://a:1/x", "grpc://a b:1"],
)
def test_what_is_no_url_of_a_server_is_refused(given: str) -> None:
    with pytest.raises(DatomError) as caught:
        parse_urls(given)
    assert caught.value.code == "invalid_argument"
    assert "grpc://127.0.0.1:8815" in caught.value.hint


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(DatomError) as caught:
        parse_urls("grpc://ann:s3cret@host:1")
    assert "s3cret" not in str(caught.value)
