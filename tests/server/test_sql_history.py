"""History in SQL: what R says of its stores, and what Python finds in tables made on the spot."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import combinations, pairwise, permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.expected import STORES, Store
from support.sql import Sql, serving
from support.stores import add_version, write_store

I32 = pa.int32()

TABLES = [(store, name) for store in STORES for name, artifact in store.index.items() if artifact["kind"] == "table"]
TABLE_IDS = [f"{store.name}/{name}" for store, name in TABLES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history")


MADE: dict[str, list[pa.Table]] = {
    "dm": [
        pa.table({"ID": ["a", "b", "c"], "AGE": pa.array([1, 2, 3], I32)}),
        pa.table({"ID": ["a", "b", "d"], "AGE": pa.array([1, 5, 3], I32)}),
        pa.table({"ID": ["d", "b", "a"], "AGE": pa.array([3, 5, 1], I32), "SEX": ["F", None, "M"]}),
    ],
    "twins": [
        pa.table({"ID": ["a", "a", None, None], "N": pa.array([1, 2, 3, 3], I32)}),
        pa.table({"ID": ["a", "b", None, "b"], "N": pa.array([1, 2, 3, 2], I32)}),
    ],
    "gaps": [
        pa.table(
            {"A": ["x", None, "x", None], "B": pa.array([1, 1, None, None], I32), "V": [1.0, math.nan, None, 0.0]}
        ),
        pa.table(
            {"A": [None, "x", None, "x"], "B": pa.array([1, None, None, 1], I32), "V": [math.nan, 2.0, None, 1.0]}
        ),
    ],
    "types": [
        pa.table({"K": pa.array([1, 2, 3], I32), "X": pa.array([1, 2, 3], I32)}),
        pa.table({"K": ["1", "2", "x"], "X": [1.0, 2.5, 3.0]}),
        pa.table({"K": ["1", "2", "x"], "X": ["1.0", "2.5", "three"]}),
        pa.table({"K": ["1", "2", "x"], "X": pa.array([Decimal("1.00"), None, Decimal("3.00")], pa.decimal128(6, 2))}),
    ],
    "factors": [
        pa.table({"K": ["a", "b"], "F": pa.array(["x", "y"]).dictionary_encode(), "N": [1, 2]}),
        pa.table({"K": ["a", "b"], "F": pa.array(["x", "z"]).dictionary_encode(), "N": [1, 2]}),
        # other levels, and then none at all, mean the same texts
        pa.table(
            {
                "K": ["a", "b"],
                "F": pa.DictionaryArray.from_arrays(pa.array([1, 0], I32), ["z", "x"]),
                "N": [1, 2],
                "M": ["m", "m"],
            }
        ),
        pa.table({"K": ["a", "b"], "F": pa.array(["x", "z"], pa.large_string()), "N": [1, 3], "M": ["m", "m"]}),
    ],
    "times": [
        pa.table({"K": ["a"], "T": [datetime(2026, 1, 1, 12)], "D": [date(2026, 1, 1)], "S": [timedelta(seconds=5)]}),
        pa.table(
            {
                "K": ["a"],
                "T": pa.array([datetime(2026, 1, 1, 12)], pa.timestamp("ns")),
                "D": pa.array([datetime(2026, 1, 1)], pa.timestamp("us")),
                "S": pa.array([timedelta(seconds=6)], pa.duration("ms")),
            }
        ),
    ],
    "emptied": [pa.table({"K": ["a", "b"], "V": [1.0, 2.0]}), pa.table({"K": ["a"], "V": [1.0]}).slice(0, 0)],
    "odd (a) name": [
        pa.table({'a"b': ["1", "2"], "it's": ["x", "y"], "change": ["p", "q"], "before": ["1", "2"], "item": [1, 2]}),
        pa.table({'a"b': ["1", "2"], "it's": ["x", "z"], "change": ["p", "r"], "before": ["1", "3"], "item": [1, 2]}),
    ],
    "moved": [
        pa.table({"A": ["a", "b"], "B": ["c", "d"]}),
        pa.table({"B": ["c", "e"], "A": ["a", "b"]}),
    ],
}


@pytest.fixture(scope="module")
def ids(folder: Path) -> dict[str, list[str]]:
    return write_store(folder / "made", MADE)


@pytest.fixture(scope="module")
def sql(folder: Path, ids: dict[str, list[str]]) -> Iterator[Sql]:
    roots = {store.project: store.root / store.prefix for store in STORES}
    with serving(folder / "cache", {"MADE": folder / "made", **roots}, "MADE") as sql:
        yield sql


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def objects(sql: Sql, query: str, **options: Any) -> list[dict[str, Any]]:
    """The rows of a query, as mappings."""
    return [dict(row) for row in sql.table(query, **options).to_pylist()]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


# R's own stores


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_the_tables_are_those_that_r_lists(sql: Sql, store: Store) -> None:
    expected = {
        row["name"]: (row["kind"], row["current_version"], row["current_data_sha"], row["version_count"])
        for row in store.answer("datom_list.json")
    }
    for call, project in (("datom_tables()", store.project), (f"datom_tables('{store.project}')", "MADE")):
        rows = objects(sql, f"FROM {call}", project=project)
        found = {row["name"]: (row["kind"], row["version"], row["data_sha"], row["versions"]) for row in rows}
        assert len(rows) == len(found)
        assert found == expected
    listed = {row["name"]: row for row in store.answer("datom_list.json")}
    for row in rows:
        assert row["last_updated"] == instant(listed[row["name"]]["last_updated"])
        if row["kind"] == "table":
            stored = store.data / row["name"] / f"{row['data_sha']}.parquet"
            assert row["size_bytes"] == stored.stat().st_size


@pytest.mark.parametrize(("store", "name"), TABLES, ids=TABLE_IDS)
def test_the_versions_are_those_that_r_lists(sql: Sql, store: Store, name: str) -> None:
    rows = objects(sql, f"FROM datom_versions({quoted(f'{store.project}.{name}')})")
    recorded = json.loads((store.data / name / ".metadata" / "version_history.json").read_text())
    expected = [
        {
            "version": row["version"],
            "data_sha": row["data_sha"],
            "parquet_sha": stored.get("parquet_sha"),
            "timestamp": instant(row["timestamp"]),
            "author": row["author"],
            "message": row["commit_message"],
            # R looks into git; the storage alone knows it only where R wrote it down
            "commit": stored.get("commit_sha"),
        }
        for row, stored in zip(store.answer(name, "datom_history.json"), recorded, strict=True)
    ]
    assert rows == expected
    half = expected[len(expected) // 2]["timestamp"]
    until = objects(sql, f"FROM datom_versions({quoted(name)})", project=store.project, as_of=half.isoformat())
    assert until == [row for row in expected if row["timestamp"] <= half]


@pytest.mark.parametrize(("store", "name"), TABLES, ids=TABLE_IDS)
def test_the_lineage_is_the_one_r_reads(sql: Sql, store: Store, name: str) -> None:
    for version, answer in store.answers_named(name, "lineage"):
        arguments = [quoted(f"{store.project}.{name}"), *([quoted(version)] if version else [])]
        parents = [
            ("parent", parent["source"], parent["table"], parent["version"], parent["data_sha"])
            for parent in answer["parents"] or []
        ]
        sources = [
            ("source", source["project"], source["table"], None, source["version_sha"])
            for source in answer["lineage"] or []
        ]
        assert sql.rows(f"FROM datom_lineage({', '.join(arguments)})") == parents + sources


def r_columns(answer: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What R read of each column: its values to the last bit."""
    return {
        column["name"]: [column["rtype"] in ("character", "factor"), *(column.get("hex") or column["values"])]
        for column in answer["columns"]
    }


def changes_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What happened to the columns: the newer version's in its order, then the older's that are gone."""
    names = [*new, *(name for name in old if name not in new)]
    return [
        (name, "added" if name not in old else "removed" if name not in new else "changed")
        for name in names
        if name not in old or name not in new or old[name] != new[name]
    ]


@pytest.mark.parametrize(("store", "name"), TABLES, ids=TABLE_IDS)
def test_the_columns_that_changed_are_those_r_reads_otherwise(sql: Sql, store: Store, name: str) -> None:
    versions = {version: r_columns(answer) for version, answer in store.answers_named(name, "read") if version}
    for old, new in combinations(versions, 2):
        table = f"{store.project}.{name}"
        found = sql.rows(f"FROM datom_column_changes({quoted(table)}, '{old[:16]}', '{new[:16]}')")
        assert [(column, change) for column, change, _ in found] == changes_of(versions[old], versions[new])


def test_recorded_changes_read_no_data(folder: Path) -> None:
    old_store = next(store for store in STORES if store.name == "store-011")
    data = folder / "no data" / "datom"
    shutil.copytree(old_store.data, data, ignore=shutil.ignore_patterns("*.parquet"))
    versions = {version: r_columns(answer) for version, answer in old_store.answers_named("dm", "read") if version}
    assert not list(data.rglob("*.parquet"))
    with serving(folder / "cache of no data", {"STUDY_OLD": data.parent}, "STUDY_OLD") as sql:
        changed = 0
        for old, new in permutations(versions, 2):
            found = sql.rows(f"FROM datom_column_changes('dm', '{old}', '{new}')")
            assert found == [(*change, "recorded") for change in changes_of(versions[old], versions[new])]
            changed += len(found)
        assert changed
        assert sql.refusal(f"FROM datom_diff('dm', '{old}', '{new}')").code == "not_found"


def test_changes_are_computed_where_a_version_records_no_hashes(sql: Sql) -> None:
    store = next(store for store in STORES if store.name == "store-011-upgraded")
    documents = {
        version: json.loads((store.data / "dm" / ".metadata" / f"{version}.json").read_text())
        for version in store.index["dm"]["versions"]
        if version != "current"
    }
    seen: Counter[str] = Counter()
    for old, new in permutations(documents, 2):
        found = sql.rows(f"FROM datom_column_changes('dm', '{old}', '{new}')", project=store.project)
        recorded = "column_hashes" in documents[old] and "column_hashes" in documents[new]
        assert {basis for *_, basis in found} <= {"recorded" if recorded else "computed"}
        seen.update(basis for *_, basis in found)
    assert seen["recorded"]
    assert seen["computed"]


# Tables made on the spot


def same(value: Any) -> Any:
    """A value as one that is equal to itself."""
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    return [{name: same(value) for name, value in row.items()} for row in table.to_pylist()]


def keyed(old: pa.Table, new: pa.Table, key: list[str]) -> list[dict[str, Any]]:
    """The answer of `datom_diff` with a key, by Python."""
    names = [*new.column_names, *(name for name in old.column_names if name not in new.column_names)]
    before, after = ({tuple(row[name] for name in key): row for row in rows_of(table)} for table in (old, new))
    found = []
    for each in {**before, **after}:
        one, other = before.get(each), after.get(each)
        row = {name: (other or one or {}).get(name) for name in names}
        if one is None or other is None:
            found.append({"change": "added" if one is None else "removed", "changed": None, **row})
            continue
        changed = [name for name in names if name in one and name in other and one[name] != other[name]]
        if changed:
            row |= {name: one[name] for name in names if name not in other}
            found.append({"change": "changed", "changed": changed, **row})
    return found


def keyless(old: pa.Table, new: pa.Table) -> Counter[tuple[Any, ...]]:
    """The answer of `datom_diff` without a key, by Python."""
    before, after = (Counter(tuple(row[name] for name in new.column_names) for row in rows_of(t)) for t in (old, new))
    return Counter({("removed", *row): n for row, n in (before - after).items()}) + Counter(
        {("added", *row): n for row, n in (after - before).items()}
    )


def unordered(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(repr({name: same(value) for name, value in row.items()}) for row in rows)


@pytest.mark.parametrize(
    ("name", "old", "new", "key"),
    [
        ("dm", 0, 1, ["ID"]),
        ("dm", 1, 0, ["ID"]),
        ("dm", 0, 2, ["ID"]),
        ("dm", 2, 0, ["ID"]),
        ("dm", 1, 2, ["ID"]),
        ("dm", 1, 1, ["ID"]),
        ("dm", 0, 1, ["ID", "AGE"]),
        ("gaps", 0, 1, ["A", "B"]),
        ("factors", 0, 1, ["K"]),
        ("factors", 0, 1, ["F"]),
        ("factors", 1, 2, ["K"]),
        ("factors", 2, 3, ["F", "K"]),
        ("emptied", 0, 1, ["K"]),
        ("emptied", 1, 0, ["K"]),
    ],
)
def test_rows_differ_as_python_finds_them_by_key(
    sql: Sql, ids: dict[str, list[str]], name: str, old: int, new: int, key: list[str]
) -> None:
    found = objects(sql, f"FROM datom_diff('{name}', '{ids[name][old]}', '{ids[name][new]}', key := '{','.join(key)}')")
    assert unordered(found) == unordered(keyed(MADE[name][old], MADE[name][new], key))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("dm", 0, 1), ("dm", 1, 0), ("dm", 1, 1), ("twins", 0, 1), ("twins", 1, 0), ("gaps", 0, 1), ("factors", 0, 1),
     ("factors", 2, 3), ("emptied", 0, 1), ("emptied", 1, 0), ("moved", 0, 1)],
)  # fmt: skip
def test_rows_differ_as_python_counts_them_without_a_key(
    sql: Sql, ids: dict[str, list[str]], name: str, old: int, new: int
) -> None:
    found = sql.rows(f"FROM datom_diff('{name}', '{ids[name][old]}', '{ids[name][new]}')")
    assert Counter(tuple(map(same, row)) for row in found) == keyless(MADE[name][old], MADE[name][new])


KEYS = st.tuples(st.sampled_from(["a", "b", "é", "", None]), st.sampled_from([1, 2, None]))
VALUES = st.tuples(
    st.sampled_from([0.0, 1.5, math.nan, math.inf, None]), st.sampled_from(["x", "X", "", None]), st.booleans()
)


@settings(max_examples=25)
@given(
    old=st.dictionaries(KEYS, VALUES, max_size=8, min_size=1),
    new=st.dictionaries(KEYS, VALUES, max_size=8, min_size=1),
    drawn=st.permutations(range(8)),
)
def test_rows_of_any_two_versions_differ_as_python_finds_them(
    sql: Sql, folder: Path, old: dict[Any, Any], new: dict[Any, Any], drawn: list[int]
) -> None:
    def table(rows: dict[Any, Any]) -> pa.Table:
        held = [(*key, *values) for key, values in rows.items()]
        held = [held[place] for place in drawn if place < len(held)]
        kinds = {"A": pa.string(), "B": I32, "X": pa.float64(), "Y": pa.string(), "Z": pa.bool_()}
        columns = zip(*held, strict=True)
        return pa.table(
            {name: pa.array(column, kind) for (name, kind), column in zip(kinds.items(), columns, strict=True)}
        )

    shutil.rmtree(folder / "made" / "datom" / "drawn", ignore_errors=True)
    before, after = table(old), table(new)
    # a third version: a version's id names its contents, and two may be the same
    first, second = (add_version(folder / "made", "drawn", each) for each in (before, after))
    if first == second:
        return
    call = f"datom_diff('drawn', '{first}', '{second}'"
    assert unordered(objects(sql, f"FROM {call}, key := 'A,B')")) == unordered(keyed(before, after, ["A", "B"]))
    assert Counter(tuple(map(same, row)) for row in sql.rows(f"FROM {call})")) == keyless(before, after)


def test_changed_types_are_compared_by_what_they_say(sql: Sql, ids: dict[str, list[str]]) -> None:
    first, second, third, fourth = ids["types"]

    def diff(old: str, new: str) -> list[tuple[Any, ...]]:
        return sorted(sql.rows(f"FROM datom_diff('types', '{old}', '{new}', key := 'K')"), key=repr)

    # numbers of two types as numbers; a number and a text as texts
    assert diff(first, second) == [
        ("added", None, "x", 3.0),
        ("changed", ["X"], "2", 2.5),
        ("removed", None, "3", 3.0),
    ]
    assert diff(second, third) == [("changed", ["X"], "x", "three")]
    assert diff(second, fourth) == [("changed", ["X"], "2", None)]
    assert sorted(sql.rows(f"FROM datom_diff('types', '{second}', '{third}')")) == [
        ("added", "x", "three"),
        ("removed", "x", "3.0"),
    ]
    both, one = [("K", "changed", "computed"), ("X", "changed", "computed")], [("X", "changed", "computed")]
    for old, new, changes in ((first, second, both), (first, third, both), (second, third, one), (third, fourth, one)):
        assert sql.rows(f"FROM datom_column_changes('types', '{old}', '{new}')") == changes


def test_factors_are_the_texts_they_stand_for(sql: Sql, ids: dict[str, list[str]]) -> None:
    versions = ids["factors"]
    changes = [
        sql.rows(f"SELECT \"column\", change FROM datom_column_changes('factors', '{old}', '{new}')")
        for old, new in pairwise(versions)
    ]
    assert changes == [[("F", "changed")], [("M", "added")], [("N", "changed")]]


def test_times_of_other_precision_are_the_same_times(sql: Sql, ids: dict[str, list[str]]) -> None:
    old, new = ids["times"]
    assert sql.rows(f"SELECT \"column\" FROM datom_column_changes('times', '{old}', '{new}')") == [("S",)]
    (row,) = sql.rows(f"SELECT change, changed FROM datom_diff('times', '{old}', '{new}', key := 'K')")
    assert row == ("changed", ["S"])


def test_names_that_sql_has_of_its_own_do_no_harm(sql: Sql, ids: dict[str, list[str]]) -> None:
    name = "odd (a) name"
    old, new = ids[name]
    call = f"{quoted(name)}, '{old}', '{new}'"
    assert [row[:2] for row in sql.rows(f"FROM datom_column_changes({call})")] == [
        ("it's", "changed"),
        ("change", "changed"),
        ("before", "changed"),
    ]
    (row,) = sql.rows(f"FROM datom_diff({call}, key := 'a\"b')")
    assert row == ("changed", ["it's", "change", "before"], "2", "z", "r", "3", 2)
    assert len(sql.rows(f"FROM datom_diff({call})")) == 2


def test_a_key_is_found_in_any_case_and_with_spaces(sql: Sql, ids: dict[str, list[str]]) -> None:
    old, new, _ = ids["dm"]
    exact = sql.rows(f"FROM datom_diff('dm', '{old}', '{new}', key := 'ID,AGE')")
    assert exact
    assert sorted(sql.rows(f"FROM datom_diff('dm', '{old}', '{new}', key := ' id , Age ')")) == sorted(exact)


def test_versions_may_be_instants_and_the_newer_may_be_left_out(sql: Sql, ids: dict[str, list[str]]) -> None:
    first, second, third = ids["dm"]

    def diff(*versions: str, **options: Any) -> list[tuple[Any, ...]]:
        texts = ", ".join(map(quoted, versions))
        return sorted(sql.rows(f"SELECT change, ID FROM datom_diff('dm', {texts}, key := 'ID')", **options))

    assert (
        diff("2026-01-15", "2026-02-01T12:00:00Z")
        == diff(first[:12], second)
        == [
            ("added", "d"),
            ("changed", "b"),
            ("removed", "c"),
        ]
    )
    assert diff(first) == diff(first, third)
    assert diff(first, as_of="2026-02-15") == diff(first, second)
    assert sql.rows("SELECT \"column\" FROM datom_column_changes('dm', '2026-02-15')") == [("ID",), ("AGE",), ("SEX",)]


def test_history_is_queried_like_any_table(sql: Sql, ids: dict[str, list[str]]) -> None:
    rows = sql.rows(
        "SELECT t.name, v.n FROM datom_tables() t JOIN (SELECT count(*) AS n FROM datom_versions('dm')) v "
        "ON t.versions = v.n WHERE t.name IN ('dm', 'types') ORDER BY 1"
    )
    assert rows == [("dm", len(ids["dm"]))]
    assert sql.rows("WITH h AS (FROM datom_versions('MADE.dm')) SELECT version FROM h ORDER BY timestamp") == [
        (version,) for version in ids["dm"]
    ]
    assert sql.rows("SELECT (SELECT count(*) FROM datom_versions('dm')), AGE FROM dm WHERE ID = 'a'") == [(3, 1)]
    assert sql.rows("SHOW TABLES") == sql.rows("FROM datom_tables()")
    assert ("dm",) in sql.rows("SELECT t.name FROM (SHOW TABLES) t WHERE versions = 3")
    assert sql.refusal("SHOW ALL TABLES").code == "sql_error"
    pins = sql.plan(f"FROM datom_diff('dm', '{ids['dm'][0]}', key := 'ID')").pins
    assert [pin.version for pin in pins] == [ids["dm"][2], ids["dm"][0]]


@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        ("datom_tables('MADE', 'dm')", "sql_error", "datom_tables('PROJECT')"),
        ("datom_tables(1)", "sql_error", "constant texts"),
        ("datom_tables(project := 'MADE')", "sql_error", "wrong arguments"),
        ("datom_tables('../made')", "invalid_name", "../made"),
        ("datom_tables('NOWHERE')", "not_found", "NOWHERE"),
        ("datom_versions()", "sql_error", "datom_versions('table')"),
        ("datom_versions('dm', '2026')", "sql_error", "wrong arguments"),
        ("datom_versions(NULL)", "sql_error", "constant texts"),
        ("datom_versions(ID)", "sql_error", "constant texts"),
        ("datom_versions('d' || 'm')", "sql_error", "constant texts"),
        ("datom_versions('')", "invalid_name", "table name"),
        ("datom_versions('nothing')", "not_found", "nothing"),
        ("datom_versions('MADE.nothing')", "not_found", "nothing"),
        ("datom_versions('NOWHERE.dm')", "not_found", "NOWHERE"),
        ("datom_lineage()", "sql_error", "datom_lineage('table', 'version')"),
        ("datom_lineage('dm', '0000')", "version_not_found", "0000"),
        ("datom_lineage('dm', 'soon')", "invalid_argument", "soon"),
        ("datom_column_changes('dm')", "sql_error", "datom_column_changes('table', 'from', 'to')"),
        ("datom_column_changes('dm', '0000')", "version_not_found", "0000"),
        ("datom_column_changes('dm', '2025-01-15')", "version_not_found", "2025-01-15"),
        ("datom_column_changes('dm', '2026-01-15', key := 'ID')", "sql_error", "wrong arguments"),
        ("datom_diff('dm')", "sql_error", "key := 'COLUMN,COLUMN'"),
        ("datom_diff('dm', '2026-01-15', '2026-02-15', 'ID')", "sql_error", "wrong arguments"),
        ("datom_diff('dm', '2026-01-15', keys := 'ID')", "sql_error", "wrong arguments"),
        ("datom_diff('dm', '2026-01-15', key := ['ID'])", "sql_error", "constant texts"),
        ("datom_diff('dm', '2026-01-15', key := 'ID', key := 'AGE')", "sql_error", "twice"),
        ("datom_diff('dm', '2026-01-15', key := '')", "sql_error", "not in both"),
        ("datom_diff('dm', '2026-01-15', key := 'ID,,AGE')", "sql_error", "not in both"),
        ("datom_diff('dm', '2026-01-15', key := 'NOPE')", "sql_error", '"NOPE" is not in both'),
        ("datom_diff('dm', '2026-01-15', key := 'SEX')", "sql_error", '"SEX" is not in both'),
        ("datom_diff('dm', '2026-01-15')", "sql_error", "need a key"),
        ("datom_diff('twins', '2026-01-15', key := 'ID')", "sql_error", "several rows of one version have the same ID"),
        ("datom_diff('twins', '2026-02-15', '2026-01-15', key := 'ID')", "sql_error", "several rows"),
        ("datom_blame('dm')", "sql_error", "datom_blame"),
    ],
)
def test_wrong_arguments_are_told(sql: Sql, call: str, code: str, said: str) -> None:
    for query in (f"SELECT * FROM {call}", f"SELECT count(*) FROM {call}"):
        refused = sql.refusal(query)
        assert refused.code == code
        assert said in str(refused)


def test_a_history_function_stands_in_from_alone(sql: Sql) -> None:
    for query in ("SELECT datom_versions('dm')", "SELECT * FROM dm WHERE ID IN datom_versions('dm')"):
        assert sql.refusal(query).code == "sql_error"
