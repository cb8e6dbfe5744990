"""Queries as JSON: what is read, what is refused, and with which key named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.messages import MAX_REQUEST_BYTES
from datom_flight.protocol.queries import MAX_PARAMETERS, SqlRequest, TablePin, is_query

VERSION = "0123456789abcdef" * 4
PIN = {"project": "STUDY_001", "table": "dm", "version": VERSION}
QUERY: dict[str, Any] = {"sql": "SELECT 1"}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
pins = st.builds(
    TablePin,
    st.just("STUDY_001"),
    st.sampled_from(["dm", "My table (v2)"]),
    st.sampled_from([VERSION, "01234567"]),
    st.none() | st.just("abcdef"),
)
requests = st.builds(
    SqlRequest,
    sql=st.text(min_size=1),
    project=st.none() | st.just("STUDY_001"),
    as_of=st.none(),
    pins=st.none() | st.lists(pins, max_size=3).map(tuple),
    parameters=st.none()
    | st.lists(scalars, max_size=3).map(tuple)
    | st.dictionaries(st.text(), scalars, max_size=3)
    | st.text(min_size=1),
)


@given(requests)
def test_a_query_survives_its_ticket(request: SqlRequest) -> None:
    data = request.to_json()
    assert SqlRequest.from_json(data, "ticket") == request
    assert is_query(data)


def test_a_ticket_names_only_what_was_asked() -> None:
    assert SqlRequest("SELECT 1").to_json() == b'{"sql":"SELECT 1"}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a\xff",
        b'{"project": "P", "table": "sql"}',
        b'{"project": "P", "table": "dm", "where": "\\"sql\\" = 1"}',
        b'["sql"]',
        b'{"sql": ',
        b'{"sql": "SELECT 1"}' + b" " * MAX_REQUEST_BYTES,
    ],
)
def test_what_has_no_key_sql_is_no_query(data: bytes) -> None:
    assert not is_query(data)


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        ({"sql": None}, "invalid_argument", "sql"),
        ({"sql": ""}, "invalid_argument", "sql"),
        ({"sql": 7}, "invalid_argument", "sql"),
        ({**QUERY, "table": "dm"}, "invalid_argument", "table"),
        ({**QUERY, "project": "../x"}, "invalid_name", "project"),
        ({**QUERY, "as_of": "soon"}, "invalid_argument", "soon"),
        ({**QUERY, "as_of": "2026-01-15", "pins": [PIN]}, "invalid_argument", "pins"),
        ({**QUERY, "pins": PIN}, "invalid_argument", "pins"),
        ({**QUERY, "pins": ["dm"]}, "invalid_argument", "pins"),
        ({**QUERY, "pins": [{**PIN, "rows": 3}]}, "invalid_argument", "rows"),
        ({**QUERY, "pins": [{**PIN, "version": None}]}, "invalid_argument", "STUDY_001.dm"),
        ({**QUERY, "pins": [{**PIN, "table": None}]}, "invalid_argument", "table"),
        ({**QUERY, "parameters": 7}, "invalid_argument", "parameters"),
        ({**QUERY, "parameters": ""}, "invalid_argument", "parameters"),
        ({**QUERY, "parameters": [[1]]}, "invalid_argument", "parameters"),
        ({**QUERY, "parameters": {"a": {}}}, "invalid_argument", "parameters"),
        ({**QUERY, "parameters": [1] * (MAX_PARAMETERS + 1)}, "invalid_argument", "parameters"),
    ],
)
def test_what_is_wrong_is_refused_naming_the_key(body: dict[str, Any], code: str, named: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SqlRequest.from_json(json.dumps(body).encode(), "descriptor")
    assert caught.value.code == code
    assert named in caught.value.message
