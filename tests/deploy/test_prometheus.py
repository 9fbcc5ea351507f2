"""Alert and recording rules, by promtool's own checks and unit tests."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import demo
import httpx
import pytest
import yaml

from .conftest import DEPLOY, ROOT

PROMETHEUS = DEPLOY / "prometheus"
CASES = Path(__file__).with_name("alerts.test.yml")
ALERTS = [
    "EmptyAnswers",
    "BudgetViolations",
    "TruncationRateHigh",
    "DeadlineMissed",
    "PoolsExhausted",
    "PoolStoreDown",
    "LoopRateHigh",
    "QualityGap",
    "NotReady",
    "EngineStalled",
    "EngineResumes",
    "LoadSheddingHigh",
    "HighQueueTime",
]

WAIT_SECONDS = 60

Promtool = Callable[..., str]
Program = Callable[[str], Path]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


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
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert headings == ALERTS


def test_a_raised_alert_links_to_its_section(program: Program, tmp_path: Path) -> None:
    """Where there is no server, NotReady is pending at once, with the address it was raised at."""
    program("prometheus")
    with demo.prometheus(tmp_path, "http://127.0.0.1:9") as url:

        def raised() -> list[dict[str, Any]]:
            reply = httpx.get(f"{url}/api/v1/alerts").raise_for_status()
            return list(reply.json()["data"]["alerts"])

        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := raised()):
            assert time.monotonic() < deadline, "no alert was raised"
            time.sleep(0.1)
        (alert,) = found
        assert alert["labels"]["alertname"] == "NotReady"
        page, _, section = alert["annotations"]["runbook_url"].partition("#")
        assert page == f"{url}/consoles/runbook.html"
        shown = httpx.get(page).raise_for_status()
        assert shown.headers["content-type"].startswith("text/html")
        assert f'<h2 id="{section}">NotReady</h2>' in shown.text


def test_every_alert_links_to_the_page_of_the_prometheus_that_raised_it() -> None:
    page = (PROMETHEUS / "consoles" / "runbook.html").read_text()
    sections = {name: section for section, name in re.findall(r'<h2 id="(.+)">(.+)</h2>', page)}
    for rule in alerts():
        link = f"{{{{ $externalURL }}}}/consoles/runbook.html#{sections[rule['alert']]}"
        assert rule["annotations"]["runbook_url"] == link


def test_the_runbook_as_a_page_links_to_nothing_that_is_not_served() -> None:
    page = (PROMETHEUS / "consoles" / "runbook.html").read_text()
    assert "{{" not in page  # Prometheus would expand it
    assert re.findall(r'href="(?!https?://|#)', page) == []
