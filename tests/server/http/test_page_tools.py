"""The page's panel for tools and JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from browser import Page

from .conftest import Running, Serve
from .test_tools import TEMPLATE
from .visiting import ANSWERED, ask, begin, click, fill, text, visit

THOUGHT = "I need a calculator.</think>\n\n"
CALL = '<tool_call>\n{"name": "calculate", "arguments": {"expression": "17 + 25"}}\n</tool_call>'
SHOWN = 'calculate{"expression": "17 + 25"}'
CALLS = '[...document.querySelectorAll(".calls li")].map((li) => li.textContent)'
CAN = """
const real = fetch;
window.fetch = async (path, options) => {
  const answer = await real(path, options);
  if (path !== ".") return answer;
  const facts = await answer.json();
  Object.assign(facts.capabilities, %s);
  return Response.json(facts);
};
"""


@pytest.mark.parametrize(
    ("can", "offered"),
    [
        ({"tools": False, "formats": False}, None),
        ({"tools": True, "formats": False}, ["text", "tools"]),
        ({"tools": False, "formats": True}, ["text", "json"]),
        ({"tools": True, "formats": True}, ["text", "tools", "json"]),
    ],
)
def test_a_model_is_offered_what_it_can_do(
    serve: Serve, page: Page, can: dict[str, bool], offered: list[str] | None
) -> None:
    page.before(CAN % json.dumps(can))
    visit(page, serve())
    if offered is None:
        assert page.run('document.getElementById("form").hidden')
        return
    assert not page.run('document.getElementById("form").hidden')
    shown = '[...document.querySelectorAll("#form .check:not([hidden]) input")].map((i) => i.value)'
    assert page.run(shown) == offered


def test_calls_are_shown_as_they_stream(serve: Serve, page: Page) -> None:
    running = serve(THOUGHT + CALL + "\n" + CALL, template=TEMPLATE)
    visit(page, running)
    click(page, "#form [value=tools]")
    assert '"tools":[{"type":"function"' in text(page, "#curl")
    ask(page, "64")
    assert page.run(CALLS) == [SHOWN, SHOWN]
    assert text(page, ".thought") == "I need a calculator."
    assert page.run('document.querySelectorAll(".calls .cut").length') == 0
    assert text(page, '[data-cost="reached"]').endswith("ms")
    prompt = running.service.model.tokenizer.spell(running.engine.requests[0][0])
    assert "The value of an expression of whole numbers." in prompt
    assert page.complaints == []


def test_a_call_that_was_cut_says_so(serve: Serve, page: Page) -> None:
    endless = CALL.split("17", maxsplit=1)[0] + "1 + " * 4000
    visit(page, serve(endless, template=TEMPLATE, max_model_len=400))
    click(page, "#form [value=tools]")
    ask(page, "0")
    (shown,) = page.run(CALLS)
    assert shown.startswith('calculate{"expression": "1 + 1')
    assert page.run('document.querySelectorAll(".calls .cut").length') == 1
    assert text(page, ".state").endswith("The answer was cut for want of room.")


def asked(running: Running) -> Any:
    """The grammar of the last answer."""
    return running.engine.requests[-1][1].grammar


def test_a_schema_is_sent_and_a_broken_one_is_not(serve: Serve, page: Page) -> None:
    running = serve("I think.</think>", '{"answer": 42}')
    visit(page, running)
    click(page, "#form [value=json]")
    fill(page, "#form textarea", '{"type": ')
    assert text(page, "#form-error").startswith("The schema is no JSON: ")
    begin(page, "64")
    assert not page.run('document.getElementById("send").disabled')
    assert running.engine.requests == []
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}}
    fill(page, "#form textarea", json.dumps(schema))
    assert text(page, "#form-error") == ""
    ask(page, "64")
    assert json.dumps(schema["properties"]) in json.dumps(json.loads(asked(running).rule))
    assert text(page, ".answer") == '{"answer": 42}'
    click(page, "#form [value=text]")
    click(page, ".again")
    page.wait(ANSWERED)
    assert asked(running) is None


def test_a_schema_that_cannot_be_held_is_refused_in_words(serve: Serve, page: Page) -> None:
    visit(page, serve())
    click(page, "#form [value=json]")
    fill(page, "#form textarea", "[1]")
    ask(page, "64")
    assert "response_format.json_schema.schema" in text(page, ".reply .error")
