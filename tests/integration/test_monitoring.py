"""A real Prometheus scrapes a real server: every query of the dashboard returns data there.

And the demonstration, which is made of both, ends by itself.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import demo
import httpx
import psutil
import pytest
import report

from stores import RedisServer
from waiting import wait_until

from .conftest import START_SECONDS, ServerProcess, start_server

pytestmark = pytest.mark.engine


@dataclass
class Monitored:
    """`load` is what the demonstration's page would show of it."""

    server: ServerProcess
    prometheus: str
    load: report.Monitor | None = None

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
    program: Callable[[str], Path],
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Monitored]:
    """A server with a holdout and a pool under the demo's load, until its savings are measured."""
    program("prometheus")
    folder = tmp_path_factory.mktemp("monitoring")
    options = ["--default-budget", "24", "--holdout", "0.5", "--holdout-key", "a key for the tests"]
    options += ["--pool", "tenant=1000000000/1h"]  # enough for all that is asked
    options += ["--shed-load", "unasked", "--redis", redis_server.url]
    server = start_server(folder / "log", *options)
    try:
        server.wait_ready()
        with demo.prometheus(folder, server.url) as prometheus:
            both, began = Monitored(server, prometheus), time.time()
            chat = f"{server.url}/v1/chat/completions"
            assert httpx.post(chat, json={"messages": []}).status_code == 400
            while savings(server)["status"] != "measured":
                tally = asyncio.run(demo.load(server.url, 10))
                assert not tally.errors
            # Nothing is asked any more: what is scraped now stays.
            scraped = 'ponder_holdout_tokens_count{arm="policy"}'
            both.comes_to(scraped, savings(server)["tokens"]["policy"]["count"])
            both.comes_to('ponder:savings:measured{measure="tokens"}', 1)
            both.load = report.Monitor(prometheus, began, time.time())
            yield both
    finally:
        server.stop()


def savings(server: ServerProcess) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/v1/ponder/savings").raise_for_status().json())


def test_every_query_of_the_dashboard_returns_data(monitored: Monitored) -> None:
    assert monitored.load
    silent = []
    for panel in report.panels():  # a fleet's have tests/integration/test_fleet.py
        for target in panel.get("targets", []):
            found = monitored.load.last(target["expr"])
            if not any(map(math.isfinite, found)):
                silent.append((panel["title"], target["expr"], found))
    assert silent == []


def test_every_variable_of_the_dashboard_has_a_value(monitored: Monitored) -> None:
    (chosen,) = monitored.query("ponder_build_info")
    address = monitored.server.url.removeprefix("http://")
    expected = {"job": "ponder", "instance": address, "model": "tiny"}
    assert {name: chosen["metric"][name] for name in expected} == expected


def test_the_page_of_the_demonstration_shows_every_panel(monitored: Monitored) -> None:
    assert monitored.load
    text = report.page(savings(monitored.server), monitored.load, "the policy")
    empty = [part.split("</h3>")[0] for part in text.split("<h3>") if "no data yet" in part]
    assert empty == []
    assert text.count("<polyline") > 40


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


@pytest.mark.timeout(900)
def test_the_demonstration_ends_by_itself(tmp_path: Path, program: Callable[[str], Path]) -> None:
    program("prometheus")
    page = tmp_path / "runs" / "demo.html"
    command = [sys.executable, demo.__file__, "--duration", "5", "--report", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The policy takes" in done.stdout or "Not measured yet" in done.stdout
    assert "Ctrl-C" not in done.stdout
    assert page.as_uri() in done.stdout.replace("\n", "")
    assert "Time to first token" in page.read_text()


@pytest.mark.timeout(900)
def test_ctrl_c_ends_a_demonstration_that_was_told_to_stay(
    tmp_path: Path, program: Callable[[str], Path]
) -> None:
    program("prometheus")
    command = [sys.executable, "-u", demo.__file__, "--duration", "2", "--keep"]
    command += ["--report", str(tmp_path / "demo.html")]
    keyed = {**os.environ, "PONDER_API_KEY": "a key of the shell's"}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=keyed
    )
    assert child.stdout
    said = []
    for line in child.stdout:
        said.append(line)
        if "metrics" in line:
            break
    else:
        pytest.fail("".join(said))
    family = psutil.Process(child.pid).children(recursive=True)
    assert len(family) >= 2
    os.killpg(child.pid, signal.SIGINT)
    rest, _ = child.communicate(timeout=START_SECONDS)
    assert child.returncode == 0
    assert "Traceback" not in rest
    assert psutil.wait_procs(family, timeout=20)[1] == []
