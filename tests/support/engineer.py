"""An R engineer at work: commits to a project by git, pushes, then mirrors to the storage, as R datom does.

Run as a program: ``REMOTE WORK ROOT PREFIX TABLES WRITES``. Clones the repository at REMOTE into WORK, and writes
WRITES versions over the comma-separated TABLES. The storage is below the folder ROOT and PREFIX. Prints
``TABLE VERSION`` for each version that is pushed and mirrored.

What is mirrored is what was pushed, whatever others have pushed since: nothing is looked at again.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datom_flight.identity import data_sha
from datom_flight_server.metadata import layout
from datom_flight_server.metadata.current import Current, history_path, metadata_path
from datom_flight_server.metadata.documents import (
    Change,
    Plan,
    TableWrite,
    plan_table,
    storage_history,
    version_commits,
)
from datom_flight_server.metadata.git import Author
from datom_flight_server.metadata.manifest import MANIFEST_PATH
from datom_flight_server.model import Kind
from datom_flight_server.storage.local import LocalStore

from .git import environment

WHO = Author("Rae Engineer", "rae@example.org")
GIT_SECONDS = 60


def content(writer: str, number: int) -> pa.Table:
    """The rows of one write: no two writers' are the same."""
    return pa.table({"writer": [writer] * 3, "number": pa.array([number, number + 1, None], pa.int32())})


class Engineer:
    """A clone of the project's repository, and access to its storage."""

    def __init__(self, remote: str, work: Path, store: LocalStore) -> None:
        self._work = work
        self._store = store
        work.mkdir(parents=True)
        self._git("clone", "--quiet", remote, ".")

    def write(self, name: str, table: pa.Table) -> str:
        """Commit, push (again from the start when others were faster), then mirror; gives the version."""
        with tempfile.TemporaryDirectory() as folder:
            parquet = Path(folder) / "table.parquet"
            pq.write_table(table, parquet)
            data = parquet.read_bytes()
            write = TableWrite(
                data_sha=data_sha(table),
                parquet_sha=hashlib.sha256(data).hexdigest(),
                size_bytes=len(data),
                rows=table.num_rows,
                columns=tuple(table.column_names),
            )
            while True:
                plan = plan_table(Current.read(name, self._read), write, Change(WHO, datetime.now(UTC)))
                if self._pushed(plan):
                    break
                self._git("fetch", "--quiet", "origin", "main")
                self._git("reset", "--quiet", "--hard", "origin/main")
            self._mirror(name, plan, parquet)
        return plan.version

    def _read(self, path: str) -> bytes | None:
        file = self._work / path
        return file.read_bytes() if file.exists() else None

    def _pushed(self, plan: Plan) -> bool:
        for path, data in plan.files.items():
            (self._work / path).parent.mkdir(exist_ok=True)
            (self._work / path).write_bytes(data)
        self._git("add", "--force", *plan.files)
        self._git("commit", "--quiet", "--message", plan.message)
        return self._run("push", "--quiet", "origin", "HEAD:main").returncode == 0

    def _mirror(self, name: str, plan: Plan, parquet: Path) -> None:
        current = Current.read(name, self._read)
        commits = version_commits(self._states(history_path(name)), current.versions)
        metadata = plan.files[metadata_path(name)]
        self._store.put_file(layout.payload_key(name, Kind.TABLE, plan.data_sha), parquet)
        self._store.put(layout.metadata_key(name), metadata)
        self._store.put(layout.history_key(name), storage_history(current.history, commits))
        self._store.put(layout.snapshot_key(name, plan.version), metadata)
        self._store.put(layout.MANIFEST_KEY, plan.files[MANIFEST_PATH])

    def _states(self, path: str) -> Iterator[tuple[str, bytes]]:
        for commit in self._git("log", "--format=%H", "--", path).split():
            yield commit, self._git("show", f"{commit}:{path}").encode()

    def _git(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode != 0:
            raise RuntimeError(f"git {arguments[0]}: {done.stderr}")
        return done.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments],
            cwd=self._work,
            env={**environment(self._work), "GIT_AUTHOR_NAME": WHO.name, "GIT_AUTHOR_EMAIL": WHO.email},
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )


def main() -> None:
    """See the module."""
    remote, work, root, prefix, tables, writes = sys.argv[1:]
    engineer = Engineer(remote, Path(work), LocalStore(root, prefix))
    names = tables.split(",")
    for number in range(int(writes)):
        name = names[number % len(names)]
        print(name, engineer.write(name, content("engineer", number)), flush=True)


if __name__ == "__main__":
    main()
