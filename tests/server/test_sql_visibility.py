"""What a principal may not see does not exist, wherever a query names it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from datom_flight.protocol.errors import DatomError
from datom_flight.protocol.queries import TablePin
from datom_flight_server.model import Principal, Role
from support.expected import STORES
from support.sql import ANN, Sql, serving
from support.stores import write_store

BOB = Principal("bob", Role.READER, frozenset({"SEEN", "STUDY_001_ADAM"}))
"""Who may read two projects of four."""

DM = pa.table({"ID": pa.array([1, 2, 3], pa.int32()), "TXT": ["a", "b", None]})


@dataclass(frozen=True, slots=True)
class Served:
    """SQL over the four projects, and a version of the table that Bob may not see."""

    sql: Sql
    version: str = field(repr=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("visibility")
    write_store(folder / "seen", {"dm": [DM], "lb": [DM.slice(0, 2)]})
    ids = write_store(folder / "hidden", {"dm": [DM.slice(1), DM], "secret": [DM]})
    product = {
        store.project: store.root / store.prefix for store in STORES if store.name in ("store-basic", "store-product")
    }
    roots = {"SEEN": folder / "seen", "HIDDEN": folder / "hidden", **product}
    with serving(folder / "cache", roots, "SEEN") as sql:
        yield Served(sql, ids["dm"][0])


def names(version: str) -> list[str]:
    """Ways to name a table of a project, which is written ``{}``."""
    return [
        "{}.dm",
        "datom.{}.dm",
        '"{}".dm d',
        "{}.dm AS d (a, b)",
        f"{{}}.dm AT (VERSION => '{version}')",
        f"{{}}.dm AT (VERSION => '{version:.8}')",
        "{}.dm AT (TIMESTAMP => '2026-01-15')",
        f'{{}}."dm@{version:.8}"',
        '"{}@8a".dm',
    ]


POSITIONS = [
    "SELECT * FROM {}",
    "SELECT count(*) FROM {}",
    "FROM {} LIMIT 0",
    "SELECT 1 FROM {} WHERE false",
    "SELECT * FROM dm, {}",
    "SELECT * FROM dm LEFT JOIN {} ON false",
    "SELECT * FROM dm SEMI JOIN {} ON true",
    "SELECT * FROM dm POSITIONAL JOIN {}",
    "SELECT * FROM dm, LATERAL (SELECT * FROM {} LIMIT 1)",
    "SELECT (SELECT count(*) FROM {}) FROM dm",
    "SELECT EXISTS (FROM {})",
    "SELECT ID FROM dm WHERE ID IN (SELECT 1 FROM {})",
    "SELECT ID FROM dm WHERE EXISTS (SELECT 1 FROM {} WHERE false)",
    "SELECT ID FROM dm GROUP BY ID HAVING (SELECT count(*) FROM {}) > 0",
    "SELECT ID FROM dm QUALIFY row_number() OVER (ORDER BY (SELECT count(*) FROM {})) = 1",
    "SELECT ID FROM dm ORDER BY (SELECT count(*) FROM {})",
    "SELECT ID FROM dm LIMIT (SELECT count(*) FROM {})",
    "SELECT sum(ID) FILTER (WHERE ID IN (SELECT 1 FROM {})) FROM dm",
    "SELECT CASE WHEN false THEN (SELECT count(*) FROM {}) END",
    "SELECT TRY(1 // 0) FROM {}",
    "SELECT coalesce(1, (SELECT count(*) FROM {}))",
    "SELECT list_transform((SELECT list(1) FROM {}), lambda x: x + 1)",
    "SELECT [x FOR x IN (SELECT list(1) FROM {})]",
    "SELECT * REPLACE ((SELECT count(*) FROM {}) AS ID) FROM dm",
    "SELECT ARRAY(SELECT 1 FROM {})",
    "SELECT * FROM (SELECT * FROM (SELECT * FROM {}))",
    "SELECT ID FROM dm UNION ALL SELECT 1 FROM {}",
    "SELECT ID FROM dm EXCEPT SELECT 1 FROM {}",
    "(SELECT 1 FROM {}) INTERSECT SELECT ID FROM dm",
    "WITH w AS (SELECT * FROM {}) SELECT 1",
    "WITH w AS (SELECT * FROM {}) SELECT * FROM w",
    "WITH w AS MATERIALIZED (SELECT 1 AS ID), v AS (SELECT 1 FROM w, {}) SELECT * FROM dm, v",
    "SELECT * FROM dm WHERE ID IN (WITH w AS (SELECT 1 FROM {}) FROM w)",
    "WITH RECURSIVE r AS (SELECT 1 AS n FROM {} UNION ALL SELECT n + 1 FROM r WHERE n < 3) FROM r",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r, {} WHERE n < 3) FROM r",
    "PIVOT {} ON TXT IN ('a') USING count(*)",
    "UNPIVOT (SELECT 1 AS a FROM {}) ON a INTO NAME n VALUE v",
    "SELECT * FROM range((SELECT count(*) FROM {}))",
    "SELECT * FROM json_each((SELECT '[]' FROM {}))",
    "DESCRIBE FROM {}",
    "SUMMARIZE FROM {}",
    "SELECT * FROM (DESCRIBE SELECT * FROM {})",
    "VALUES ((SELECT count(*) FROM {}))",
]


def told(error: DatomError) -> list[object]:
    return [error.code, error.message, error.hint]


def same_as_nothing(sql: Sql, query: str) -> None:
    """Fail unless `query`, a template, is refused alike for a project that is hidden and one that is not there."""
    hidden = sql.refusal(query.format("HIDDEN"), BOB)
    absent = sql.refusal(query.format("NOWHERE"), BOB)
    assert hidden.code == "not_found"
    assert [str(part).replace("HIDDEN", "NOWHERE") for part in told(hidden)] == told(absent)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_hidden_table_is_nowhere_in_a_query(served: Served, position: str) -> None:
    query = position.replace("{}", "{}.dm")
    served.sql.plan(query.format("HIDDEN"), ANN)
    same_as_nothing(served.sql, query)


@pytest.mark.parametrize("way", range(len(names(""))))
def test_a_hidden_table_has_no_name_and_no_version(served: Served, way: int) -> None:
    name = names(served.version)[way]
    same_as_nothing(served.sql, f"SELECT * FROM {name}")
    same_as_nothing(served.sql, f"SELECT count(*) FROM dm, {name}")


HISTORY = [
    "datom_tables('{}')",
    "datom_versions('{}.dm')",
    "datom_versions('{}.secret')",
    "datom_versions('{}.nothing')",
    "datom_lineage('{}.dm')",
    "datom_lineage('{}.dm', '2026-01-15')",
    "datom_column_changes('{}.dm', '2026-01-15')",
    "datom_diff('{}.dm', '2026-01-15', '2026-02-15', key := 'ID')",
    "datom_diff('{}.dm', '0000')",
]


@pytest.mark.parametrize("call", HISTORY)
def test_hidden_history_is_nobody_s(served: Served, call: str) -> None:
    same_as_nothing(served.sql, f"SELECT * FROM {call}")
    same_as_nothing(served.sql, f"SELECT ID FROM dm WHERE ID IN (SELECT 1 FROM {call})")


def test_a_name_that_with_gives_is_no_way_around(served: Served) -> None:
    sql = served.sql
    assert sql.rows("WITH secret AS (SELECT 7 AS x) SELECT x FROM secret", BOB) == [(7,)]
    assert sql.rows('WITH "HIDDEN.dm" AS (SELECT 7 AS x) SELECT x FROM "HIDDEN.dm"', BOB) == [(7,)]
    for query in (
        "WITH dm AS (SELECT 7 AS x) SELECT * FROM HIDDEN.dm",
        "WITH HIDDEN AS (SELECT 7 AS x) SELECT * FROM HIDDEN.dm",
        "WITH dm AS (SELECT * FROM HIDDEN.dm) SELECT * FROM dm",
        "SELECT * FROM (WITH dm AS (SELECT 1) SELECT 1), HIDDEN.dm",
        "SELECT (WITH dm AS (SELECT 1) SELECT 1), (SELECT count(*) FROM HIDDEN.dm)",
        f"WITH dm AS (SELECT 7 AS x) SELECT * FROM HIDDEN.dm AT (VERSION => '{served.version}')",
    ):
        assert sql.refusal(query, BOB).code == "not_found"
    # a table of one's own by a name that WITH gave elsewhere
    assert sql.rows("SELECT (WITH dm AS (SELECT 7 AS x) SELECT x FROM dm), count(*) FROM dm", BOB) == [(7, 3)]


def test_what_is_visible_is_named_without_what_is_not(served: Served) -> None:
    assert [row[0] for row in served.sql.rows("SELECT name FROM datom_tables() ORDER BY 1", BOB)] == ["dm", "lb"]
    for query in ("FROM nothing", "FROM HIDDEN.nothing", "FROM datom_diff('nothing', 'x')", "FROM NOWHERE.nothing"):
        assert "HIDDEN" not in str(told(served.sql.refusal(query, BOB))).replace('"HIDDEN"', "", 1)
        assert "secret" not in str(told(served.sql.refusal(query, BOB)))


def test_a_set_lets_nobody_see_what_its_members_projects_do_not(served: Served) -> None:
    product = next(store for store in STORES if store.name == "store-product")
    versions = {entry["data_sha"]: version for version, entry in product.index["study001-adam"]["versions"].items()}
    holding = next(
        version
        for data_sha, version in versions.items()
        if '"ae"' in (product.data / "study001-adam" / f"{data_sha}.json").read_text()
    )
    for template in ("SELECT * FROM {}", "SELECT (SELECT count(*) FROM {})", "SELECT count(*) FROM adsl, {}"):
        query = template.format(f'"study001-adam@{holding}".ae')
        assert served.sql.rows(query, ANN, project="STUDY_001_ADAM")
        refused = served.sql.refusal(query, BOB, project="STUDY_001_ADAM")
        assert told(refused) == told(served.sql.refusal("FROM datom_tables('STUDY_001')", BOB))
    own = f'SELECT count(*) FROM "study001-adam@{holding}".adsl'
    assert served.sql.rows(own, BOB, project="STUDY_001_ADAM") == [(17,)]


def test_pins_and_tickets_open_nothing(served: Served) -> None:
    sql = served.sql
    pin = TablePin("HIDDEN", "dm", served.version)
    for query in ("FROM HIDDEN.dm", "FROM HIDDEN.dm, dm"):
        assert sql.refusal(query, BOB, pins=[pin]).code == "not_found"
    assert sql.refusal("FROM x.dm", BOB, pins=[TablePin("HIDDEN", "dm", served.version, set="x")]).code == "not_found"
    for query in ("FROM HIDDEN.dm", "SELECT count(*) FROM HIDDEN.dm, dm", "FROM datom_versions('HIDDEN.dm')"):
        plan = sql.plan(query, ANN)
        with pytest.raises(DatomError) as caught:
            list(sql.statements.run(BOB, plan))
        assert caught.value.code == "not_found"
        assert list(sql.statements.run(ANN, plan))


def test_a_plan_reads_what_it_says_and_nothing_else(served: Served) -> None:
    sql = served.sql
    plan = sql.plan("SELECT count(*) FROM dm, lb", BOB)
    forged = type(plan).from_bytes(plan.to_bytes().replace(b"FROM dm, lb", b"FROM HIDDEN.dm"))
    with pytest.raises(DatomError) as caught:
        list(sql.statements.run(BOB, forged))
    assert caught.value.code in ("not_found", "invalid_argument")
