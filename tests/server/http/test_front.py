"""The pages for people: what they say, and that they need nothing from elsewhere."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import httpx
import pytest
from browser import Page

from .conftest import Serve

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_programs_get_facts(serve: Serve) -> None:
    running = serve(budget_ceiling=100)
    facts = httpx.get(f"{running.url}/").json()
    assert (facts["name"], facts["model"], facts["key_needed"]) == ("Ponder", "tiny", False)
    assert facts["capabilities"]["budget_ceiling"] == 100
    assert facts["max_model_len"] == 4096
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
    found = re.findall(r'(?:src|href)="([^"#][^"]*)"', answer.text)
    assert any(".js" in one for one in found)
    for one in found:
        if not one.startswith("data:"):
            assert urljoin(f"{url}{page}", one).startswith(url)
            assert httpx.get(urljoin(f"{url}{page}", one)).status_code == 200


def test_browsers_ask_each_time_whether_a_file_is_still_so(serve: Serve) -> None:
    """Half of an old page on a server that was upgraded would not run."""
    url = serve().url
    for path in ("/", "/pages/page.js", "/pages/ponder.css"):
        first = httpx.get(f"{url}{path}", headers=BROWSER)
        assert first.headers["cache-control"] == "no-cache"
        assert first.headers["x-content-type-options"] == "nosniff"
    again = {"if-none-match": first.headers["etag"]}
    assert httpx.get(f"{url}/pages/ponder.css", headers=again).status_code == 304


def test_without_javascript_the_page_says_how_to_ask(serve: Serve) -> None:
    text = httpx.get(serve().url, headers=BROWSER).text
    (without,) = re.findall(r"<noscript>(.*?)</noscript>", text, re.DOTALL)
    assert "needs JavaScript" in without and "curl http://" in without
    assert "/v1/chat/completions" in without


def test_a_page_that_was_switched_off_is_facts_for_everyone(serve: Serve) -> None:
    url = serve(page=False).url
    answer = httpx.get(url, headers=BROWSER)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == httpx.get(url).json()
    assert httpx.get(f"{url}/pages/index.html").status_code == 404
    assert httpx.get(f"{url}/docs", headers=BROWSER).status_code == 200


def test_a_page_that_keys_protect_asks_for_one(serve: Serve) -> None:
    url = serve(api_key="one").url
    assert httpx.get(f"{url}/").json()["key_needed"] is True


def test_the_api_is_shown_without_the_internet(serve: Serve, page: Page) -> None:
    url = serve().url
    page.open(f"{url}/docs")
    page.wait('document.querySelectorAll(".opblock").length >= 10')
    assert page.complaints == []
    assert all(asked.startswith((url, "data:")) for asked in page.asked)
