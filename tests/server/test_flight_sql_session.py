"""What a connection settles for all its statements, and how it travels."""

from __future__ import annotations

import base64
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datom_flight.protocol.errors import DatomError
from datom_flight_server.auth.base import no_such_project
from datom_flight_server.flight.session import Carried, Session, Sessions, split_bearer
from datom_flight_server.flight.sql import flight_pb2 as messages
from datom_flight_server.flight.sql.options import options_of, with_options
from datom_flight_server.flight.sql.prepared import Prepared

INSTANTS = st.sampled_from([None, "", "2026-01-15", "2026-01-15T12:00:00+00:00"])
SESSIONS = st.builds(Session, st.sampled_from([None, "", "STUDY_001", "a b (c)"]), INSTANTS, INSTANTS)
VALUE = messages.SessionOptionValue


def code_of_refusal(credentials: str) -> str:
    with pytest.raises(DatomError) as caught:
        split_bearer(credentials)
    return caught.value.code


@given(SESSIONS, st.sampled_from([None, "header.body.signature"]), st.sampled_from([None, "c1"]), st.integers(0, 9))
def test_a_session_travels_behind_the_token(
    session: Session, token: str | None, connection: str | None, turn: int
) -> None:
    carried = Carried(session, connection, turn)
    assert split_bearer(carried.behind(token)) == (token, carried)


def test_a_token_alone_settles_nothing() -> None:
    assert split_bearer("header.body.signature") == ("header.body.signature", Carried())
    assert split_bearer(None) == (None, Carried())


# A driver that missed what it was answered


def test_what_a_connection_settled_holds_until_it_comes_with_it() -> None:
    sessions = Sessions()
    first = sessions.settle("ann", Carried(), Session("STUDY_001"))
    second = sessions.settle("ann", first, Session("STUDY_002"))
    assert sessions.newest("ann", first) == second
    assert sessions.newest("ann", second) == second
    assert sessions.newest("ann", first) == first, "it came with it, so nothing is remembered"


def test_a_connection_is_not_told_what_others_settled() -> None:
    sessions = Sessions()
    mine = sessions.settle("ann", Carried(), Session("STUDY_001"))
    other = sessions.settle("ann", Carried(), Session("STUDY_002"))
    stolen = Carried(Session(), other.connection, 0)
    assert sessions.newest("ann", Carried(Session(), mine.connection, 0)) == mine
    assert sessions.newest("bob", stolen) == stolen
    assert sessions.newest("ann", Carried()) == Carried()


def test_only_so_many_connections_are_remembered() -> None:
    sessions = Sessions(most=2)
    carried = [sessions.settle("ann", Carried(), Session(f"P{number}")) for number in range(3)]
    before = [Carried(Session(), each.connection, 0) for each in carried]
    assert [sessions.newest("ann", each) for each in before] == [before[0], *carried[1:]]


@given(st.text(max_size=80))
def test_whatever_else_stands_behind_a_token_is_refused(text: str) -> None:
    try:
        token, carried = split_bearer("token~" + text)
    except DatomError as error:
        assert error.code == "unauthenticated"  # noqa: PT017
    else:
        assert token == "token"
        assert isinstance(carried, Carried)


@pytest.mark.parametrize(
    "settled",
    [
        b"[]",
        b"x",
        b"",
        b'{"other":"x"}',
        b'{"session":{"project":1}}',
        b'{"session":{"other":"x"}}',
        b'{"session":{"as_of":"yesterday"}}',
        b'{"session":{"project":"../x"}}',
        b'{"session":{},"connection":1}',
        b'{"session":{},"turn":-1}',
    ],
)
def test_settings_that_are_none_are_refused(settled: bytes) -> None:
    assert code_of_refusal("token~" + base64.urlsafe_b64encode(settled).decode()) == "unauthenticated"


@given(SESSIONS, SESSIONS)
def test_what_is_settled_later_goes_before_what_was(later: Session, earlier: Session) -> None:
    merged = later.over(earlier)
    for name in ("project", "as_of", "began"):
        new, old = getattr(later, name), getattr(earlier, name)
        assert getattr(merged, name) == (old if new is None else new)


@pytest.mark.parametrize(
    ("session", "instant"),
    [
        (Session(), None),
        (Session(as_of="2026-01-15"), "2026-01-15"),
        (Session(as_of="2026-01-15", began="2026-02-01"), "2026-01-15"),
        (Session(as_of="", began="2026-02-01"), "2026-02-01"),
        (Session(as_of="", began=""), None),
    ],
)
def test_an_instant_asked_for_goes_before_that_of_the_transaction(session: Session, instant: str | None) -> None:
    assert session.instant == instant


def only_one(session: Session) -> str:
    """STUDY_001, which is all that the caller may see."""
    if session.project not in (None, "", "STUDY_001"):
        raise no_such_project(session.project)
    return "STUDY_001"


def test_options_are_taken_one_by_one() -> None:
    asked = messages.SetSessionOptionsRequest(
        session_options={
            "catalog": VALUE(string_value="datom"),
            "schema": VALUE(string_value="STUDY_001"),
            "datom.as_of": VALUE(string_value="yesterday"),
            "other": VALUE(string_value="x"),
        }
    )
    session, result = with_options(Session(began="2026-01-01"), asked, only_one)
    assert session == Session("STUDY_001", None, "2026-01-01")
    assert {name: error.value for name, error in result.errors.items()} == {
        "datom.as_of": messages.SetSessionOptionsResult.INVALID_VALUE,
        "other": messages.SetSessionOptionsResult.INVALID_NAME,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("catalog", VALUE(string_value="other")),
        ("schema", VALUE(string_value="STUDY_002")),
        ("schema", VALUE(string_value="../x")),
        ("schema", VALUE(bool_value=True)),
        ("datom.as_of", VALUE(int64_value=20260115)),
        ("datom.as_of", VALUE(string_list_value=VALUE.StringListValue(values=["2026-01-15"]))),
    ],
)
def test_a_value_that_an_option_cannot_have_changes_nothing(name: str, value: messages.SessionOptionValue) -> None:
    before = Session("STUDY_001", "2026-01-15")
    asked = messages.SetSessionOptionsRequest(session_options={name: value})
    session, result = with_options(before, asked, only_one)
    assert session == before
    assert result.errors[name].value == messages.SetSessionOptionsResult.INVALID_VALUE


def test_an_option_is_taken_back_where_it_came_from_a_header_too() -> None:
    asked = messages.SetSessionOptionsRequest(session_options={"schema": VALUE(), "datom.as_of": VALUE()})
    session, result = with_options(Session("STUDY_001", "2026-01-15"), asked, only_one)
    assert not result.errors
    header = Session("STUDY_001", "2026-01-15")
    assert session.over(header) == replace(header, project="", as_of="")


def test_options_say_what_holds_now() -> None:
    options = options_of(Session(as_of="2026-01-15"), only_one).session_options
    assert {name: value.string_value for name, value in options.items()} == {
        "catalog": "datom",
        "schema": "STUDY_001",
        "datom.as_of": "2026-01-15",
    }
    assert set(options_of(Session(as_of=""), lambda session: None).session_options) == {"catalog"}


@given(SESSIONS)
def test_a_prepared_statement_s_handle_holds_all_of_it(session: Session) -> None:
    parameters = pa.record_batch({"0": pa.array(["F"]), "1": pa.array([None], pa.int32())})
    for prepared in (Prepared("SELECT ?", session), Prepared("SELECT ?", session, parameters)):
        found = Prepared.from_bytes(prepared.to_bytes())
        assert found == prepared


@pytest.mark.parametrize(
    "handle",
    [
        b"",
        b"{}",
        b'{"session":{}}',
        b'{"query":"SELECT 1"}',
        b'{"query":"SELECT 1","session":{},"more":1}',
        b'{"query":"SELECT 1","session":{"as_of":"yesterday"}}',
        b'{"query":"SELECT 1","session":{},"parameters":"!"}',
        b'{"query":"SELECT 1","session":{},"parameters":"AAAA"}',
        b"\x00\xff",
    ],
)
def test_a_handle_that_none_gave_is_refused(handle: bytes) -> None:
    with pytest.raises(DatomError) as caught:
        Prepared.from_bytes(handle)
    assert caught.value.code == "invalid_argument"


@given(st.binary(max_size=100))
def test_any_parameters_in_a_handle_are_read_or_refused(data: bytes) -> None:
    parameters = base64.b64encode(data).decode()
    with pytest.raises(DatomError):
        Prepared.from_bytes(b'{"query":"SELECT 1","session":{},"parameters":"' + parameters.encode() + b'"}')
