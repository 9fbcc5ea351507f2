"""Formats of an answer over HTTP: what they become, and what cannot be held."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from ponder.engine.protocol import RequestRefusedError
from server.http.conftest import Running, Serve
from server.http.test_tools import TEMPLATE, TOOLS

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
AS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


def rule(running: Running) -> tuple[str, Any]:
    """The kind of the last answer's grammar, and what it is."""
    grammar = running.engine.requests[-1][1].grammar
    plain = grammar.kind in ("regex", "grammar")
    return grammar.kind, grammar.rule if plain else json.loads(grammar.rule)


def json_part(kind: str, tag: Any) -> Any:
    """The schema that a tag spells, behind the blank that follows a thought."""
    assert kind == "structural_tag"
    blank, spelt = tag["format"]["elements"]
    assert blank == {"type": "regex", "pattern": "[\\n ]{0,4}"}
    assert spelt["max_whitespace_cnt"] == 1
    return spelt["json_schema"]


@pytest.mark.parametrize("budget", [0, 3, -1])
@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_is_held_and_the_thought_is_not(serve: Serve, budget: int, stream: bool) -> None:
    running = serve("I think {of} it.</think>", '{"a": 1}')
    reply = running.ask(response_format=AS_SCHEMA, thinking_token_budget=budget, stream=stream)
    if stream:
        content = "".join(chunk.choices[0].delta.content or "" for chunk in reply)
    else:
        content = reply.choices[0].message.content
    assert json.loads(content) == {"a": 1}
    grammars = [sampling.grammar for _, sampling in running.engine.requests]
    assert [grammar is not None for grammar in grammars] == [False] * (budget != 0) + [True]
    assert json_part(*rule(running)) == SCHEMA


@pytest.mark.parametrize(
    ("fields", "kind", "spelt"),
    [
        ({"regex": "[0-9]+"}, "regex", "[0-9]+"),
        ({"choice": ["yes", "no"]}, "choice", ["yes", "no"]),
        ({"grammar": 'root ::= "a"'}, "grammar", 'root ::= "a"'),
        ({"structural_tag": {"format": {}}}, "structural_tag", {"format": {}}),
        ({"structural_tag": '{"format": {}}'}, "structural_tag", {"format": {}}),
    ],
)
def test_structured_outputs_are_as_vllm_has_them(
    serve: Serve, fields: dict[str, Any], kind: str, spelt: Any
) -> None:
    running = serve("</think>", "a")
    running.ask(structured_outputs=fields)
    assert rule(running) == (kind, spelt)


def test_json_is_json_however_it_is_asked_for(serve: Serve) -> None:
    running = serve("</think>", "{}")
    for fields, schema in (
        ({"response_format": {"type": "json_object"}}, {"type": "object"}),
        ({"structured_outputs": {"json_object": True}}, {"type": "object"}),
        ({"structured_outputs": {"json": SCHEMA}}, SCHEMA),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, SCHEMA),
    ):
        running.ask(**fields)
        assert json_part(*rule(running)) == schema
    running.ask(response_format={"type": "text"})
    assert running.engine.requests[-1][1].grammar is None


def test_a_format_beside_tools_leaves_both_open(serve: Serve) -> None:
    running = serve("</think>", "{}", template=TEMPLATE)
    running.ask(response_format=AS_SCHEMA, tools=TOOLS)
    _, tag = rule(running)
    (_, either) = tag["format"]["elements"]
    assert either["type"] == "or" and len(either["elements"]) == 2
    running.ask(response_format=AS_SCHEMA, tools=TOOLS, tool_choice="required")
    assert "json_schema" not in {part["type"] for part in rule(running)[1]["format"]["elements"]}


def test_a_held_answer_is_kept_more_room(serve: Serve) -> None:
    running = serve("x" * 400, "{}")
    plain = running.ask(max_completion_tokens=400).choices[0].ponder
    held = running.ask(max_completion_tokens=400, response_format=AS_SCHEMA).choices[0].ponder
    assert plain["budget_effective"] - held["budget_effective"] == 100


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"response_format": AS_SCHEMA, "stop_token_ids": [5]}, "stop_token_ids", "ends by itself"),
        ({"response_format": AS_SCHEMA, "ignore_eos": True}, "ignore_eos", "ends by itself"),
        ({"structured_outputs": {"regex": "a"}, "min_tokens": 3}, "min_tokens", "ends by itself"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "needs json_schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_object"),
        ({"structured_outputs": {}}, "structured_outputs", "one rule"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs", "one rule"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs", "must be a JSON object"),
        ({"guided_json": SCHEMA}, "guided_json", "structured_outputs"),
        (
            {"response_format": AS_SCHEMA, "structured_outputs": {"regex": "a"}},
            None,
            "two rules: send one",
        ),
    ],
)
def test_what_cannot_be_held_is_refused_before_anything_is_thought(
    serve: Serve, fields: dict[str, Any], param: str | None, says: str
) -> None:
    running = serve()
    with pytest.raises(openai.BadRequestError, match=says) as refused:
        running.ask(**fields)
    assert refused.value.param == param
    assert running.engine.requests == []


def test_the_engines_word_names_the_field_that_was_sent(serve: Serve) -> None:
    running = serve()

    def refuse(_: object) -> None:
        raise RequestRefusedError("no such regex")

    object.__setattr__(running.engine.facts, "check", refuse)
    for fields in ({"structured_outputs": {"regex": "("}}, {"response_format": AS_SCHEMA}):
        with pytest.raises(openai.BadRequestError, match="no such regex") as refused:
            running.ask(**fields)
        assert refused.value.param == next(iter(fields))
    object.__setattr__(running.engine.facts, "check", None)
    with pytest.raises(openai.BadRequestError, match="cannot enforce a format") as refused:
        running.ask(response_format=AS_SCHEMA)
    assert refused.value.code == "format_unsupported"
