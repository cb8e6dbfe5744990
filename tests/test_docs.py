"""The documentation tells the truth: what it lists is there, what it shows runs, what it links to exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datom_flight.protocol.errors import CODES, DatomError
from datom_flight.protocol.messages import ACTIONS
from support.server import Server, running, write_config
from support.stores import write_store

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

DM = pa.table({"USUBJID": ["01-001", "01-002", "01-003"], "AGE": [71, 64, 58], "SEX": ["F", "M", "F"]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("docs")
    write_store(folder / "store", {"dm": [DM.slice(0, 2), DM]})
    with running(write_config(folder, {"STUDY_001": {"data": f"file://{folder / 'store'}"}})) as server:
        yield server


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of `page` in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def rows(page: Path) -> dict[str, str]:
    """The rows of the tables of `page` that begin with a name in backquotes, by that name."""
    return {match[1]: match[0] for match in re.finditer(r"^\| `([a-z._]+)`.*$", page.read_text(), re.M)}


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_error_code_is_described(code: str) -> None:
    described = rows(ROOT / "docs" / "errors.md")
    meaning = CODES[code]
    assert f"| `{meaning.kind.__name__}` | {meaning.meaning} | " in described[code]
    assert meaning.hint in described[code]
    assert not described[code].endswith("|  |")
    assert ("*retry*" in described[code]) is meaning.retryable


def test_no_error_code_is_described_that_does_not_exist() -> None:
    assert set(rows(ROOT / "docs" / "errors.md")) == set(CODES)


def test_every_class_of_error_is_public() -> None:
    import datom_flight

    for code in CODES.values():
        assert getattr(datom_flight, code.kind.__name__) is code.kind
    assert issubclass(datom_flight.VersionError, datom_flight.NotFoundError)
    assert issubclass(datom_flight.IntegrityError, datom_flight.StoredDataError)
    assert issubclass(datom_flight.DatomError, Exception)


def test_every_action_is_described() -> None:
    described = {name for name in rows(ROOT / "docs" / "protocol.md") if name.startswith("datom.")}
    assert described == set(ACTIONS)


def test_the_examples_of_the_protocol_run_in_the_order_they_stand_in(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "protocol.md", "python"):
        code = block.replace("grpc://127.0.0.1:8815", server.url).replace("TOKEN", server.token())
        exec(compile(code, "docs/protocol.md", "exec"), names)
    names["client"].close()
    assert names["table"].equals(DM)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "not_found"


def test_the_example_of_an_error_names_the_attributes_there_are() -> None:
    (block,) = blocks(ROOT / "docs" / "errors.md", "python")
    error = DatomError("x")
    for attribute in re.findall(r"error\.(\w+)", block):
        assert hasattr(error, attribute)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} in {page.name}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z]+)", page.read_text())) <= targets
