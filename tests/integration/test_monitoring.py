"""A real Prometheus scrapes a real server: every query of the dashboard returns data there."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import demo
import httpx
import pytest

from waiting import wait_until

from .conftest import ServerProcess, start_server

pytestmark = pytest.mark.engine

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "ponder.json"
VARIABLES = {"$job": "ponder", "$__rate_interval": "1m", "$__range": "1h"}


@dataclass
class Monitored:
    server: ServerProcess
    prometheus: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        reply = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": expression})
        assert reply.status_code == 200, reply.text
        result: list[dict[str, Any]] = reply.json()["data"]["result"]
        return result

    def value(self, expression: str) -> float:
        (only,) = self.query(expression)
        return float(only["value"][1])

    def comes_to(self, expression: str, value: float) -> None:
        """Wait until a query has this value: a scrape and the rules after it take their time."""

        def there() -> bool:
            found = [float(series["value"][1]) for series in self.query(expression)]
            return found == [pytest.approx(value, rel=1e-6)]

        wait_until(there)


@pytest.fixture(scope="module")
def monitored(
    program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Monitored]:
    """A server with a holdout under the demo's load, until its savings are measured."""
    program("prometheus")
    folder = tmp_path_factory.mktemp("monitoring")
    options = ["--default-budget", "24", "--holdout", "0.5", "--holdout-key", "a key for the tests"]
    server = start_server(folder / "log", *options)
    try:
        server.wait_ready()
        with demo.prometheus(folder, server.url) as prometheus:
            both = Monitored(server, prometheus)
            chat = f"{server.url}/v1/chat/completions"
            assert httpx.post(chat, json={"messages": []}).status_code == 400
            while savings(server)["status"] != "measured":
                tally = asyncio.run(demo.load(server.url, 10))
                assert not tally.errors
            # Nothing is asked any more: what is scraped now stays.
            scraped = 'ponder_holdout_tokens_count{arm="policy"}'
            both.comes_to(scraped, savings(server)["tokens"]["policy"]["count"])
            yield both
    finally:
        server.stop()


def savings(server: ServerProcess) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/v1/ponder/savings").raise_for_status().json())


def test_every_query_of_the_dashboard_returns_data(monitored: Monitored) -> None:
    silent = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            found = [float(series["value"][1]) for series in monitored.query(expression)]
            if not any(map(math.isfinite, found)):
                silent.append((panel["title"], expression, found))
    assert silent == []


@pytest.mark.parametrize("measure", ["tokens", "seconds"])
def test_prometheus_records_what_the_server_reports(monitored: Monitored, measure: str) -> None:
    reported = savings(monitored.server)[measure]
    for effect in ("difference", "ratio"):
        for part, end in {"": "value", "_lower": "low", "_upper": "high"}.items():
            recorded = f'ponder:savings:{effect}{part}{{measure="{measure}"}}'
            monitored.comes_to(recorded, reported[effect][end])


def test_prometheus_records_quality_too(monitored: Monitored) -> None:
    reported = savings(monitored.server)["quality"]["feedback"]
    for arm in ("policy", "holdout"):
        labels = f'{{measure="quality",signal="feedback",arm="{arm}"}}'
        monitored.comes_to(f"ponder:holdout:mean{labels}", reported[arm]["mean"]["value"])


def test_counters_arrive_whole(monitored: Monitored) -> None:
    scraped = monitored.value("sum(ponder_thinking_tokens_total)")
    assert scraped == monitored.server.metric("ponder_thinking_tokens_total") > 0


def test_nothing_that_must_not_happen_is_alerted(monitored: Monitored) -> None:
    alerts = httpx.get(f"{monitored.prometheus}/api/v1/alerts").json()["data"]["alerts"]
    names = {alert["labels"]["alertname"] for alert in alerts}
    assert not names & {"EmptyAnswers", "BudgetViolations", "NotReady"}


def test_a_server_that_is_gone_is_seen(monitored: Monitored) -> None:
    """Last, for it stops the server: the alert waits for its five minutes."""
    monitored.server.stop()
    wait_until(lambda: monitored.value('up{job="ponder"}') == 0)
    pending = 'ALERTS{alertname="NotReady",alertstate="pending"}'
    wait_until(lambda: bool(monitored.query(pending)))
