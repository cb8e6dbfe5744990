"""The fixtures' repositories, as bare clones of their bundles."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .expected import FIXTURES

RECORDED_ROOT = "/srv/datom/fixtures"


def git(*arguments: str, cwd: Path) -> str:
    """What ``git`` prints for `arguments`, in a repository nobody's own settings reach."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Ann",
        "GIT_AUTHOR_EMAIL": "ann@example.org",
        "GIT_COMMITTER_NAME": "Ann",
        "GIT_COMMITTER_EMAIL": "ann@example.org",
    }
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
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
