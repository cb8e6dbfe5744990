"""The one tree of errors, and its way over the wire and back."""

from __future__ import annotations

import json
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datom_flight.protocol.errors import CODES, DatomError, InvalidRequestError, NotFoundError, VersionError

VOCABULARY = {
    "not_found", "version_not_found", "version_ambiguous", "integrity_mismatch", "schema_unsupported",
    "schema_invalid", "kind_mismatch", "metadata_corrupt", "document_unreadable", "document_sha_missing",
    "set_payload_malformed", "set_member_malformed", "member_not_found", "member_ambiguous", "member_kind_unknown",
    "member_project_mismatch", "invalid_name", "invalid_address", "invalid_argument", "access_denied",
    "store_unreachable", "manifest_unreadable", "unauthenticated", "permission_denied", "conflict", "not_hashable",
    "too_large", "sql_error", "overloaded", "unavailable", "mirror_pending", "timeout", "cancelled", "truncated",
    "unsupported", "internal",
}  # fmt: skip


def test_the_codes_are_the_vocabulary_that_datom_s_readers_share() -> None:
    assert set(CODES) == VOCABULARY


@pytest.mark.parametrize("code", sorted(CODES))
def test_an_error_crosses_the_wire_unchanged(code: str) -> None:
    sent = DatomError.of(code, 'no "x"', fields={"current": "ab"}, request_id="r1")
    received = DatomError.from_json(sent.to_json())
    assert received is not None
    assert type(received) is type(sent) is CODES[code].kind
    assert received.to_dict() == sent.to_dict()
    assert str(received) == str(sent)
    assert received.retryable is CODES[code].retryable


@pytest.mark.parametrize("code", sorted(CODES))
def test_an_error_crosses_processes_unchanged(code: str) -> None:
    sent = DatomError.of(code, "no", hint="do", request_id="r1")
    received = pickle.loads(pickle.dumps(sent))
    assert type(received) is type(sent)
    assert received.to_dict() == sent.to_dict()


def test_the_text_says_code_message_hint_and_request() -> None:
    error = DatomError.of("not_found", 'no project "X"', hint="ask", request_id="ab12")
    assert str(error) == 'not_found: no project "X" (ask) [request ab12]'
    assert str(DatomError("odd", hint="")) == "internal: odd"


def test_a_hint_of_its_own_replaces_the_code_s() -> None:
    assert VersionError("no").hint == CODES["version_not_found"].hint
    assert VersionError("no", hint="look").hint == "look"
    assert VersionError("no", hint="").hint == ""


def test_naming_the_request_leaves_the_original_alone() -> None:
    error = NotFoundError("no", fields={"a": 1})
    named = error.with_request_id("r1")
    assert (type(named), named.request_id, named.fields) == (NotFoundError, "r1", {"a": 1})
    assert error.request_id is None


def test_a_code_of_a_newer_server_is_kept() -> None:
    error = DatomError.from_json(b'{"code":"quota_spent","message":"no more"}')
    assert error is not None
    assert (type(error), error.code, error.message, error.retryable) == (DatomError, "quota_spent", "no more", False)


def test_a_version_error_is_a_not_found_error() -> None:
    assert issubclass(VersionError, NotFoundError)
    assert issubclass(NotFoundError, DatomError)
    assert issubclass(InvalidRequestError, DatomError)


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_what_is_no_error_of_ours_is_none(data: bytes) -> None:
    assert DatomError.from_json(data) is None


@given(
    st.dictionaries(
        st.sampled_from(["code", "message", "hint", "fields", "request_id"]),
        st.none() | st.text() | st.integers() | st.lists(st.text()),
    )
)
def test_odd_details_never_break_the_client(body: dict[str, object]) -> None:
    error = DatomError.from_json(json.dumps(body).encode())
    assert (error is not None) == isinstance(body.get("code"), str)
    if error is not None:
        assert isinstance(error.message, str)
        assert isinstance(error.hint, str)
        assert isinstance(error.fields, dict)
        assert str(error)


def test_deeply_nested_details_are_no_error_of_ours() -> None:
    assert DatomError.from_json(b"[" * 200_000) is None


def test_every_code_has_a_meaning_in_the_style_of_messages() -> None:
    for name, code in CODES.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert code.meaning
        for text in (code.meaning, code.hint):
            assert not text.endswith(".")
            assert not text[:1].isupper()
