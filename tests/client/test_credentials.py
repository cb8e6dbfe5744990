"""Where the token comes from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import keyring
import keyring.core
import pytest

from datom_flight import DatomError
from datom_flight.credentials import FixedToken, SessionToken, find_token, store_token

URL = "grpc://127.0.0.1:8815"


@pytest.fixture(autouse=True)
def own_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("KEYRING_FILE", str(tmp_path / "keyring.json"))
    monkeypatch.delenv("DATOM_FLIGHT_TOKEN", raising=False)
    before = keyring.get_keyring()
    use("support.file_keyring.FileKeyring")
    yield
    keyring.set_keyring(before)


def use(backend: str) -> None:
    keyring.set_keyring(keyring.core.load_keyring(backend))


def test_the_argument_comes_before_the_environment_and_the_environment_before_the_keyring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store_token(URL, "from-keyring")
    assert find_token(None, [URL]) == "from-keyring"
    monkeypatch.setenv("DATOM_FLIGHT_TOKEN", "from-environment\n")
    assert find_token(None, [URL]) == "from-environment"
    assert find_token("from-argument", [URL]) == "from-argument"


def test_an_empty_argument_sends_no_token_whatever_else_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATOM_FLIGHT_TOKEN", "from-environment")
    assert find_token("", [URL]) is None


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    store_token(URL, "from-keyring")
    monkeypatch.setenv("DATOM_FLIGHT_TOKEN", "")
    assert find_token(None, [URL]) == "from-keyring"


def test_the_keyring_is_asked_for_each_replica() -> None:
    store_token("grpc://b:1", "of-b")
    assert find_token(None, ["grpc://a:1", "grpc://b:1"]) == "of-b"
    assert find_token(None, ["grpc://a:1"]) is None


def test_a_machine_without_a_keyring_has_no_token() -> None:
    use("keyring.backends.fail.Keyring")
    assert find_token(None, [URL]) is None


@pytest.mark.parametrize("backend", ["keyring.backends.fail.Keyring", "keyring.backends.null.Keyring"])
def test_a_keyring_that_keeps_nothing_is_unsupported_and_says_what_to_do(backend: str) -> None:
    use(backend)
    with pytest.raises(DatomError) as caught:
        store_token(URL, "secret-token")
    assert caught.value.code == "unsupported"
    assert "DATOM_FLIGHT_TOKEN" in caught.value.hint
    assert "--token-file" in caught.value.hint
    assert "secret-token" not in str(caught.value)


def test_a_locked_keyring_is_unauthenticated_not_anonymous() -> None:
    use("support.file_keyring.LockedKeyring")
    with pytest.raises(DatomError, match="does not open") as caught:
        find_token(None, [URL])
    assert caught.value.code == "unauthenticated"


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "nul\0", "ünïcode"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(DatomError) as caught:
        find_token(token, [URL])
    assert caught.value.code == "invalid_argument"
    assert token not in str(caught.value)


def test_a_fixed_token_has_no_other() -> None:
    assert FixedToken("t").token() == "t"
    assert not FixedToken("t").refused("t")


class Sessions:
    """Hands out numbered tokens that last so long."""

    def __init__(self, lifetime: timedelta | None) -> None:
        self.lifetime = lifetime
        self.count = 0

    def __call__(self) -> tuple[str, datetime | None]:
        self.count += 1
        return f"session-{self.count}", None if self.lifetime is None else datetime.now(UTC) + self.lifetime


@pytest.mark.parametrize("lifetime", [None, timedelta(minutes=5), timedelta(seconds=-5)])
def test_a_session_token_is_asked_for_once_while_it_lasts(lifetime: timedelta | None) -> None:
    sessions = Sessions(lifetime)
    credential = SessionToken(sessions)
    assert [credential.token() for _ in range(3)] == ["session-1"] * 3


def test_a_session_token_is_renewed_before_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr("datom_flight.credentials.time.monotonic", lambda: clock)
    sessions = Sessions(timedelta(seconds=100))
    credential = SessionToken(sessions)
    assert credential.token() == "session-1"
    clock += 79
    assert credential.token() == "session-1"
    clock += 2
    assert credential.token() == "session-2"


def test_a_refused_session_token_is_replaced_once() -> None:
    sessions = Sessions(None)
    credential = SessionToken(sessions)
    first = credential.token()
    assert credential.refused(first)
    assert credential.token() == "session-2"
    assert credential.refused(first), "another thread's refusal of the old token does not throw the new one away"
    assert credential.token() == "session-2"
