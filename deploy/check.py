"""Checks everything in this folder with the tools that can, and says which of them are not on this machine.

``make check`` runs it. Tools beside this Python are pinned with it; others are used where they are.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml  # type: ignore[import-untyped]

HERE = Path(__file__).parent
MOST_EXPOSED = 15
"""What `systemd-analyze security` may find at most, in tenths; 100 is a service without any protection."""


class NotHere(Exception):  # noqa: N818
    """A tool is not on this machine."""


class Refused(Exception):  # noqa: N818
    """What a tool said against something."""


def dockerfiles() -> None:
    run("hadolint", *HERE.glob("**/Dockerfile"))


def compose_file() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", HERE / "compose" / "compose.yaml")


def compose_file_by_docker() -> None:
    try:
        run("docker", "compose", "version")
    except Refused:
        raise NotHere("docker compose") from None
    run("docker", "compose", "--file", HERE / "compose" / "compose.yaml", "config", "--quiet")


def manifests() -> None:
    found = (HERE / "kubernetes").glob("**/*.yaml")
    run("kubernetes-validate", "--strict", "--quiet", *(file for file in found if file.name != "kustomization.yaml"))


def kustomizations() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for overlay in (HERE / "kubernetes" / "overlays").iterdir():
            built = Path(folder, f"{overlay.name}.yaml")
            built.write_text(run("kubectl", "kustomize", overlay))
            run("kubernetes-validate", "--strict", "--quiet", built)


def unit() -> None:
    text = (HERE / "systemd" / "datom-flight.service").read_text()
    with tempfile.TemporaryDirectory() as folder:
        # what it starts need not be installed here
        copy = Path(folder, "datom-flight.service")
        copy.write_text(text.replace("/opt/datom-flight/bin/datom-flight-server", "/bin/true"))
        run("systemd-analyze", "verify", "--man=no", copy)
        run("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", copy)


def edge() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tls").mkdir()
        for file in (HERE / "envoy").glob("*.yaml"):
            Path(folder, file.name).write_text(file.read_text().replace("/etc/envoy", folder))
        run("envoy", "--mode", "validate", "--log-level", "warn", "--config-path", Path(folder, "envoy.yaml"))


def queries() -> None:
    rules = yaml.safe_load((HERE / "prometheus" / "alerts.yaml").read_text())
    dashboards = [json.loads(file.read_text()) for file in (HERE / "grafana" / "dashboards").iterdir()]
    for query in expressions([rules, *dashboards]):
        try:
            # Grafana puts a duration there
            promql_parser.parse(re.sub(r"\$__\w+", "5m", query))
        except ValueError as error:
            raise Refused(f"{query}\n{error}") from None


def expressions(document: Any) -> Iterator[str]:
    """What stands under a key ``expr``, at any depth."""
    if isinstance(document, dict):
        if isinstance(document.get("expr"), str):
            yield document["expr"]
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from expressions(part)


def prometheus() -> None:
    run("promtool", "check", "config", HERE / "prometheus" / "prometheus.yml")
    run("promtool", "test", "rules", HERE / "prometheus" / "alerts.test.yaml")


def run(name: str, *arguments: str | Path) -> str:
    """What the tool `name` prints.

    Raises:
        NotHere: the tool is not on this machine.
        Refused: it ended with something else than 0.
    """
    tool = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if tool is None:
        raise NotHere(name)
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    if done.returncode != 0:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


def outcomes(checks: tuple[Callable[[], None], ...]) -> Iterator[tuple[str, str]]:
    """Name and outcome of each check: ``ok``, what was said against it, or what is not here."""
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            check()
        except NotHere as tool:
            yield name, f"not checked: {tool} is not on this machine"
        except Refused as refusal:
            yield name, f"refused\n{refusal}"
        else:
            yield name, "ok"


if __name__ == "__main__":
    refused = False
    checks = (
        dockerfiles,
        compose_file,
        compose_file_by_docker,
        manifests,
        kustomizations,
        unit,
        edge,
        queries,
        prometheus,
    )
    for name, outcome in outcomes(checks):
        print(f"deploy: {name}: {outcome}", flush=True)
        refused = refused or outcome.startswith("refused")
    sys.exit(refused)
