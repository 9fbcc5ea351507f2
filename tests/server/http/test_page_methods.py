"""The page's early exits and strategies: what it asks for, and what it shows meanwhile."""

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
    running = serve(script=script, delay=0.01, loop_exit=False, early_exit_shadow=0)
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
    """An entropy is of what follows an answer prefix, which this model's contract does not name."""
    running = serve()
    visit(page, running)
    assert running.service.capabilities.early_exits == ["agreement", "entropy"]
    assert page.run('document.querySelector("#early input").disabled')
    assert "ponder" not in request(page)
    methods = page.run('[...document.querySelector("#early select").options].map((o) => o.value)')
    assert methods == ["", "agreement"]
    fill(page, "#early select", "agreement")
    asked = {"method": "agreement", "interval": 40, "interim": True}
    assert request(page)["ponder"] == {"early_exit": asked}
    fill(page, "#early input", "8")  # below the least
    assert not page.run('document.querySelector("#ask").checkValidity()')


def test_a_model_that_does_not_think_is_offered_none(serve: Serve, page: Page) -> None:
    visit(page, serve(thinks=False))
    assert page.run('document.querySelector("#early").hidden')


# -- several thoughts ----------------------------------------------------------------------------


def test_several_thoughts_give_one_answer(serve: Serve, page: Page) -> None:
    running = serve(delay=0.005)
    visit(page, running)
    assert page.run('document.querySelector("#several input").disabled')
    fill(page, "#several select", "self_consistency")
    fill(page, "#several input", "4")
    assert request(page)["ponder"] == {"strategy": {"method": "self_consistency", "n": 4}}
    begin(page, "900")
    assert text(page, ".state") == "Thinking 4 thoughts"
    page.wait(ANSWERED)
    assert "The answer of thought 1 of 4: 4 came to it." in text(page, ".state")
    assert len(running.engine.requests) >= 4
    assert page.complaints == []


def test_what_a_strategy_refuses_is_shown(serve: Serve, page: Page) -> None:
    visit(page, serve())
    fill(page, "#several select", "particles")
    fill(page, "#early select", "agreement")
    begin(page, "900")
    page.wait('!document.querySelector(".reply .error").hidden')
    assert "leave ponder.early_exit out" in text(page, ".reply .error")
