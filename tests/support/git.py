"""The fixtures' repositories, as bare clones of their bundles."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .expected import FIXTURES

RECORDED_ROOT = "/srv/datom/fixtures"


def environment(home: Path) -> dict[str, str]:
    """Variables for ``git`` with which nobody's own settings reach it, and nobody is asked anything."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Ann",
        "GIT_AUTHOR_EMAIL": "ann@example.org",
        "GIT_COMMITTER_NAME": "Ann",
        "GIT_COMMITTER_EMAIL": "ann@example.org",
    }


def git(*arguments: str, cwd: Path) -> str:
    """What ``git`` prints for `arguments`, in a repository nobody's own settings reach."""
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=environment(cwd), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def clone_governance(folder: Path) -> Path:
    """A bare governance repository in `folder` whose projects lie in the fixtures of this checkout."""
    folder.mkdir(parents=True)
    git("clone", "--quiet", str(FIXTURES / "gov" / "gov.bundle"), "work", cwd=folder)
    work = folder / "work"
    for path in work.rglob("ref.json"):
        path.write_text(path.read_text().replace(RECORDED_ROOT, str(FIXTURES)))
    git("commit", "--quiet", "--all", "--message", "Say where the data is here", cwd=work)
    git("clone", "--quiet", "--bare", "work", "governance.git", cwd=folder)
    return folder / "governance.git"
