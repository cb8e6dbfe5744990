"""The two commands, as people type them: what they print where, and how they end."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from support.server import Server, run_command, running, write_config
from support.stores import write_store

DM = pa.table(
    {
        "USUBJID": ["01-001", "01-002", "01-003"],
        "AGE": pa.array([71, None, 58], pa.int32()),
        "SEX": pa.array(["F", "M", "F"]).dictionary_encode(),
    }
)
OLDER = DM.slice(0, 2)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def versions() -> dict[str, list[str]]:
    return {}


@pytest.fixture(scope="module")
def server(versions: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("commands")
    versions.update(write_store(folder / "store", {"dm": [OLDER, DM], "ae": [DM]}))
    with running(write_config(folder, {"STUDY_001": {"data": f"file://{folder / 'store'}"}})) as server:
        yield server


@pytest.fixture
def run(server: Server, tmp_path: Path) -> Run:
    """Runs ``datom-flight`` with a reader's token in the environment."""
    environment = {
        "DATOM_FLIGHT_URL": server.url,
        "DATOM_FLIGHT_PROJECT": "STUDY_001",
        "DATOM_FLIGHT_TOKEN": server.token(),
    }
    return lambda *arguments, **more: run_command("datom-flight", *arguments, home=tmp_path, **{**environment, **more})


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert result.returncode == code, result.stdout + result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if code == 1:
        assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


# datom-flight


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["whoami"], {"principal", "role", "projects"}),
        (["summary"], {"project", "role", "backend", "root", "prefix", "tables", "sets", "versions", "size_bytes",
                       "last_updated"}),
        (["projects"], {"name", "backend", "root", "prefix", "tables"}),
        (["tables"], {"name", "kind", "version", "data_sha", "size_bytes", "last_updated", "versions"}),
        (["history", "dm"], {"version", "data_sha", "parquet_sha", "timestamp", "author", "message", "commit"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_json_is_one_document_with_the_python_names_and_csv_has_them_as_its_header(
    run: Run, arguments: list[str], keys: set[str]
) -> None:
    body = json.loads(done(run(*arguments, "--format", "json")))
    first = body[0] if isinstance(body, list) else body
    assert set(first) == keys
    rows = list(csv.DictReader(io.StringIO(done(run(*arguments, "--format", "csv")))))
    assert set(rows[0]) == keys
    assert len(rows) == (len(body) if isinstance(body, list) else 1)
    assert done(run(*arguments)).strip()


def test_history_says_what_the_connection_says(run: Run, versions: dict[str, list[str]]) -> None:
    body = json.loads(done(run("history", "dm", "--format", "json")))
    assert [row["version"] for row in body] == versions["dm"][::-1]
    assert body[0]["timestamp"] == "2026-02-01T12:00:00Z"
    table = done(run("history", "dm"))
    assert versions["dm"][1][:8] in table
    assert "Ann <ann@example.org>" in table


def test_read_prints_rows_as_a_table_csv_or_json(run: Run) -> None:
    table = done(run("read", "dm"))
    assert table.splitlines()[0].split() == ["USUBJID", "AGE", "SEX"]
    assert "01-003" in table
    rows = json.loads(done(run("read", "dm", "--format", "json")))
    assert rows == [
        {"USUBJID": "01-001", "AGE": 71, "SEX": "F"},
        {"USUBJID": "01-002", "AGE": None, "SEX": "M"},
        {"USUBJID": "01-003", "AGE": 58, "SEX": "F"},
    ]
    text = done(run("read", "dm", "--format", "csv"))
    assert pa_csv.read_csv(io.BytesIO(text.encode())).to_pylist() == rows


def test_read_takes_columns_a_where_a_limit_and_a_version(run: Run, versions: dict[str, list[str]]) -> None:
    def rows(*arguments: str) -> Any:
        return json.loads(done(run("read", "dm", "--format", "json", *arguments)))

    assert rows("--columns", "SEX,USUBJID", "--where", "AGE >= 58", "--limit", "1") == [
        {"SEX": "F", "USUBJID": "01-001"}
    ]
    assert len(rows("--version", versions["dm"][0][:10])) == 2
    assert len(rows("--as-of", "2026-01-15")) == 2
    assert len(rows("--as-of", "2026-02-15")) == 3


@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv", "json"])
def test_read_writes_the_format_of_the_file_s_ending(run: Run, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"dm.{ending}"
    result = run("read", "dm", "-o", str(target))
    assert done(result) == ""
    read: dict[str, Callable[[], list[Any]]] = {
        "parquet": lambda: pq.read_table(target).to_pylist(),
        "arrow": lambda: pa.ipc.open_file(target).read_all().to_pylist(),
        "csv": lambda: pa_csv.read_csv(target).to_pylist(),
        "json": lambda: json.loads(target.read_text()),
    }
    assert read[ending]() == DM.to_pylist()
    assert [path.name for path in tmp_path.glob("dm*")] == [target.name]


def test_a_file_of_an_unknown_ending_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    assert ".parquet" in refused(run("read", "dm", "-o", str(tmp_path / "dm.xls")), 2)


def test_a_pin_is_saved_read_and_verified(
    server: Server, run: Run, versions: dict[str, list[str]], tmp_path: Path
) -> None:
    pin = tmp_path / "pin.json"
    assert done(run("pin", "-o", str(pin))) == ""
    assert set(json.loads(pin.read_text())["tables"]) == {"ae", "dm"}
    done(run("pin", "dm", "--as-of", "2026-01-15", "-o", str(pin)))
    assert json.loads(pin.read_text())["tables"]["dm"]["version"] == versions["dm"][0]
    assert len(json.loads(done(run("read", "dm", "--pin", str(pin), "--format", "json")))) == 2
    (finding,) = json.loads(done(run("verify", str(pin), "--format", "json")))
    assert (finding["table"], finding["version"], finding["ok"]) == ("dm", versions["dm"][0], True)
    pin.write_text(pin.read_text().replace(json.loads(pin.read_text())["tables"]["dm"]["data_sha"], "ab" * 32))
    result = run("verify", str(pin), "--format", "json")
    assert result.returncode == 1
    (finding,) = json.loads(result.stdout)
    assert (finding["table"], finding["ok"]) == ("dm", False)


def test_a_refusal_is_one_line_that_says_what_and_what_to_do_and_exits_1(run: Run) -> None:
    assert "nope" in refused(run("read", "nope"))
    assert "history" in refused(run("read", "dm", "--version", "0123456789"))
    assert "NOPE" in refused(run("read", "dm", "--columns", "NOPE"))
    assert "where" in refused(run("read", "dm", "--where", "AGE >= (SELECT 1)")).lower()
    assert "token" in refused(run("whoami", DATOM_FLIGHT_TOKEN="not-a-token"))
    assert "127.0.0.1:1" in refused(run("whoami", "--url", "grpc://127.0.0.1:1"))


@pytest.mark.parametrize("arguments", ["nope", "read", "read dm --limit x", "tables --format xml", "--nope"])
def test_wrong_usage_exits_2(run: Run, arguments: str) -> None:
    refused(run(*arguments.split()), 2)


def test_the_token_may_be_in_a_file(server: Server, run: Run, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(server.token("developer", principal="bob") + "\n")
    body = json.loads(done(run("whoami", "--token-file", str(token), "--format", "json", DATOM_FLIGHT_TOKEN="")))
    assert (body["principal"], body["role"]) == ("bob", "developer")


def test_without_a_keyring_login_says_what_to_do_instead(server: Server, run: Run, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(server.token())
    assert "DATOM_FLIGHT_TOKEN" in refused(run("login", server.url, "--token-file", str(token)))


def test_no_command_shows_the_token(server: Server, run: Run) -> None:
    for arguments in (["whoami"], ["summary"], ["tables"], ["read", "nope"]):
        result = run(*arguments)
        assert server.token() not in result.stdout + result.stderr


# datom-flight-server


def test_token_create_prints_the_token_and_nothing_else(server: Server, tmp_path: Path) -> None:
    result = run_command(
        "datom-flight-server", "token", "create", "--config", str(server.config), "--principal", "ann",
        "--role", "reader", "--project", "STUDY_001", "--expires", "30d", home=tmp_path,
    )  # fmt: skip
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done(result))
    assert result.stderr == ""


def test_check_says_whether_all_is_well(server: Server, tmp_path: Path) -> None:
    result = run_command("datom-flight-server", "check", "--config", str(server.config), home=tmp_path)
    assert "STUDY_001" in done(result)
    config = write_config(tmp_path / "gone", {"GONE": {"data": f"file://{tmp_path / 'nowhere'}"}})
    result = run_command("datom-flight-server", "check", "--config", str(config), home=tmp_path)
    assert result.returncode == 1
    assert "GONE" in result.stdout


@pytest.mark.parametrize(
    ("section", "body", "named"),
    [
        ("server", {"listne": "grpc://127.0.0.1:0"}, ["server.listne", "listen"]),
        ("server", {"metadata_max_age_seconds": "soon"}, ["server.metadata_max_age_seconds", "number"]),
        ("auth", {"secret": "env:DATOM_NOT_SET"}, ["auth.secret", "DATOM_NOT_SET"]),
        ("auth", {"secret": "hunter2"}, ["auth.secret", "env:"]),
        ("cache", {"disk_bytes": "much"}, ["cache.disk_bytes", "20GB"]),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_wrong_setting_stops_the_start_with_its_full_name(
    tmp_path: Path, section: str, body: dict[str, Any], named: list[str]
) -> None:
    config = write_config(tmp_path / "server", {}, **{section: body})
    result = run_command("datom-flight-server", "serve", "--config", str(config), home=tmp_path)
    said = refused(result)
    for word in named:
        assert word in said
    assert "hunter2" not in said


def test_serve_ends_with_0_when_it_is_asked_to(tmp_path: Path) -> None:
    write_store(tmp_path / "store", {"dm": [DM]})
    server = Server(write_config(tmp_path / "server", {"STUDY_001": {"data": f"file://{tmp_path / 'store'}"}}))
    with server.connect("STUDY_001") as connection:
        assert connection.read("dm").equals(DM)
    assert server.stop() == 0
