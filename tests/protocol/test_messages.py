"""Requests and answers as JSON: what is read, what is refused, and with which key named."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.messages import (
    MAX_COLUMNS,
    MAX_REQUEST_BYTES,
    EndRecord,
    ReadRequest,
    decode_object,
    encode_object,
)

VERSION = "0123456789abcdef" * 4
DM = {"project": "STUDY_001", "table": "dm"}

requests = st.builds(
    ReadRequest,
    project=st.just("STUDY_001"),
    table=st.sampled_from(["dm", "My table (v2)"]),
    version=st.none() | st.just(VERSION),
    columns=st.none() | st.lists(st.text(), min_size=1, max_size=3).map(tuple),
    where=st.none() | st.text(min_size=1),
    limit=st.none() | st.integers(0, 2**63 - 1),
    row_groups=st.none() | st.tuples(st.integers(0, 5), st.integers(6, 9)),
    data_sha=st.none() | st.just("abcdef"),
)


@given(requests)
def test_a_request_survives_its_ticket(request: ReadRequest) -> None:
    assert ReadRequest.from_json(request.to_json()) == request


def test_a_ticket_names_only_what_was_asked() -> None:
    assert ReadRequest("STUDY_001", "dm").to_json() == b'{"project":"STUDY_001","table":"dm"}'


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        ({"table": "dm"}, "invalid_argument", "project"),
        ({"project": "STUDY_001"}, "invalid_argument", "table"),
        ({**DM, "table": None}, "invalid_argument", "table"),
        ({**DM, "table": "../x"}, "invalid_name", "table"),
        ({**DM, "project": "a/b"}, "invalid_name", "project"),
        ({**DM, "version": 7}, "invalid_argument", "version"),
        ({**DM, "version": ""}, "invalid_argument", "version"),
        ({**DM, "as_of": "soon"}, "invalid_argument", "as_of"),
        ({**DM, "as_of": 20260115}, "invalid_argument", "as_of"),
        ({**DM, "version": "ab", "as_of": "2026-01-15"}, "invalid_argument", "version and as_of"),
        ({**DM, "columns": "AGE"}, "invalid_argument", "columns"),
        ({**DM, "columns": []}, "invalid_argument", "columns"),
        ({**DM, "columns": ["AGE", 1]}, "invalid_argument", "columns"),
        ({**DM, "columns": ["A"] * (MAX_COLUMNS + 1)}, "invalid_argument", "columns"),
        ({**DM, "where": ["AGE"]}, "invalid_argument", "where"),
        ({**DM, "where": ""}, "invalid_argument", "where"),
        ({**DM, "limit": -1}, "invalid_argument", "limit"),
        ({**DM, "limit": 1.0}, "invalid_argument", "limit"),
        ({**DM, "limit": True}, "invalid_argument", "limit"),
        ({**DM, "limit": 2**63}, "invalid_argument", "limit"),
        ({**DM, "row_groups": [1, 1]}, "invalid_argument", "row_groups"),
        ({**DM, "row_groups": [-1, 1]}, "invalid_argument", "row_groups"),
        ({**DM, "row_groups": [0, True]}, "invalid_argument", "row_groups"),
        ({**DM, "row_groups": [0]}, "invalid_argument", "row_groups"),
        ({**DM, "data_sha": 1}, "invalid_argument", "data_sha"),
        ({**DM, "colums": ["AGE"]}, "invalid_argument", "colums"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_with_its_key(body: dict[str, Any], code: str, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named) as refusal:
        ReadRequest.from_json(encode_object(body))
    assert refusal.value.code == code


def test_a_key_without_a_value_is_as_if_left_out() -> None:
    nothing = dict.fromkeys(("version", "as_of", "columns", "where", "limit", "row_groups", "data_sha"))
    assert ReadRequest.from_object({**DM, **nothing}) == ReadRequest("STUDY_001", "dm")


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", b"[1]", b'"dm"', b"null", b"{", b'{"a":1}}', b"\xff\xfe", b'{"a":1,"a":2}', b'{"a":NaN}',
     b'{"a":-Infinity}', b"[" * 200_000, b'{"a":' * 200_000, '{"a":1}'.encode("utf-16")],
    ids=lambda data: repr(data[:20]),
)  # fmt: skip
def test_what_is_not_one_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        decode_object(data, "ticket")
    assert refusal.value.code == "invalid_argument"


def test_an_object_over_the_limit_is_too_large() -> None:
    body = b'{"a":"' + b"x" * MAX_REQUEST_BYTES + b'"}'
    with pytest.raises(InvalidRequestError) as refusal:
        decode_object(body, "ticket")
    assert refusal.value.code == "too_large"


@given(st.binary(max_size=80) | st.dictionaries(st.text(), st.none() | st.text() | st.integers()).map(encode_object))
def test_any_bytes_are_a_request_or_an_invalid_one(data: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        ReadRequest.from_json(data)


def test_an_end_record_survives_its_way() -> None:
    for record in (EndRecord(7, VERSION, "ab" * 32), EndRecord(0, None, "ab" * 32)):
        assert EndRecord.from_json(record.to_json()) == record
        assert json.loads(record.to_json())["end"] is True


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b"{}", b'{"end":false,"rows":1}', b'{"end":true}', b'{"end":1,"rows":1}']
)
def test_what_does_not_end_a_stream_is_no_end_record(data: bytes) -> None:
    assert EndRecord.from_json(data) is None


def test_the_protocol_needs_no_library() -> None:
    code = (
        "import sys, datom_flight.protocol.errors, datom_flight.protocol.messages, datom_flight.protocol.names\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {_roots()!r}\n{code}"],
                          capture_output=True, text=True, check=True, timeout=60)  # fmt: skip
    assert done.stdout.strip() in ("['__main__', 'datom_flight']", "['datom_flight']")


def _roots() -> list[str]:
    import datom_flight

    assert datom_flight.__file__ is not None
    return [datom_flight.__file__.removesuffix("/datom_flight/__init__.py")]
