"""The page in a real browser, on the bundled checkpoint: what it shows is what the model does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Page, browsing

from .conftest import ServerProcess

pytestmark = pytest.mark.engine


@pytest.fixture
def page(program: Callable[[str], Path], tmp_path: Path, server: ServerProcess) -> Iterator[Page]:
    with browsing(program("chromium"), tmp_path) as tab:
        page = tab()
        page.open(server.url)
        page.wait('!document.getElementById("send").disabled')
        yield page


def text(page: Page, selector: str) -> str:
    said: str = page.run(f"document.querySelector('{selector}').textContent")
    return said


def test_a_sum_is_answered_within_its_budget(page: Page) -> None:
    page.run("""
        document.getElementById("question").value = "What is 38 + 45 - 17 + 26?";
        const exact = document.querySelector(".number");
        exact.value = 64;
        exact.dispatchEvent(new Event("input", { bubbles: true }));
        document.getElementById("send").click();
    """)
    page.wait('!document.querySelector(".again").disabled')
    assert text(page, ".answer") == "The answer is 92."
    spent = int(text(page, '[data-cost="thinking"]'))
    assert 0 < spent <= 64
    assert text(page, ".count") == f"{spent} of 64 tokens"
    assert "Thought ended by itself." in text(page, ".state")
    assert page.complaints == []


def test_the_curve_of_the_bundled_model_rises(page: Page) -> None:
    page.run("""
        document.querySelector("[name=times]").value = "5";
        document.querySelector("#curve .go").click();
    """)
    page.wait('!document.querySelector("#curve .go").disabled', seconds=600)
    assert text(page, "#curve .state").startswith("Done: 40 answers")
    rows = page.run(
        '[...document.querySelectorAll("#curve tbody tr")].map((row) => '
        "[...row.cells].map((cell) => cell.textContent))"
    )
    right = {row[0]: int(row[2].removesuffix(" %")) for row in rows}
    assert right["no thought"] < right["80"]
    assert right["80"] >= 60
    thought = {row[0]: int(row[1]) for row in rows}
    assert thought["no thought"] == 0 < thought["10"] <= 10 < thought["no limit"]
