"""The pages for people: what they say, and that they need nothing from elsewhere."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import httpx
import pytest

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
