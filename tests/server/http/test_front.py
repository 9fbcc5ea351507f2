"""The pages for people: what they say, and that they need nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from browser import Page, browsing
from waiting import wait_until

from .conftest import Serve

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_programs_get_facts(serve: Serve) -> None:
    running = serve(budget_ceiling=100)
    facts = httpx.get(f"{running.url}/").json()
    assert (facts["name"], facts["model"], facts["key_needed"]) == ("Ponder", "tiny", False)
    assert facts["capabilities"]["budget_ceiling"] == 100
    for link in facts["links"].values():
        assert httpx.get(f"{running.url}{link}").status_code in (200, 405)


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_a_page_loads_from_this_server_alone(serve: Serve, page: str) -> None:
    url = serve().url
    answer = httpx.get(f"{url}{page}", headers=BROWSER)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "<script>" not in answer.text and "style=" not in answer.text
    found = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert any(".js" in one for one in found)
    for one in found:
        if not one.startswith("data:"):
            assert urljoin(f"{url}{page}", one).startswith(url)
            assert httpx.get(urljoin(f"{url}{page}", one)).status_code == 200


def test_a_page_that_keys_protect_asks_for_one(serve: Serve) -> None:
    url = serve(api_key="one").url
    assert httpx.get(f"{url}/").json()["key_needed"] is True


@pytest.fixture
def page(program: Callable[[str], Path], tmp_path: Path) -> Iterator[Page]:
    with browsing(program("chromium"), tmp_path) as page:
        yield page


ASK = """
document.getElementById("question").value = "What is 40 + 2?";
document.getElementById("budget").value = "%s";
document.getElementById("send").click();
"""


def text(page: Page, name: str) -> str:
    said: str = page.run(f'document.getElementById("{name}").textContent')
    return said


def test_a_question_is_answered_in_a_browser(serve: Serve, page: Page) -> None:
    running = serve(delay=0.01)
    page.open(running.url)
    page.wait('document.getElementById("model").textContent === "tiny"')
    page.run(ASK % 64)
    page.wait('document.getElementById("meter").textContent !== ""')
    assert text(page, "thought").strip() == "First I add. Then I check it."
    assert text(page, "answer").strip() == "The answer is 42."
    assert re.search(r"tokens of thought of 64 \(ended by itself\)", text(page, "meter"))
    dimmed = 'getComputedStyle(document.getElementById("thought")).opacity'
    assert float(page.run(dimmed)) < 1
    assert page.complaints == []
    assert all(url.startswith((running.url, "data:")) for url in page.asked)


def test_a_browser_shows_what_was_refused_and_what_was_stopped(serve: Serve, page: Page) -> None:
    running = serve("thinking " * 500, delay=0.02, budget_ceiling=400)
    page.open(running.url)
    page.wait('document.getElementById("model").textContent === "tiny"')
    running.service.gate.draining = True
    page.run(ASK % "")
    page.wait('document.getElementById("answer").className === "error"')
    assert "is shutting down" in text(page, "answer")
    running.service.gate.draining = False
    page.run(ASK % 400)
    page.wait('document.getElementById("thought").textContent.length > 20')
    page.run('document.getElementById("stop").click()')
    page.wait('document.getElementById("meter").textContent === "stopped"')
    wait_until(lambda: running.engine.unfinished() == 0)


def test_the_api_is_shown_without_the_internet(serve: Serve, page: Page) -> None:
    url = serve().url
    page.open(f"{url}/docs")
    page.wait('document.querySelectorAll(".opblock").length >= 10')
    assert page.complaints == []
    assert all(asked.startswith((url, "data:")) for asked in page.asked)
