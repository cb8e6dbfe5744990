"""What is in ``deploy/`` fits together, and is what the page about deploying says."""

from __future__ import annotations

import configparser
import itertools
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from datom_flight_server.settings import Settings
from support.server import run_command
from support.tls import write_certificate

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("deploying", "operating", "security", "upgrading")]
SETTINGS = sorted(DEPLOY.glob("**/server.toml"))

UNITS = {"k": 1000, "m": 1000**2, "g": 1000**3, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}
QUERY_OVERHEAD = 768 * 1024**2
SERVER_BYTES = 10**9


def settings(file: Path, folder: Path) -> Settings:
    """The settings in `file`, with secrets and a certificate in `folder`."""
    certificate, key = write_certificate(folder)
    (folder / "secret").write_text("s" * 64)
    text = re.sub(r'^certificate = ".*"', f'certificate = "{certificate}"', file.read_text(), flags=re.M)
    text = re.sub(r'^key = ".*"', f'key = "{key}"', text, flags=re.M)
    text = re.sub(r'"(file:(?!/srv)|env:)[^"]*"', f'"file:{folder / "secret"}"', text)
    return Settings.parse(tomllib.loads(text), file, {})


def manifest(name: str) -> Any:
    return yaml.safe_load((DEPLOY / "kubernetes" / "base" / f"{name}.yaml").read_text())


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / "datom-flight.service")
    return parser["Service"]


def number(text: str) -> float:
    """A quantity as Kubernetes and compose write it."""
    match = re.fullmatch(r"([0-9]+)([A-Za-z]*)", text)
    assert match is not None
    return int(match[1]) * UNITS[match[2]]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("file", SETTINGS, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_settings_are_taken(file: Path, tmp_path: Path) -> None:
    taken = settings(file, tmp_path)
    assert {address.rpartition(":")[2] for address in (taken.server.management or "", taken.server.health or "")} == {
        "8816",
        "8817",
    }
    assert taken.server.listen.endswith(":8815")


def test_whoever_stops_the_server_leaves_it_its_grace_period(tmp_path: Path) -> None:
    grace = {file.parent.name: settings(file, tmp_path).server.shutdown_grace_seconds for file in SETTINGS}
    pod = manifest("deployment")["spec"]["template"]["spec"]
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > grace["base"] + before
    assert seconds(unit()["TimeoutStopSec"]) > grace["systemd"]
    assert seconds(compose()["services"]["server"]["stop_grace_period"]) > grace["compose"]


def test_what_the_settings_allow_fits_the_memory_and_the_disk_given(tmp_path: Path) -> None:
    container = manifest("deployment")["spec"]["template"]["spec"]
    limits = container["containers"][0]["resources"]["limits"]
    (cache,) = [volume["emptyDir"] for volume in container["volumes"] if volume["name"] == "cache"]
    inside = settings(DEPLOY / "kubernetes" / "base" / "server.toml", tmp_path)
    assert _most_memory(inside) <= number(limits["memory"])
    assert inside.cache.disk_bytes + inside.sql.max_concurrent * inside.sql.spill_bytes <= number(cache["sizeLimit"])
    assert number(cache["sizeLimit"]) < number(limits["ephemeral-storage"])
    together = settings(DEPLOY / "compose" / "server.toml", tmp_path)
    assert _most_memory(together) <= number(compose()["services"]["server"]["mem_limit"].upper().replace("G", "Gi"))


def _most_memory(settings: Settings) -> float:
    queries = settings.sql.max_concurrent * (settings.sql.memory_bytes + QUERY_OVERHEAD)
    return settings.cache.memory_bytes + queries + SERVER_BYTES


def test_every_manifest_is_part_of_the_kustomization() -> None:
    base = DEPLOY / "kubernetes" / "base"
    listed = yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(file.name for file in base.glob("*.yaml") if file.name != "kustomization.yaml")


def test_every_selector_finds_the_pods() -> None:
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service")["spec"]["selector"] == labels
    assert manifest("service-replicas")["spec"]["selector"] == labels
    assert manifest("pod-disruption-budget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("network-policy")["spec"]["podSelector"]["matchLabels"] == labels


def test_secrets_are_only_referred_to() -> None:
    kinds = [yaml.safe_load(file.read_text()).get("kind") for file in DEPLOY.glob("kubernetes/**/*.yaml")]
    assert "Secret" not in kinds
    for file in SETTINGS:
        for key in re.findall(
            r'^(?:secret|secret_key|access_key|token|repo_token|key) = "(.*)"', file.read_text(), re.M
        ):
            assert key.startswith(("file:", "env:", "/run/secrets/"))


def test_commands_that_are_shown_are_understood(tmp_path: Path) -> None:
    blocks = [
        block for page in PAGES for block in re.findall(r"^```console\n(.*?)^```$", page.read_text(), re.M | re.S)
    ]
    text = "\n".join(blocks).replace("\\\n", " ")
    lines = re.findall(r"(?:^|bin/|exec server |-- +)(datom-flight(?:-server)? [a-z].*)$", text, re.M)
    assert len(lines) > 8
    for line in lines:
        name, *words = shlex.split(line, comments=True)
        command = list(itertools.takewhile(lambda word: re.fullmatch("[a-z]+", word), words))
        depth = 2 if command[0] == "token" else 1
        shown = run_command(name, *command[:depth], "--help", home=tmp_path)
        assert shown.returncode == 0, f"{line}: {shown.stderr}"
        for option in re.findall(r" (--[a-z][a-z-]*)", line):
            assert option in shown.stdout, f"{option} in: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_of_the_repository_that_are_named_exist(page: Path) -> None:
    made = {"deploy/kubernetes/overlays/acme", "deploy/kubernetes/overlays/acme/namespace.yaml"}
    for name in set(re.findall(r"\b(?:deploy|requirements)/[\w./-]*\w", page.read_text())) - made:
        assert (ROOT / name).exists(), name


def test_the_images_that_may_be_pinned_are_named() -> None:
    text = (DEPLOY / "compose" / "compose.yaml").read_text()
    variables = set(re.findall(r"\$\{(\w+_IMAGE):-", text)) - {"DATOM_FLIGHT_IMAGE"}
    assert variables
    for variable in variables:
        assert f"`{variable}`" in (ROOT / "docs" / "deploying.md").read_text()
