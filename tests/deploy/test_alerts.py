"""Alerts and dashboards use what there is, and whoever is called finds what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
RUNBOOK = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", (ROOT / "docs" / "operating.md").read_text(), re.M | re.S))
QUERIES = [ROOT / "deploy" / "prometheus" / "alerts.yaml", *(ROOT / "deploy" / "grafana" / "dashboards").iterdir()]


def test_every_alert_has_its_place_in_the_runbook() -> None:
    assert [alert["alert"] for alert in ALERTS] == list(RUNBOOK)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_the_runbook_says_which_alerts_page(alert: dict[str, Any]) -> None:
    assert ("*Pages.*" in RUNBOOK[alert["alert"]]) is (alert["labels"]["severity"] == "page")


@pytest.mark.parametrize("file", QUERIES, ids=lambda file: file.name)
def test_every_metric_that_is_asked_for_is_documented(file: Path) -> None:
    documented = set(re.findall(r"^\| `(datom_flight_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.M))
    asked = set(re.findall(r"\bdatom_flight_\w+", file.read_text()))
    assert asked
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked} <= documented
