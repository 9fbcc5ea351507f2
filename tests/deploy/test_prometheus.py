"""Alert and recording rules, by promtool's own checks and unit tests."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import DEPLOY, ROOT

PROMETHEUS = DEPLOY / "prometheus"
CASES = Path(__file__).with_name("alerts.test.yml")
ALERTS = [
    "EmptyAnswers",
    "BudgetViolations",
    "TruncationRateHigh",
    "QualityGap",
    "NotReady",
    "HighQueueTime",
]

Promtool = Callable[..., str]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


def test_the_configuration_is_valid(promtool: Promtool) -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "savings.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "alerts.yml")


def test_the_alerts_fire_when_they_must_and_only_then(promtool: Promtool) -> None:
    promtool("test", "rules", CASES)


def test_the_cases_can_fail(promtool: Promtool, tmp_path: Path) -> None:
    """The same cases against alerts that never fire."""
    for name in ("savings.yml", "alerts.yml"):
        text = (PROMETHEUS / name).read_text()
        rules = yaml.safe_load(text)
        for rule in rules["groups"][0]["rules"]:
            if "alert" in rule:
                rule["expr"] = "vector(0) > 1"
        (tmp_path / name).write_text(yaml.safe_dump(rules))
    cases = CASES.read_text().replace("../../deploy/prometheus", str(tmp_path))
    (tmp_path / "cases.yml").write_text(cases)
    with pytest.raises(AssertionError) as failed:
        promtool("test", "rules", tmp_path / "cases.yml")
    assert [name for name in ALERTS if f"alertname: {name}" not in str(failed.value)] == []


def test_each_alert_has_a_firing_and_a_quiet_case_and_a_runbook_section() -> None:
    assert [rule["alert"] for rule in alerts()] == ALERTS
    cases = [
        case
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    assert {case["alertname"] for case in cases if "exp_alerts" in case} == set(ALERTS)
    assert {case["alertname"] for case in cases if "exp_alerts" not in case} == set(ALERTS)
    for rule in alerts():
        page, _, section = rule["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        assert section in [anchor(heading) for heading in headings]
