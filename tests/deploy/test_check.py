"""The checks of ``deploy/check.py`` can fail: each refuses a copy that is broken in its own way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"

BROKEN = {
    "dockerfiles": ("container/Dockerfile", "WORKDIR /src", "WORKDIR src"),
    "compose file": ("compose/compose.yaml", "restart: unless-stopped", "restarts: unless-stopped"),
    "manifests": ("kubernetes/base/deployment.yaml", "terminationGracePeriodSeconds", "terminationGraceSeconds"),
    "unit": ("systemd/datom-flight.service", "CapabilityBoundingSet=", "CapabilityBoundingSet=CAP_SYS_ADMIN"),
    "queries": ("prometheus/alerts.yaml", "increase(", "increases("),
    "edge": ("envoy/envoy.yaml", "max_requests: 1024", "max_requests: many"),
}


def test_what_is_broken_is_refused(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    for name, old, new in BROKEN.values():
        file = tmp_path / "deploy" / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    done = subprocess.run(
        [sys.executable, tmp_path / "deploy" / "check.py"], capture_output=True, text=True, timeout=120, check=False
    )
    outcomes = dict(
        line.removeprefix("deploy: ").split(": ", 1) for line in done.stdout.splitlines() if line[:8] == "deploy: "
    )
    refused = {name for name, outcome in outcomes.items() if outcome == "refused"}
    elsewhere = {name for name, outcome in outcomes.items() if outcome.startswith("not checked: ")}
    assert refused | (elsewhere & {"unit"}) >= set(BROKEN)
    assert done.returncode == 1
