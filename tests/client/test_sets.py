"""Sets, and reading their members."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from datom_flight import Connection, DatomError, DatomSet, Member, MemberId
from support.rows import rows
from support.wire_server import WireServer


def member(name: str, version: str, project: str = "STUDY_001", kind: str = "table", **tags: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"id": {"project": project, "name": name, "kind": kind, "version": version}}
    return {**body, "tags": tags} if tags else body


def refusal(call: Any, *arguments: Any, **options: Any) -> DatomError:
    with pytest.raises(DatomError) as caught:
        call(*arguments, **options)
    return caught.value


@pytest.fixture
def product(server: WireServer, conn: Connection) -> DatomSet:
    first, second = server.put("dm", rows(10)), server.put("dm", rows(20))
    server.put("other", rows(4), project="STUDY_002")
    server.answers["datom.set"] = [
        {
            "name": "adam",
            "project": "STUDY_001",
            "version": "f" * 64,
            "data_sha": "e" * 64,
            "tags": {"purpose": ["interim"]},
            "members": [
                member("dm", first.version, role=["baseline", "safety"]),
                member("dm", second.version, role=["final"]),
                member("other", server._tables["STUDY_002", "other"][0].version, project="STUDY_002"),
                member("hidden", "a" * 64, project="STUDY_003"),
                member("lost", "b" * 64),
                member("inner", "c" * 64, kind="set"),
                member("odd", "d" * 64, kind="model"),
                member("odd elsewhere", "d" * 64, kind="model", project="STUDY_002"),
            ],
        }
    ]
    return conn.set("adam")


def test_a_set_is_pointers_and_labels(product: DatomSet) -> None:
    assert (product.name, product.version, product.tags) == ("adam", "f" * 64, {"purpose": ["interim"]})
    assert product.members[3] == Member(MemberId("STUDY_003", "hidden", "table", "a" * 64), None)
    assert product.members[0].tags == {"role": ["baseline", "safety"]}
    text = str(product)
    assert "purpose=interim" in text
    assert "role=baseline, safety" in text
    assert list(product.members.to_pandas().columns) == ["project", "name", "kind", "version", "tags"]


def test_a_member_is_read_at_the_version_the_set_cites(conn: Connection, product: DatomSet) -> None:
    def count(*arguments: Any, **options: Any) -> int:
        table = conn.read_member(product, *arguments, **options)
        assert isinstance(table, pa.Table)
        return int(table.num_rows)

    assert count("dm", tags={"role": "safety"}) == 10
    assert count("dm", tags={"role": ["safety", "baseline"]}) == 10
    assert count("dm", tags={"role": "final"}) == 20
    assert count("dm", version=product.members[1].id.version[:10]) == 20
    assert count(product.members[0]) == 10


def test_a_member_of_another_project_is_read_where_it_is(conn: Connection, product: DatomSet) -> None:
    table = conn.read_member(product, "other")
    assert isinstance(table, pa.Table)
    assert table.num_rows == 4


def test_a_member_that_is_a_set_gives_a_set(conn: Connection, server: WireServer, product: DatomSet) -> None:
    assert isinstance(conn.read_member(product, "inner"), DatomSet)
    assert server.calls[-1] == ("datom.set", {"project": "STUDY_001", "table": "inner", "version": "c" * 64})


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ({"name": "ae"}, "member_not_found", "dm, hidden"),
        ({"name": "dm"}, "member_ambiguous", "role=final"),
        ({"name": "dm", "tags": {"role": "none"}}, "member_not_found", "role=final"),
        ({"name": "dm", "tags": {"role": ["final", "safety"]}}, "member_not_found", "role=final"),
        ({"name": "dm", "version": "zz"}, "member_not_found", "role=final"),
        ({"name": "hidden"}, "member_project_mismatch", "access"),
        ({"name": "lost"}, "not_found", ""),
        ({"name": "odd"}, "member_kind_unknown", "upgrade"),
        ({"name": "odd elsewhere"}, "member_kind_unknown", "upgrade"),
        ({"name": "dm", "tags": {"role": []}}, "invalid_argument", ""),
        ({"name": "dm", "tags": {"role": [1]}}, "invalid_argument", ""),
    ],
)
def test_members_that_cannot_be_read_are_refused(
    conn: Connection, product: DatomSet, arguments: dict[str, Any], code: str, named: str
) -> None:
    error = refusal(conn.read_member, product, **arguments)
    assert error.code == code
    assert named in error.hint


def test_a_member_of_a_hidden_project_says_which(conn: Connection, product: DatomSet) -> None:
    error = refusal(conn.read_member, product, "hidden")
    assert '"STUDY_003"' in error.message
    assert error.fields == {"project": "STUDY_003", "cause": "not_found"}
    assert isinstance(error.__cause__, DatomError)


def test_narrowing_a_member_itself_is_refused(conn: Connection, product: DatomSet) -> None:
    assert refusal(conn.read_member, product, product.members[0], tags={"a": "b"}).code == "invalid_argument"
