"""gpt-oss's own template and special tokens on vLLM, with small random weights."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ponder.server.settings import BUNDLED_MODEL
from server.checkpoint.published import published_templates

from .conftest import ServerProcess, start_server
from .random_weights import random_model
from .test_real_tokenizers import EMPTY, Said, ask_all, check

pytestmark = pytest.mark.engine

NAMES = ("start", "end", "message", "channel", "constrain", "return", "call")
REQUESTS = 120
SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2]}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
QUESTION: Any = {"role": "user", "content": "2 + 2?"}


def _tokenizer(directory: Path) -> dict[str, int]:
    """The bundled model's tokens, and harmony's special ones; returns their ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_MODEL)
    special = [f"<|{name}|>" for name in NAMES]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.eos_token = "<|return|>"
    tokenizer.chat_template = published_templates()["trl/gptoss"]
    tokenizer.save_pretrained(directory)
    ids = tokenizer.convert_tokens_to_ids(special)
    return dict(zip(NAMES, ids, strict=True))


@pytest.fixture(scope="module")
def ids() -> dict[str, int]:
    return {}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, ids: dict[str, int]
) -> Iterator[ServerProcess]:
    tokens = tmp_path_factory.mktemp("tokens")
    directory = tmp_path_factory.mktemp("gpt-oss")
    ids.update(_tokenizer(tokens))
    random_model(tokens, directory)
    for template in tokens.glob("chat_template*"):
        (directory / template.name).write_text(template.read_text())
    stops = {"eos_token_id": [ids["return"], ids["call"]]}
    (directory / "generation_config.json").write_text(json.dumps(stops))
    server = start_server(directory.with_name("log"), str(directory), "--served-model-name", "oss")
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def client(running: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
        yield client


@pytest.mark.parametrize("budget", [0, 16, -1])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_required_call_holds_its_schema_under_every_budget(
    client: openai.OpenAI, budget: int, choice: Any
) -> None:
    asked: dict[str, Any] = {
        "model": "oss",
        "messages": [QUESTION],
        "tools": [TOOL],
        "tool_choice": choice,
        "max_completion_tokens": 400,
        "temperature": 0,
        "extra_body": {"thinking_token_budget": budget},
    }
    whole = client.chat.completions.create(**asked).choices[0]
    assert whole.finish_reason == ("tool_calls" if choice == "required" else "stop")
    (call,) = whole.message.tool_calls or []
    arguments = json.loads(call.function.arguments)
    assert arguments["b"] in ("x", "y") and arguments["a"] in (1, 2)
    spelt = ""
    for chunk in client.chat.completions.create(**asked, stream=True):
        for part in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
            assert part.function is not None
            spelt += part.function.arguments or ""
    assert spelt == call.function.arguments


def test_a_result_and_the_thought_before_it_come_back(client: openai.OpenAI) -> None:
    """A text beside them too, although the template takes only one of the two."""
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    turn = {"role": "assistant", "content": "Well.", "reasoning": "I add.", "tool_calls": [call]}
    result: Any = {"role": "tool", "tool_call_id": "call_1", "content": "4"}
    said = client.chat.completions.create(
        model="oss",
        messages=[QUESTION, turn, result],
        tools=[TOOL],
        max_completion_tokens=60,
        extra_body={"thinking_token_budget": 8},
    )
    assert said.usage is not None and said.usage.completion_tokens <= 60


def _body(draw: random.Random, ids: dict[str, int]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": [QUESTION],
        "max_completion_tokens": draw.randint(20, 120),
        "seed": draw.randrange(10**6),
        "stream": draw.random() < 0.5,
        "n": draw.choice([1, 1, 2]),
        "thinking_token_budget": draw.choice([-1, 0, 1, 2, 7, 20, 40]),
        "logit_bias": {ids[name]: draw.choice([0, 4, 8]) for name in NAMES},
    }
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
    if draw.random() < 0.3:
        body |= {"tools": [TOOL]}
    return body


def test_random_headers_break_no_budget_and_are_not_shown(
    running: ServerProcess, ids: dict[str, int]
) -> None:
    draw = random.Random(0)
    bodies = [_body(draw, ids) for _ in range(REQUESTS)]
    replies: list[Said] = asyncio.run(ask_all(running, bodies))
    for body, said in zip(bodies, replies, strict=True):
        if said.error is None:
            check(body, said)
        else:
            assert said.error in EMPTY
    shown = [text for said in replies for texts in said.texts.values() for text in texts.values()]
    assert [text for text in shown if any(f"<|{name}|>" in text for name in NAMES)] == []
    assert running.metric("ponder_budget_violations_total") == 0


@pytest.mark.parametrize("budget", [0, 16])
def test_an_answer_in_a_format_or_a_call(client: openai.OpenAI, budget: int) -> None:
    """Behind headers of their own, so that either is read as what it is."""
    schema = {"name": "sum", "schema": SCHEMA, "strict": True}
    said = client.chat.completions.create(
        model="oss",
        messages=[QUESTION],
        tools=[TOOL],
        response_format={"type": "json_schema", "json_schema": schema},  # type: ignore[arg-type]
        n=16,
        seed=1,
        extra_body={"thinking_token_budget": budget},
    )
    for choice in said.choices:
        calls = choice.message.tool_calls or []
        written = [call.function.arguments for call in calls] or [choice.message.content or ""]
        assert all(json.loads(text)["b"] in ("x", "y") for text in written)
    assert {bool(choice.message.tool_calls) for choice in said.choices} == {True, False}
