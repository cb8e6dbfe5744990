"""The JSON text of R's jsonlite, against what R printed and against every document R stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datom_flight.protocol.errors import DatomError
from datom_flight_server.metadata.jsonlite import as_read_by_r, as_vectors, compact, parse, pretty
from support.expected import FIXTURES, STORES

NUMBERS = json.loads((FIXTURES / "golden-cv1.json").read_text())["json_number_format"]
PRINTED = {vector["id"]: vector for vector in json.loads((FIXTURES / "golden-json-pretty.json").read_text())}

# The golden file's `r_source`, with a tuple for each R vector.
VALUES: dict[str, Any] = {
    "scalars": {"a": 1, "b": 1.5, "c": "s", "d": True, "e": {}, "f": None},
    "empties": {"l": [], "n": {}, "c0": (), "nested": {"a": [], "b": [[]]}},
    "atomic-array": {"one": ("a",), "two": ("a", "b"), "ints": (1, 2, 3), "dbl": (1.5, 2.0), "lgl": (True, None)},
    "list-array": {"two": ["a", "b"], "mixed": [1, "a", True], "objs": [{"a": 1}, {"a": 2, "b": [1, 2]}]},
    "nested-arrays": {"m": [(1, 3), (2, 4)], "ll": [[1, 2], [3]], "la": [(1, 2), (3, 4)]},
    "top-array": [{"version": "a"}, {"version": "b"}],
    "top-empty-array": [],
    "top-empty-object": {},
    "data-frame": {"df": [{"a": 1, "b": "x"}, {"a": 2}]},
    "null-in-list": [[{}, 1]],
}

DOCUMENTS = sorted(
    path for store in STORES for path in store.root.rglob("*.json") if path.name not in ("governance.json",)
)


@pytest.mark.parametrize("vector", NUMBERS, ids=lambda vector: vector["hex"])
def test_a_number_prints_as_r_prints_it(vector: dict[str, str]) -> None:
    assert compact(float.fromhex(vector["hex"])).decode() == vector["text"]


@pytest.mark.parametrize("name", PRINTED)
def test_a_value_prints_as_r_prints_it(name: str) -> None:
    assert compact(VALUES[name]).decode() == PRINTED[name]["compact"]
    assert pretty(VALUES[name]).decode() == PRINTED[name]["pretty"]


@pytest.mark.parametrize("name", PRINTED)
def test_a_value_read_back_prints_as_r_prints_it_again(name: str) -> None:
    assert pretty(as_read_by_r(parse(PRINTED[name]["pretty"]))).decode() == PRINTED[name]["pretty_after_read_json"]


def shown(path: Path) -> str:
    return path.relative_to(FIXTURES).as_posix()


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_a_stored_document_prints_again_byte_for_byte(path: Path) -> None:
    stored = path.read_bytes()
    value = parse(stored)
    # R reads the manifest and the history before it writes them, the other documents it writes from memory.
    rewritten = path.name in ("manifest.json", "version_history.json")
    assert pretty(value if rewritten else as_vectors(value)) == stored


def test_there_are_stored_documents_of_every_kind() -> None:
    names = [path.name for path in DOCUMENTS]
    assert names.count("manifest.json") == len(STORES)
    assert len(names) > 100


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**31 - 1, "2147483647"),
        (-(2**31), "-2147483648"),
        (123456789012, "123456789012"),
        (2**53 + 1, "9.00719925474099e+15"),
        (10**400, '"Inf"'),
        (-(10**400), '"-Inf"'),
        (float("nan"), '"NaN"'),
        (float("-inf"), '"-Inf"'),
        (0.99999, "1"),
        (99.99996, "100"),
        (-0.0, "-0"),
        (100.0, "100"),
        (True, "true"),
    ],
    ids=lambda parameter: str(parameter)[:24],
)
def test_numbers_of_python_print_as_the_r_numbers_they_become(value: Any, text: str) -> None:
    assert compact(value).decode() == text


def test_only_quotes_backslashes_and_control_characters_are_escaped() -> None:
    raw = "é中😀/<&>'\x7f\u2028\u2029"
    assert compact(raw).decode() == f'"{raw}"'
    assert compact('"\\\b\f\n\r\t\x01\x1f').decode() == r'"\"\\\b\f\n\r\t\u0001\u001f"'


@pytest.mark.parametrize(
    "value",
    [{"x": b"bytes"}, {1: "x"}, ["\ud800"], {"a\0": 1}, "\0", {"x": {1, 2}}],
    ids=["bytes", "key", "surrogate", "nul-key", "nul", "set"],
)
def test_what_has_no_form_in_r_is_refused(value: Any) -> None:
    for printer in (compact, pretty):
        with pytest.raises(DatomError) as refused:
            printer(value)
        assert refused.value.code == "invalid_argument"


def test_a_value_nested_beyond_reason_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(DatomError) as refused:
        pretty(value)
    assert refused.value.code == "invalid_argument"
    while value:
        value = value[0]  # unwound by hand: freeing it at once is recursive


@pytest.mark.parametrize("text", ["", "{", "NaN", "[1,]", '{"a": Infinity}'])
def test_what_is_not_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_the_sign_of_zero_survives_reading() -> None:
    assert compact(parse('{"a": -0, "b": 0, "c": -0.0}')).decode() == '{"a":-0,"b":0,"c":-0}'


@settings(max_examples=1000, deadline=None)
@given(st.floats(-1e308, 1e308) | st.floats(-10, 10) | st.floats(1e8, 1e16) | st.integers(-(2**70), 2**70))
def test_a_number_once_printed_prints_the_same_again(number: float) -> None:
    printed = compact(number)
    assert compact(parse(printed)) == printed


def test_lists_of_one_type_are_taken_for_vectors_and_others_are_not() -> None:
    value = {"v": [1, "NA", None], "t": ["a", None], "mixed": [1, "a"], "one": ["a"], "deep": [["a", "b"]], "none": []}
    expected = {"v": (1, "NA", None), "t": ("a", None), "mixed": [1, "a"], "one": ["a"], "deep": [("a", "b")]}
    assert as_vectors(value) == {**expected, "none": []}
