"""Formats on the real engine: whatever became of the thought, the answer keeps them."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from .conftest import ServerProcess

pytestmark = pytest.mark.engine

HELLO = [{"role": "user", "content": "What is 17 + 25? Answer in JSON."}]


class Sum(BaseModel):
    answer: int
    sure: bool


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    extra = {name: fields.pop(name) for name in ("budget", "structured_outputs") if name in fields}
    fields.setdefault("messages", HELLO)
    return client.chat.completions.create(model="tiny", extra_body=extra, **fields)


@pytest.mark.parametrize("budget", [0, 16, 64, -1])
@pytest.mark.parametrize("stream", [False, True])
def test_json_follows_any_thought(client: openai.OpenAI, budget: int, stream: bool) -> None:
    schema = {"name": "sum", "schema": Sum.model_json_schema()}
    reply = ask(
        client,
        budget=budget,
        response_format={"type": "json_schema", "json_schema": schema},
        stream=stream,
        temperature=1.0,
        seed=budget + 7,
    )
    if stream:
        chunks = [chunk.choices[0] for chunk in reply]
        text, last = "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1]
    else:
        text, last = reply.choices[0].message.content, reply.choices[0]
    Sum.model_validate_json(text)
    assert last.finish_reason == "stop"
    assert budget < 0 or last.ponder["thinking_tokens"] <= budget


def test_the_official_client_parses_its_own_models(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(
        model="tiny",
        messages=HELLO,  # type: ignore[arg-type]
        response_format=Sum,
        extra_body={"budget": 16},
    )
    assert isinstance(completion.choices[0].message.parsed, Sum)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model="tiny",
            messages=HELLO,  # type: ignore[arg-type]
            response_format=Sum,
            max_completion_tokens=8,
        )


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({"choice": ["maybe", "perhaps"]}, "maybe|perhaps"),
        ({"regex": "[0-9]{3}-[a-f]{2}"}, "[0-9]{3}-[a-f]{2}"),
        ({"grammar": 'root ::= "yes" | "no"'}, "yes|no"),
    ],
)
def test_other_rules_are_kept(client: openai.OpenAI, rule: dict[str, Any], fits: str) -> None:
    reply = ask(client, budget=12, n=3, structured_outputs=rule)
    for choice in reply.choices:
        assert re.fullmatch(fits, choice.message.content), choice.message.content


def test_no_json_runs_away_in_blank(client: openai.OpenAI) -> None:
    schema = {"name": "sum", "schema": Sum.model_json_schema()}
    reply = ask(
        client,
        budget=8,
        n=20,
        temperature=1.0,
        max_completion_tokens=90,
        response_format={"type": "json_schema", "json_schema": schema},
    )
    for choice in reply.choices:
        assert not re.search(r"\s{2}$", choice.message.content)
        if choice.finish_reason == "stop":
            json.loads(choice.message.content)


@pytest.mark.parametrize(
    "rule",
    [
        {"json": {"allOf": [{"type": "string"}, {"enum": ["a"]}]}},
        {"json": {"type": "array", "uniqueItems": True}},
        {"regex": "(?=a)b"},
        {"regex": "(a"},
        {"grammar": "root ::="},
        {"structural_tag": {"format": {"type": "none such"}}},
    ],
)
def test_what_cannot_be_kept_is_refused_before_the_thought(
    server: ServerProcess, client: openai.OpenAI, rule: dict[str, Any]
) -> None:
    before = server.metric("ponder_prompt_tokens_total")
    with pytest.raises(openai.BadRequestError, match="enforced") as refused:
        ask(client, structured_outputs=rule)
    assert refused.value.param == "structured_outputs"
    assert server.metric("ponder_prompt_tokens_total") == before
