"""The panel for tools and JSON, against OpenAI's wire as a stand-in for the server says it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from browser import Page

from .conftest import Serve
from .visiting import ANSWERED, ask, click, fill, text, visit

# A page whose server can do more, and streams what it is told to.
STAND_IN = """
const real = fetch;
window.bodies = [];
window.fetch = async (path, options) => {
  if (path === ".") {
    const facts = await (await real(path, options)).json();
    Object.assign(facts.capabilities, %s);
    return Response.json(facts);
  }
  if (path !== "v1/chat/completions") return real(path, options);
  window.bodies.push(JSON.parse(options.body));
  const lines = %s.map((chunk) => `data: ${JSON.stringify(chunk)}\\n\\n`);
  return new Response(lines.join("") + "data: [DONE]\\n\\n");
};
"""
REPORT = {
    "budget_requested": 64,
    "budget_effective": 64,
    "hint_budget": 40,
    "thinking_tokens": 3,
    "forced_tokens": 0,
    "answer_tokens": 9,
    "retry_tokens": 0,
    "end_cause": "natural",
    "arm": "policy",
    "error": None,
}


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish}
    if finish:
        choice["ponder"] = REPORT
    return {"choices": [choice], "usage": {"completion_tokens": 9}}


def piece(index: int, arguments: str, **head: str) -> dict[str, Any]:
    name = {"name": head["name"]} if head else {}
    identity = {"id": f"call_{index}", "type": "function"} if head else {}
    called = {"index": index, **identity, "function": {**name, "arguments": arguments}}
    return chunk({"tool_calls": [called]})


def open_with(page: Page, serve: Serve, can: dict[str, bool], *chunks: dict[str, Any]) -> None:
    page.before(STAND_IN % (json.dumps(can), json.dumps(chunks)))
    visit(page, serve())


@pytest.mark.parametrize(
    ("can", "offered"),
    [
        ({"tools": False, "json": False}, None),
        ({"tools": True, "json": False}, ["text", "tools"]),
        ({"tools": False, "json": True}, ["text", "json"]),
        ({"tools": True, "json": True}, ["text", "tools", "json"]),
    ],
)
def test_a_model_is_offered_what_it_can_do(
    serve: Serve, page: Page, can: dict[str, bool], offered: list[str] | None
) -> None:
    open_with(page, serve, can)
    if offered is None:
        assert page.run('document.getElementById("form").hidden')
        return
    assert not page.run('document.getElementById("form").hidden')
    shown = '[...document.querySelectorAll("#form .check:not([hidden]) input")].map((i) => i.value)'
    assert page.run(shown) == offered


def test_calls_are_shown_as_they_stream(serve: Serve, page: Page) -> None:
    chunks = [
        chunk({"reasoning": "I need a calculator."}),
        piece(0, "", name="calculate"),
        piece(0, '{"expression": '),
        piece(0, '"17 + 25"}'),
        piece(1, "{}", name="clock"),
        chunk({}, "tool_calls"),
    ]
    open_with(page, serve, {"tools": True}, *chunks)
    click(page, "#form [value=tools]")
    assert '"tools":[{"type":"function"' in text(page, "#curl")
    ask(page, "64")
    (body,) = page.run("window.bodies")
    assert body["tools"][0]["function"]["name"] == "calculate"
    assert body["thinking_token_budget"] == 64
    calls = '[...document.querySelectorAll(".calls li")].map((li) => li.textContent)'
    assert page.run(calls) == ['calculate{"expression": "17 + 25"}', "clock{}"]
    assert text(page, ".thought") == "I need a calculator."
    assert page.run('document.querySelectorAll(".calls .cut").length') == 0
    assert text(page, '[data-cost="reached"]').endswith("ms")
    assert page.complaints == []


def test_a_call_that_was_cut_says_so(serve: Serve, page: Page) -> None:
    chunks = [piece(0, '{"expres', name="calculate"), chunk({}, "length")]
    open_with(page, serve, {"tools": True}, *chunks)
    click(page, "#form [value=tools]")
    ask(page, "64")
    assert page.run('document.querySelectorAll(".calls .cut").length') == 1
    assert text(page, ".state").endswith("The answer was cut for want of room.")


def test_a_schema_is_sent_and_a_broken_one_is_not(serve: Serve, page: Page) -> None:
    open_with(page, serve, {"json": True}, chunk({"content": '{"answer": 42}'}, "stop"))
    click(page, "#form [value=json]")
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}}
    fill(page, "#form textarea", '{"type": ')
    assert text(page, "#form-error").startswith("The schema is no JSON: ")
    fill(page, "#question", "What is 40 + 2?")
    click(page, "#send")
    assert page.run("window.bodies.length") == 0
    fill(page, "#form textarea", json.dumps(schema))
    assert text(page, "#form-error") == ""
    ask(page, "64")
    (body,) = page.run("window.bodies")
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert text(page, ".answer") == '{"answer": 42}'
    click(page, "#form [value=text]")
    click(page, ".again")
    page.wait(ANSWERED)
    assert "response_format" not in page.run("window.bodies[1]")
