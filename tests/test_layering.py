"""What the import contracts in pyproject.toml cannot see: parts of a library, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLIGHT_HOMES = (
    "flight_server/datom_flight_server/flight/",
    "client/datom_flight/calls.py",
    "client/datom_flight/connection.py",
    "client/datom_flight/failures.py",
    "client/datom_flight/plans.py",
    "client/datom_flight/replicas.py",
    "client/datom_flight/streams.py",
    "client/datom_flight/uploads.py",
)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for root in ("client", "flight_server"):
        for path in sorted((ROOT / root).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_flight_is_imported_by_the_service_and_the_client_s_calls_alone() -> None:
    found = [path for path, tree in modules() if any(name.startswith("pyarrow.flight") for name in imports(tree))]
    assert [path for path in found if not path.startswith(FLIGHT_HOMES)] == []


def test_only_the_commands_and_connect_read_the_environment() -> None:
    readers = {
        path
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and ast.unparse(node.value) == "os"
    }
    assert readers <= {
        "client/datom_flight/cli/__init__.py",
        "client/datom_flight/cli/reading.py",
        "client/datom_flight/credentials.py",
        "client/datom_flight/opening.py",
        "flight_server/datom_flight_server/cli.py",
        "flight_server/datom_flight_server/demo/story.py",  # hands it on to the commands it runs
        "flight_server/datom_flight_server/sql/processes.py",  # hands on where libraries are, and nothing else
    }


def test_only_the_commands_print_and_exit() -> None:
    printers = {
        path
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.exit", "os._exit")
    }
    assert printers <= {
        "client/datom_flight/cli/__init__.py",
        "client/datom_flight/output.py",
        "flight_server/datom_flight_server/cli.py",
        "flight_server/datom_flight_server/sql/worker.py",  # a process of its own
    }


def test_the_protocol_can_be_imported_without_arrow_or_a_keyring() -> None:
    code = (
        "import sys, datom_flight, datom_flight.protocol.messages\n"
        "print([name for name in ('pyarrow', 'keyring', 'click', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_server_loads_what_only_some_need_when_it_needs_it() -> None:
    # a third of the time to start, and of the memory of a server that waits
    code = (
        "import sys, datom_flight_server.app\n"
        "print([name for name in ('botocore', 'pygit2', 'duckdb', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
