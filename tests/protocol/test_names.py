"""Names and instants: what is well formed, on both sides of the wire."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.names import (
    MAX_NAME_LENGTH,
    RESERVED_NAMES,
    format_instant,
    is_full_version,
    parse_instant,
    validate_name,
)


@pytest.mark.parametrize("name", ["dm", "A", "My table (v2) - final_1", "x" * MAX_NAME_LENGTH, "datom2", "renv_x"])
def test_a_name_that_datom_writes_is_taken_as_it_is(name: str) -> None:
    assert validate_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "1dm", " dm", "_x", "dm/x", "../dm", "dm.parquet", "dé", "dm\n", "dm\x00", "x" * 129, "a\u0661", None, b"dm"],
)  # fmt: skip
def test_anything_else_is_an_invalid_name(name: object) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        validate_name(name)
    assert refusal.value.code == "invalid_name"


@pytest.mark.parametrize("name", ["datom", "DATOM", "renv", "Renv", "input_files", "Input_Files"])
def test_reserved_names_are_refused_in_any_case(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="reserved"):
        validate_name(name)
    assert name.lower() in RESERVED_NAMES


@given(st.text())
def test_no_name_that_passes_can_leave_its_folder(name: str) -> None:
    try:
        validate_name(name)
    except InvalidRequestError:
        return
    assert not set(name) & set("/\\.\0\n")


def test_only_64_lower_case_hex_digits_are_a_full_version() -> None:
    assert is_full_version("0123456789abcdef" * 4)
    for text in ("0123456789abcdef" * 3, "0123456789ABCDEF" * 4, "g" * 64, "0" * 65, "0" * 64 + "\n", ""):
        assert not is_full_version(text)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-15", datetime(2026, 1, 15, 23, 59, 59, 999999, UTC)),
        ("20260115", datetime(2026, 1, 15, 23, 59, 59, 999999, UTC)),
        ("2026-01-15T12:00", datetime(2026, 1, 15, 12, tzinfo=UTC)),
        ("2026-01-15 12:00:01", datetime(2026, 1, 15, 12, 0, 1, tzinfo=UTC)),
        ("2026-01-15T12:00:00Z", datetime(2026, 1, 15, 12, tzinfo=UTC)),
        ("2026-01-15T12:00:00+02:00", datetime(2026, 1, 15, 10, tzinfo=UTC)),
        ("9999-12-31", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    ],
)
def test_an_instant_is_utc_and_a_date_ends_its_day(text: str, instant: datetime) -> None:
    assert parse_instant(text) == instant


@pytest.mark.parametrize(
    "text", ["", "now", "2026-13-01", "2026-02-30", "2026", "9999-12-31T23:59:59-10:00", "1e9", "2026-01-15T25:00"]
)
def test_what_is_no_instant_says_how_to_write_one(text: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse_instant(text)
    assert refusal.value.code == "invalid_argument"
    assert "2026-01-15" in refusal.value.hint


@given(st.text(max_size=40))
def test_any_text_is_an_instant_in_utc_or_refused(text: str) -> None:
    try:
        instant = parse_instant(text)
    except InvalidRequestError:
        return
    assert instant.utcoffset() == timedelta(0)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_datetime_survives_its_text(instant: datetime) -> None:
    assert parse_instant(format_instant(instant)) == instant


def test_a_naive_datetime_means_utc_and_a_date_stays_one() -> None:
    assert format_instant(datetime(2026, 1, 15, 12)) == "2026-01-15T12:00:00+00:00"
    assert format_instant(datetime(2026, 1, 15, 12, tzinfo=timezone(timedelta(hours=2)))) == "2026-01-15T12:00:00+02:00"
    assert format_instant(date(2026, 1, 15)) == "2026-01-15"
    assert format_instant("2026-01-15") == "2026-01-15"


@pytest.mark.parametrize("value", [7, None, "yesterday"])
def test_anything_else_is_no_instant(value: object) -> None:
    with pytest.raises(InvalidRequestError):
        format_instant(value)  # type: ignore[arg-type]
