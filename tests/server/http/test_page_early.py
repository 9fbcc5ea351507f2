"""The page's early exits: what it asks for, and what it shows while probes answer."""

from __future__ import annotations

import json

from browser import Page

from .conftest import Serve
from .test_early_exit import Model, model
from .visiting import ANSWERED, begin, cost, fill, text, visit

__all__ = ["model"]  # a fixture


def request(page: Page) -> dict[str, object]:
    """The page's request, as it tells it for a shell."""
    shown = text(page, "#curl")
    body: dict[str, object] = json.loads(shown[shown.index("-d '") + 4 : -1])
    return body


def test_answers_that_agree_close_the_thought_and_are_shown(
    serve: Serve, page: Page, model: Model
) -> None:
    script = model("The answer is 41.", "The answer is 42.", "The answer is 42.")
    running = serve(script=script, delay=0.01, loop_exit=False)
    visit(page, running)
    fill(page, "#early select", "agreement")
    fill(page, "#early input", "32")
    asked = {"early_exit": {"method": "agreement", "interval": 32, "interim": True}}
    assert request(page)["ponder"] == asked
    page.run(
        "{ window.said = []; new MutationObserver(() => said.push("
        'document.querySelector(".state").textContent)).observe('
        'document.querySelector(".state"), {childList: true, subtree: true, characterData: true}) }'
    )
    begin(page, "3000")
    page.wait(ANSWERED)
    said = page.run("said")
    assert any(one.startswith("Thinking; so far: ") and "41" in one for one in said), said
    assert text(page, ".state").startswith("Thought closed when its probes agreed.")
    assert 32 < int(cost(page, "thinking")) < 300
    assert page.complaints == []


def test_none_is_asked_for_unless_one_is_chosen(serve: Serve, page: Page) -> None:
    visit(page, serve())
    assert page.run('document.querySelector("#early input").disabled')
    assert "ponder" not in request(page)
    methods = page.run('[...document.querySelector("#early select").options].map((o) => o.value)')
    assert methods == ["", "agreement", "entropy"]
    fill(page, "#early select", "entropy")
    assert request(page)["ponder"] == {"early_exit": {"method": "entropy", "interval": 40}}
    fill(page, "#early input", "8")  # below the least
    assert not page.run('document.querySelector("#ask").checkValidity()')


def test_a_model_that_does_not_think_is_offered_none(serve: Serve, page: Page) -> None:
    visit(page, serve(thinks=False))
    assert page.run('document.querySelector("#early").hidden')
