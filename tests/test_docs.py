"""The documentation tells the truth: what it lists is there, what it shows runs, what it links to exists."""

from __future__ import annotations

import doctest
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datom_flight.protocol.errors import CODES, DatomError
from datom_flight.protocol.messages import ACTIONS
from datom_flight_server.demo.serving import demo_settings
from datom_flight_server.demo.store import create_organisation
from datom_flight_server.demo.story import CUTS_AT_HANDOFF, write_cuts
from datom_flight_server.model import DataLocation
from datom_flight_server.settings import Settings
from support.server import Server, run_command, running, write_config
from support.stores import write_store
from support.tls import write_certificate

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

DM = pa.table({"USUBJID": ["01-001", "01-002", "01-003"], "AGE": [71, 64, 58], "SEX": ["F", "M", "F"]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("docs")
    write_store(folder / "store", {"dm": [DM.slice(0, 2), DM]})
    with running(write_config(folder, {"STUDY_001": {"data": f"file://{folder / 'store'}"}})) as server:
        yield server


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that `make serve` starts, on a free port."""
    organisation = create_organisation(tmp_path_factory.mktemp("demo"))
    write_cuts(organisation, CUTS_AT_HANDOFF)
    demo_settings(organisation, "grpc://127.0.0.1:0")
    with running(organisation.root / "server.toml") as server:
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


def test_the_session_in_the_readme_goes_as_it_shows(
    demo: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATOM_FLIGHT_TOKEN", demo.token("reader", "STUDY_001"))
    (session,) = blocks(ROOT / "README.md", "pycon")
    session = session.replace("grpc://127.0.0.1:8815", demo.url)
    example = doctest.DocTestParser().get_doctest(session, {}, "README.md", "README.md", 0)
    report: list[str] = []
    failed, tried = doctest.DocTestRunner().run(example, out=report.append, clear_globs=False)
    assert tried > 5
    assert failed == 0, "".join(report)
    example.globs["conn"].close()


def test_the_commands_in_the_readme_print_what_it_shows(demo: Server, tmp_path: Path) -> None:
    (session,) = [block for block in blocks(ROOT / "README.md", "console") if block.startswith("$ ")]
    for step in session.removeprefix("$ ").split("\n$ "):
        line, _, shown = step.partition("\n")
        name, *arguments = shlex.split(line)
        result = run_command(
            name,
            *arguments,
            home=tmp_path,
            DATOM_FLIGHT_URL=demo.url,
            DATOM_FLIGHT_PROJECT="STUDY_001",
            DATOM_FLIGHT_TOKEN=demo.token("reader", "STUDY_001"),
        )
        assert result.returncode == 0, result.stderr
        assert (result.stdout + result.stderr).strip() == shown.strip()


def test_every_command_in_the_readme_is_understood(tmp_path: Path) -> None:
    text = "\n".join(blocks(ROOT / "README.md", "console")).replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ )?(datom-flight(?:-server)? .*)$", text, re.M)
    assert len(lines) > 8
    for line in lines:
        name, *words = shlex.split(line, comments=True)
        command = list(itertools.takewhile(lambda word: re.fullmatch("[a-z]+", word), words))
        depth = 2 if command[0] == "token" else 1
        shown = run_command(name, *command[:depth], "--help", home=tmp_path)
        assert shown.returncode == 0, shown.stderr
        for option in re.findall(r" (--?[a-z][a-z-]*)", line):
            assert option in shown.stdout, f"{option} in: {line}"


def test_the_server_s_settings_in_the_readme_are_taken(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "README.md", "toml")
    certificate, key = write_certificate(tmp_path)
    assert (certificate.name, key.name) == ("server.crt", "server.key")
    (tmp_path / "server.toml").write_text(text)
    environment = {"DATOM_FLIGHT_SECRET": "s" * 64, "DATOM_FLIGHT_REPO_TOKEN": "t" * 40}
    settings = Settings.load(tmp_path / "server.toml", environment)
    assert settings.projects["STUDY_001"].data == DataLocation("s3", "study-001-datom")


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
