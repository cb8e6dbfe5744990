"""Flight SQL's messages in and out of bytes."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any as Packed
from hypothesis import given
from hypothesis import strategies as st

from datom_flight.protocol.errors import DatomError
from datom_flight.protocol.messages import ReadRequest
from datom_flight_server.flight.sql import flight_sql_pb2 as messages
from datom_flight_server.flight.sql.messages import packed, parsed, sql_name, unpacked, unsupported


def test_a_packed_message_comes_back() -> None:
    command = messages.CommandStatementQuery(query="SELECT 1", transaction_id=b"x")
    data = packed(command)
    assert sql_name(data) == "CommandStatementQuery"
    assert unpacked(data, messages.CommandStatementQuery) == command


def test_the_type_is_what_follows_the_last_slash() -> None:
    inner = messages.CommandGetCatalogs()
    data = Packed(type_url="example.org/types/arrow.flight.protocol.sql.CommandGetCatalogs").SerializeToString()
    assert sql_name(data) == "CommandGetCatalogs"
    assert unpacked(data, messages.CommandGetCatalogs) == inner


def test_a_message_that_is_not_known_here_still_has_a_name() -> None:
    data = Packed(type_url="type.googleapis.com/arrow.flight.protocol.sql.CommandFromTheFuture").SerializeToString()
    assert sql_name(data) == "CommandFromTheFuture"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'\n{"project":"STUDY_001","sql":"SELECT 1"}',
        ReadRequest("STUDY_001", "dm").to_json(),
        b"\x0a\xff\xff\xff\xff\x0f",
        Packed(type_url="type.googleapis.com/google.protobuf.Empty").SerializeToString(),
    ],
)
def test_what_is_no_message_of_flight_sql_has_no_name(data: bytes) -> None:
    assert sql_name(data) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_are_refused(data: bytes) -> None:
    assert sql_name(data) is None
    for read in (unpacked, parsed):
        try:
            read(data, messages.CommandGetTables)
        except DatomError as error:
            assert error.code == "invalid_argument"  # noqa: PT017


def test_another_message_than_expected_is_refused() -> None:
    with pytest.raises(DatomError, match="not a CommandGetTables") as caught:
        unpacked(packed(messages.CommandGetCatalogs()), messages.CommandGetTables)
    assert caught.value.code == "invalid_argument"


def test_too_long_a_message_is_refused_unread() -> None:
    data = b"\0" * (4 * 1024 * 1024 + 1)
    assert sql_name(data) is None
    with pytest.raises(DatomError) as caught:
        parsed(data, messages.CommandGetTables)
    assert caught.value.code == "too_large"


def test_a_name_that_is_not_supported_is_shown_without_what_it_might_hide() -> None:
    assert "\\n" in str(unsupported("Evil\nline"))
    assert unsupported("x" * 1000).code == "unsupported"
    assert len(str(unsupported("x" * 1000))) < 200


def test_an_absent_text_is_not_an_empty_one() -> None:
    asked = unpacked(packed(messages.CommandGetTables(catalog="")), messages.CommandGetTables)
    assert asked.HasField("catalog")
    assert not asked.HasField("db_schema_filter_pattern")
