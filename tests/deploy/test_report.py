"""What the demonstration says, and the page that it leaves."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, Signals
from typing import Any

import charts
import demo
import pytest
import report
from hypothesis import given
from hypothesis import strategies as st

from clients import scripted
from ponder.experiment.moments import Moments
from ponder.protocol.savings import MeasureReport, QualityReport, SavingsReport
from ponder.thought.contract import Contract


def arm(conversations: int, mean: float, spread: float) -> Moments:
    """Of single requests: half of them a spread above the mean, half a spread below."""
    n, squares = float(conversations), conversations * (mean**2 + spread**2)
    return Moments(n, n, n * mean, squares, n * mean, n)


def savings(
    policy: tuple[float, float],
    holdout: tuple[float, float],
    n: int = 2000,
    rated: int | None = None,
) -> Any:
    """What the server reports, of (tokens, share of right answers) in each arm."""

    def measure(of: int, spread: float, n: int) -> MeasureReport:
        return MeasureReport.of(arm(n, policy[of], spread), arm(n, holdout[of], spread), 0.5)

    tokens, right = measure(0, 60.0, n), measure(1, 0.4, n if rated is None else rated)
    quality = QualityReport(feedback=right, verifier=right, forced=right, empty=right)
    return SavingsReport(
        status=tokens.status,
        more_requests_needed=tokens.more_needed,
        holdout=0.5,
        experiment="e",
        since=0.0,
        tokens=tokens,
        seconds=tokens,
        quality=quality,
    ).model_dump()


def test_a_sentence_says_tokens_and_quality() -> None:
    assert report.sentence(savings((120.0, 0.86), (150.0, 0.84))) == (
        "The policy takes 20 % fewer tokens (18 to 22 %) at 2.0 more right answers of 100 "
        "(−0.5 to 4.5); both intervals are of 95 %."
    )


def test_a_sentence_hides_no_loss() -> None:
    said = report.sentence(savings((77.0, 0.76), (143.0, 0.833)))
    assert "46 % fewer tokens" in said
    assert "7.3 fewer right answers of 100 (4.8 to 9.8)" in said
    said = report.sentence(savings((150.0, 0.8), (120.0, 0.8)))
    assert "25 % more tokens (22 to 29 %)" in said


def test_too_few_requests_are_no_measurement() -> None:
    said = report.sentence(savings((120.0, 0.8), (150.0, 0.8), n=50))
    assert said.startswith("Not measured yet: about 300 more requests are needed")
    said = report.sentence(savings((120.0, 0.8), (150.0, 0.8), rated=150))
    assert said.startswith("Not measured yet: about 100 more requests are needed")
    assert "%" not in said


def test_a_rating_that_is_refused_is_an_error_like_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CONCURRENCY", 1)
    server = scripted.ScriptedServer()
    refused = scripted.error("there is no such response", "response_not_found")
    server.replies += [
        scripted.Reply(status=200, body=scripted.completion()),
        scripted.Reply(status=404, body=refused),
    ]
    try:
        tally = asyncio.run(demo.load(server.url, 0.5))
    finally:
        server.close()
    assert (tally.answered, tally.errors) == (0, {"response_not_found": 1})


def test_every_variable_of_the_dashboard_is_filled_in() -> None:
    monitor = report.Monitor("http://127.0.0.1:9", 0.0, 60.0)
    shown = json.loads(report.DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in shown for target in panel.get("targets", [])]
    assert len(queries) > 50
    assert [query for query in map(monitor.asked, queries) if "$" in query] == []


def test_the_policy_saves_by_its_hint_and_cuts_hardly_a_thought() -> None:
    contract = Contract.load(demo.MODEL)
    assert contract is not None
    told = max(budget for budget in contract.trained_budgets if budget <= demo.budget())
    assert told < max(contract.trained_budgets)
    assert demo.budget() >= 1.9 * told


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.123, "percentunit", "12.3%"),
        (0.0042, "s", "4.2 ms"),
        (2.5, "s", "2.5 s"),
        (7.0, "reqps", "7 req/s"),
        (830.0, "suffix: tokens/s", "830 tokens/s"),
        (3.0, "short", "3"),
        (float("nan"), "s", "–"),
    ],
)
def test_values_are_written_in_their_unit(value: float, unit: str, text: str) -> None:
    assert charts.shown(value, unit) == text


def test_every_unit_of_the_dashboard_is_known() -> None:
    """`short` is a bare number; any other unit that charts.py does not know would be one too."""
    board = json.loads(report.DASHBOARD.read_text())
    units = {p["fieldConfig"]["defaults"]["unit"] for p in board["panels"] if p["type"] != "row"}
    assert {unit for unit in units - {"short"} if charts.shown(5.0, unit) == "5"} == set()


@given(
    st.lists(
        st.lists(st.floats(-1e9, 1e9) | st.just(float("nan")), min_size=1, max_size=5), max_size=3
    )
)
def test_lines_stay_inside_their_picture(values: list[list[float]]) -> None:
    series = [charts.Series("<x>", list(enumerate(map(float, line)))) for line in values]
    drawn = charts.graph("title", "what it shows", series, "s", start=0, end=5)
    for points in re.findall(r'points="(.*?)"', drawn):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert charts.LEFT <= x <= charts.WIDTH
            assert 0 <= y <= charts.HEIGHT
    assert "<x>" not in drawn
    assert ("no data yet" in drawn) == all(map(math.isnan, chain.from_iterable(values)))


class Page(HTMLParser):
    """The headings of a page, and that its tags close in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {"src", "onload"} & {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed by itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)


def test_a_page_has_every_panel_and_alert_even_without_data(
    program: Callable[[str], Path], tmp_path: Path
) -> None:
    program("prometheus")
    start = time.time()
    with demo.prometheus(tmp_path, "http://127.0.0.1:9") as url:
        monitor = report.Monitor(url, start, start + 10)
        text = report.page(savings((120.0, 0.8), (150.0, 0.8)), monitor, "The policy is a <test>.")
        assert set(monitor.alerts()) == set(re.findall(r"^## (\w+)", RUNBOOK, re.MULTILINE))
    page = Page(text)
    assert page.open == []
    titles = [panel["title"] for panel in report.panels()]
    of_all = [panel["title"] for panel in json.loads(report.DASHBOARD.read_text())["panels"]]
    assert of_all[: of_all.index(report.FLEET)] == titles
    assert page.headings == ["Savings", "Alerts", *titles]
    assert "no data yet" in text
    assert "&lt;test&gt;" in text
    assert "http://" not in text.replace(url, "")


RUNBOOK = (report.DEPLOY.parent / "docs" / "runbook.md").read_text()


@pytest.mark.parametrize(
    ("number", "command", "ends"),
    [
        (SIGHUP, [], True),
        (SIGHUP, ["nohup"], False),
        (SIGTERM, [], True),
        (SIGINT, [], True),
    ],
)
def test_it_ends_when_its_terminal_goes(number: Signals, command: list[str], ends: bool) -> None:
    code = f"import os, demo; demo.end_on_signals(); os.kill(os.getpid(), {number:d})"
    ran = subprocess.run(
        [*command, sys.executable, "-c", code],
        cwd=Path(demo.__file__).parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ("KeyboardInterrupt" in ran.stderr) is ends, ran.stderr
    assert (ran.returncode == 0) is not ends
