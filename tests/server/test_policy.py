"""The policy: default deny."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datom_flight.protocol.errors import DatomError, NotFoundError, PermissionDeniedError
from datom_flight_server.auth.base import no_such_project
from datom_flight_server.auth.policy import RolePolicy
from datom_flight_server.model import Principal, Role

PROJECTS = st.sampled_from(["STUDY_001", "STUDY_002", "study_001", ""])
PRINCIPALS = st.builds(
    Principal, st.just("ann"), st.sampled_from(Role), st.none() | st.frozensets(PROJECTS, max_size=3)
)


@given(PRINCIPALS, PROJECTS, st.sampled_from(Role))
def test_only_a_covered_project_and_a_large_enough_role_are_allowed(
    principal: Principal, project: str, needed: Role
) -> None:
    covered = principal.projects is None or project in principal.projects
    try:
        RolePolicy().authorise(principal, project, needed)
    except NotFoundError:
        assert not covered
    except PermissionDeniedError:
        assert covered
        assert not principal.role.covers(needed)
    else:
        assert covered
        assert principal.role.covers(needed)
    assert RolePolicy().visible(principal, project) == covered


def test_a_project_that_may_not_be_seen_is_one_that_does_not_exist() -> None:
    with pytest.raises(DatomError) as caught:
        RolePolicy().authorise(Principal("ann", Role.ADMIN, frozenset({"OTHER"})), "STUDY_001", Role.READER)
    missing = no_such_project("STUDY_001")
    assert type(caught.value) is type(missing)
    assert caught.value.to_json() == missing.to_json()


def test_too_small_a_role_says_which_is_needed() -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        RolePolicy().authorise(Principal("ann", Role.READER), "STUDY_001", Role.DEVELOPER)
    assert caught.value.fields == {"needed": "developer", "role": "reader"}
    assert '"developer"' in caught.value.message


def test_an_empty_list_of_projects_covers_none() -> None:
    assert not RolePolicy().visible(Principal("ann", Role.ADMIN, frozenset()), "STUDY_001")
