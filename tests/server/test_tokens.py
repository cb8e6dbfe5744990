"""Tokens: what they say, and what is refused as one."""

from __future__ import annotations

import base64
import json
import warnings
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from datom_flight.protocol.errors import AuthenticationError, InvalidRequestError, PermissionDeniedError
from datom_flight_server.auth.revocations import Revocations
from datom_flight_server.auth.tokens import ISSUER, LEEWAY, Tokens
from datom_flight_server.model import Principal, Role
from datom_flight_server.settings import AuthSettings
from support.server import await_condition

SECRET = "a signing secret of thirty-two bytes or more"
ANN = Principal("ann", Role.DEVELOPER, frozenset({"STUDY_001", "STUDY (2)"}))
DAY = timedelta(days=1)


def claims(**changes: object) -> dict[str, object]:
    """Good claims of a reader, changed; None leaves one out."""
    now = int(datetime.now(UTC).timestamp())
    good = {"iss": ISSUER, "sub": "ann", "role": "reader", "iat": now, "exp": now + 60, "jti": "x"}
    return {key: value for key, value in (good | changes).items() if value is not None}


def refusal(token: str, tokens: Tokens | None = None) -> AuthenticationError:
    with pytest.raises(AuthenticationError) as caught:
        (tokens or Tokens(SECRET)).verify(token)
    assert caught.value.code == "unauthenticated"
    assert caught.value.hint
    assert len(token) < 20 or token not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("projects", [None, frozenset(), frozenset({"STUDY_001"})])
def test_a_token_says_who_it_was_made_for(role: Role, projects: frozenset[str] | None) -> None:
    who = Principal("ann@example.org", role, projects)
    tokens = Tokens(SECRET)
    assert tokens.verify(tokens.create(who, DAY)) == who


def test_a_token_made_by_any_library_with_the_secret_is_good() -> None:
    token = jwt.encode(claims(projects=["STUDY_001"]), SECRET, algorithm="HS256")
    assert Tokens(SECRET).verify(token) == Principal("ann", Role.READER, frozenset({"STUDY_001"}))


def test_a_short_secret_signs_the_same_way_and_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        token = Tokens("short").create(ANN, DAY)
        assert Tokens("short").verify(token) == ANN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert jwt.decode(token, "short", algorithms=["HS256"], issuer=ISSUER)["sub"] == "ann"


def test_two_tokens_for_the_same_principal_differ() -> None:
    tokens = Tokens(SECRET)
    assert tokens.create(ANN, DAY) != tokens.create(ANN, DAY)


def test_an_expired_token_says_so() -> None:
    now = int(datetime.now(UTC).timestamp())
    error = refusal(jwt.encode(claims(iat=now - 120, exp=now - 60), SECRET, algorithm="HS256"))
    assert error.message == "the token has expired"


def test_a_token_expires_though_it_was_good_before() -> None:
    tokens, now = Tokens(SECRET), int(datetime.now(UTC).timestamp())
    token = jwt.encode(claims(iat=now - 60, exp=now - int(LEEWAY.total_seconds()) + 2), SECRET, algorithm="HS256")
    assert tokens.verify(token).name == "ann"

    def is_refused() -> bool:
        try:
            tokens.verify(token)
        except AuthenticationError as error:
            return error.message == "the token has expired"
        return False

    await_condition(is_refused, 30, "the token has expired")


def test_a_clock_a_little_behind_does_not_matter() -> None:
    now = int(datetime.now(UTC).timestamp())
    assert Tokens(SECRET).verify(jwt.encode(claims(iat=now + 2, exp=now - 2), SECRET, algorithm="HS256"))


@pytest.mark.parametrize(
    ("changes", "secret", "algorithm"),
    [
        ({}, "the secret of somebody else, also of good length", "HS256"),
        ({}, SECRET * 2, "HS512"),
        ({}, "", "none"),
        ({"iss": "somebody"}, SECRET, "HS256"),
        ({"aud": "somebody"}, SECRET, "HS256"),
        ({"role": "owner"}, SECRET, "HS256"),
        ({"role": ["reader"]}, SECRET, "HS256"),
        ({"projects": "STUDY_001"}, SECRET, "HS256"),
        ({"projects": [1]}, SECRET, "HS256"),
        ({"sub": ""}, SECRET, "HS256"),
        *(({key: None}, SECRET, "HS256") for key in ("iss", "sub", "role", "iat", "exp", "jti")),
    ],
)
def test_a_token_of_somebody_else_says_so(changes: dict[str, object], secret: str, algorithm: str) -> None:
    token = jwt.encode(claims(**changes), secret, algorithm=algorithm)
    assert refusal(token).message == "the token is not one of this server"


def test_the_algorithm_none_is_never_accepted() -> None:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    body = Tokens(SECRET).create(ANN, DAY).split(".")[1]
    for forged in (f"{header}.{body}.", f"{header}.{body}.AAAA"):
        refusal(forged)


def test_any_changed_character_is_refused() -> None:
    token = Tokens(SECRET).create(ANN, DAY)
    # the last character of a part carries bits that base64 does not use
    for index in range(0, len(token) - 1, 7):
        changed = "A" if token[index] != "A" else "B"
        if token[index + 1] != "." and token[index] != ".":
            refusal(token[:index] + changed + token[index + 1 :])


@given(st.one_of(st.text(), st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode() + ".e30.AAAA")))
@example("")
@example("..")
@example("x" * 100_000)
@example(base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.AAAA")
@example("\udcff.\udcff.\udcff")
def test_whatever_comes_is_refused_as_unauthenticated(token: str) -> None:
    refusal(token)


@pytest.mark.parametrize("expires", [timedelta(0), timedelta(days=-1), timedelta(days=999_999_999)])
def test_a_token_is_good_for_a_time_that_can_be(expires: timedelta) -> None:
    with pytest.raises(InvalidRequestError, match="a token cannot"):
        Tokens(SECRET).create(ANN, expires)


def test_a_token_is_for_somebody() -> None:
    with pytest.raises(InvalidRequestError, match="has no name"):
        Tokens(SECRET).create(Principal(" ", Role.READER), DAY)


def test_a_session_is_narrower_and_for_the_same_projects() -> None:
    tokens = Tokens(SECRET)
    issued = tokens.narrow(ANN, Role.READER, tokens.create(ANN, DAY))
    assert tokens.verify(issued.token) == Principal("ann", Role.READER, ANN.projects)
    assert issued.expires <= datetime.now(UTC) + timedelta(hours=1)
    assert issued.token not in repr(issued)


def test_a_session_never_outlives_its_token() -> None:
    tokens = Tokens(SECRET)
    bearer = tokens.create(ANN, timedelta(minutes=1))
    issued = tokens.narrow(ANN, Role.READER, bearer)
    assert issued.expires <= datetime.now(UTC) + timedelta(minutes=1)
    assert tokens.narrow(ANN, Role.READER, issued.token).expires == issued.expires


@pytest.mark.parametrize(
    ("has", "wants"), [(Role.READER, Role.DEVELOPER), (Role.READER, Role.ADMIN), (Role.DEVELOPER, Role.ADMIN)]
)
def test_a_wider_session_is_refused(has: Role, wants: Role) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        Tokens(SECRET).narrow(Principal("ann", has), wants, None)
    assert caught.value.code == "permission_denied"


def test_without_a_token_only_an_anonymous_reader_is_let_in() -> None:
    assert Tokens(SECRET, Role.READER).authenticate(None) == Principal("anonymous", Role.READER, None)
    with pytest.raises(AuthenticationError, match="no request without a token"):
        Tokens(SECRET).authenticate(None)


def test_a_bad_token_is_refused_even_where_anonymous_may_read() -> None:
    tokens = Tokens(SECRET, Role.READER)
    with pytest.raises(AuthenticationError):
        tokens.authenticate("nonsense")
    assert tokens.authenticate(tokens.create(ANN, DAY)) == ANN


def test_a_token_that_was_taken_back_says_so_and_no_other_does() -> None:
    plain = Tokens(SECRET)
    taken, kept = plain.create(ANN, DAY), plain.create(ANN, DAY)
    tokens = Tokens(SECRET, revocations=Revocations(frozenset({plain.facts(taken).id})))
    assert refusal(taken, tokens).message == "the token was taken back"
    assert tokens.verify(kept) == ANN


def test_tokens_of_a_principal_made_before_an_instant_are_taken_back() -> None:
    now = datetime.now(UTC)
    tokens = Tokens(SECRET, revocations=Revocations(before={"ann": now - timedelta(minutes=5)}))
    old, new = (int((now - timedelta(minutes=minutes)).timestamp()) for minutes in (10, 1))
    taken = jwt.encode(claims(iat=old), SECRET, algorithm="HS256")
    assert refusal(taken, tokens).message == "the token was taken back"
    assert tokens.verify(jwt.encode(claims(iat=new), SECRET, algorithm="HS256")).name == "ann"
    assert tokens.verify(jwt.encode(claims(iat=old, sub="bob"), SECRET, algorithm="HS256")).name == "bob"


@pytest.mark.parametrize("by_id", [True, False])
def test_sessions_go_with_the_token_they_were_made_from(by_id: bool) -> None:
    plain, made = Tokens(SECRET), int((datetime.now(UTC) - DAY).timestamp())
    token = jwt.encode(claims(jti="the first", iat=made, exp=made + 7 * 86400), SECRET, algorithm="HS256")
    session = plain.narrow(plain.verify(token), Role.READER, token).token
    further = plain.narrow(plain.verify(session), Role.READER, session).token
    before = {"ann": datetime.fromtimestamp(made + 60, UTC)}
    taken = Revocations(frozenset({"the first"})) if by_id else Revocations(before=before)
    tokens = Tokens(SECRET, revocations=taken)
    for each in (token, session, further):
        assert plain.verify(each).name == "ann"
        assert refusal(each, tokens).message == "the token was taken back"


def test_what_was_taken_back_may_change_under_way() -> None:
    tokens = Tokens(SECRET)
    token = tokens.create(ANN, DAY)
    assert tokens.verify(token) == ANN
    tokens.renew(AuthSettings.model_construct(secret=SecretStr(SECRET), revoked=[tokens.facts(token).id]))
    assert refusal(token, tokens).message == "the token was taken back"


def test_a_token_tells_its_facts() -> None:
    facts = Tokens(SECRET).facts(jwt.encode(claims(jti="5f0c", iat=1_700_000_000, exp=4_000_000_000), SECRET, "HS256"))
    assert (facts.id, facts.principal) == ("5f0c", Principal("ann", Role.READER))
    assert (facts.made.isoformat(), facts.expires.year) == ("2023-11-14T22:13:20+00:00", 2096)
