"""One question in every dialect: what is said, called and counted is the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from ponder.engine.scripted import Script
from server.http.conftest import Running, Serve
from server.http.test_tools import TEMPLATE

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
ANSWERS = {
    "text": "It is 42, said the model. So it is, and it was before, and it will be. ",
    "call": 'I look.\n<tool_call>{"name": "weather", "arguments": {"city": "Bonn"}}</tool_call>',
    "json": '{"n": 42, "why": "Forty and two are forty-two, as everybody knows who adds them."}',
}
THOUGHT = "I think of it, and of what comes next. " * 12
"""More than 64 tokens."""
QUESTION = "What is it?"
PROMPT = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n<think>\n"
"""The question as `TEMPLATE` renders it."""


@dataclass
class Said:
    """A reply in no dialect's words. `cut` says that a limit ended it."""

    thought: str
    text: str
    calls: list[tuple[str, Any]]
    cut: bool
    thinking: int
    completion: int
    prompt: int
    report: dict[str, Any]


def script_of(running: Callable[[], Running], answer: str) -> Script:
    def script(prompt: Sequence[int], _number: int) -> Iterator[int]:
        tokenizer = running().service.model.tokenizer
        (end,) = tokenizer.encode("</think>")
        text = answer if end in prompt else f"{THOUGHT}</think>\n\n{answer}"
        yield from tokenizer.encode(text)
        yield min(tokenizer.eos_token_ids)

    return script


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def arguments(text: str) -> Any:
    """What is written, whole or cut."""
    try:
        return json.loads(text)
    except ValueError:
        return text


# -- the dialects ------------------------------------------------------------------------------


def chat(url: str, kind: str, budget: int, limit: int, stream: bool, **more: Any) -> Said:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}]}
    body |= {"thinking_token_budget": budget, "max_completion_tokens": limit, "stream": stream}
    body |= more
    if stream:
        body["stream_options"] = {"include_usage": True}
    if kind == "call":
        body["tools"] = [
            {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
        ]
    if kind == "json":
        schema = {"name": "n", "schema": SCHEMA}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    reply = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    said: dict[str, Any] = {"reasoning": "", "content": ""}
    calls: list[list[str]] = []
    if stream:
        *chunks, last = events(reply)
        usage = last["usage"]
        for chunk in chunks:
            (choice,) = chunk["choices"]
            for name in said:
                said[name] += choice["delta"].get(name) or ""
            for part in choice["delta"].get("tool_calls", ()):
                if "id" in part:
                    calls.append([part["function"]["name"], ""])
                calls[part["index"]][1] += part["function"]["arguments"]
    else:
        whole = reply.json()
        (choice,), usage = whole["choices"], whole["usage"]
        said = {name: choice["message"][name] or "" for name in said}
        for call in choice["message"].get("tool_calls", ()):
            calls.append([call["function"]["name"], call["function"]["arguments"]])
    return Said(
        said["reasoning"],
        said["content"],
        [(name, arguments(text)) for name, text in calls],
        choice["finish_reason"] == "length",
        usage["completion_tokens_details"]["reasoning_tokens"],
        usage["completion_tokens"],
        usage["prompt_tokens"],
        choice["ponder"],
    )


def responses(url: str, kind: str, budget: int, limit: int, stream: bool, **more: Any) -> Said:
    body: dict[str, Any] = {"input": QUESTION, "thinking_token_budget": budget, "stream": stream}
    body |= {"max_output_tokens": limit, **more}
    if kind == "call":
        body["tools"] = [{"type": "function", "name": "weather", "parameters": PARAMETERS}]
    if kind == "json":
        body["text"] = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
    reply = httpx.post(f"{url}/v1/responses", json=body)
    assert reply.status_code == 200, reply.text
    whole = events(reply)[-1]["response"] if stream else reply.json()
    thought, text, calls = "", "", []
    for item in whole["output"]:
        if item["type"] == "reasoning":
            thought += "".join(part["text"] for part in item["content"])
        elif item["type"] == "message":
            text += "".join(part["text"] for part in item["content"])
        else:
            calls.append((item["name"], arguments(item["arguments"])))
    usage = whole["usage"]
    return Said(
        thought,
        text,
        calls,
        whole["status"] == "incomplete",
        usage["output_tokens_details"]["reasoning_tokens"],
        usage["output_tokens"],
        usage["input_tokens"],
        whole["ponder"],
    )


def messages(url: str, kind: str, budget: int, limit: int, stream: bool, **more: Any) -> Said:
    body: dict[str, Any] = {"model": "model", "max_tokens": limit, "stream": stream, **more}
    body["messages"] = [{"role": "user", "content": QUESTION}]
    body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    if budget < 0:
        body |= {"thinking": {"type": "adaptive"}, "thinking_token_budget": budget}
    if budget == 0:
        body["thinking"] = {"type": "disabled"}
    del body["model"]
    if kind == "call":
        body["tools"] = [{"name": "weather", "input_schema": PARAMETERS}]
    if kind == "json":
        body["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
    reply = httpx.post(f"{url}/v1/messages", json=body)
    assert reply.status_code == 200, reply.text
    whole = _folded(events(reply)) if stream else reply.json()
    blocks, usage = whole["content"], whole["usage"]
    return Said(
        "".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"],
        whole["stop_reason"] == "max_tokens",
        usage["output_tokens_details"]["thinking_tokens"],
        usage["output_tokens"],
        usage["input_tokens"] + usage["cache_read_input_tokens"],
        whole["ponder"],
    )


def _folded(told: list[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for event in told:
        if event["type"] == "message_start":
            whole = event["message"]
        elif event["type"] == "content_block_start":
            whole["content"].append({**event["content_block"], "partial": ""})
        elif event["type"] == "content_block_delta":
            block, delta = whole["content"][event["index"]], event["delta"]
            for name in ("text", "thinking"):
                if name in delta:
                    block[name] += delta[name]
            block["partial"] += delta.get("partial_json", "")
        elif event["type"] == "message_delta":
            whole |= {**event["delta"], "ponder": event["ponder"]}
            whole["usage"] |= event["usage"]
    for block in whole["content"]:
        if block["type"] == "tool_use":
            block["input"] = arguments(block["partial"] or "{}")
    return whole


def completions(url: str, kind: str, budget: int, limit: int, stream: bool, **more: Any) -> Said:
    """The prompt that the chat template makes; without a budget the prompt's thought is closed."""
    body: dict[str, Any] = {"prompt": PROMPT, "max_tokens": limit, "stream": stream}
    body |= {"thinking_token_budget": budget, **more}
    if stream:
        body["stream_options"] = {"include_usage": True}
    if kind == "json":
        schema = {"name": "n", "schema": SCHEMA}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    reply = httpx.post(f"{url}/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    chunks = events(reply) if stream else [reply.json()]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    usage = chunks[-1]["usage"]
    return Said(
        "".join(choice["reasoning"] or "" for choice in choices if "reasoning" in choice),
        "".join(choice["text"] for choice in choices),
        [],
        choices[-1]["finish_reason"] == "length",
        usage["completion_tokens_details"]["reasoning_tokens"],
        usage["completion_tokens"],
        usage["prompt_tokens"],
        choices[-1]["ponder"],
    )


DIALECTS = {"chat": chat, "responses": responses, "messages": messages}


# -- the matrix --------------------------------------------------------------------------------


def ask_all(serve: Serve, kind: str, limit: int, budget: int, **more: Any) -> Said:
    """What every dialect says, whole and streamed: the same."""
    held: list[Running] = []
    running = serve(script=script_of(lambda: held[0], ANSWERS[kind]), template=TEMPLATE)
    held.append(running)
    replies = {
        (name, stream): ask(running.url, kind, budget, limit, stream, **more)
        for name, ask in DIALECTS.items()
        for stream in (False, True)
    }
    whole = replies["chat", False]
    for (name, stream), said in replies.items():
        if said.cut and name == "messages" and not stream:
            said.calls = whole.calls  # an object, which is mended
        assert said == whole, (name, stream)
    if kind != "call":
        for stream in (False, True):
            said = completions(running.url, kind, budget, limit, stream, **more)
            said.prompt = whole.prompt  # a raw prompt has no hint
            said.report["hint_budget"] = whole.report["hint_budget"]
            assert said == whole, ("completions", stream)
    assert whole.report["budget_effective"] >= whole.thinking
    assert budget < 0 or whole.thinking <= budget
    return whole


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("budget", [0, 16, 64, -1])
def test_every_dialect_says_and_counts_the_same(serve: Serve, kind: str, budget: int) -> None:
    whole = ask_all(serve, kind, 400, budget)
    assert not whole.cut
    assert whole.calls == ([("weather", {"city": "Bonn"})] if kind == "call" else [])
    assert kind != "json" or json.loads(whole.text)["n"] == 42
    assert kind != "text" or whole.text == ANSWERS["text"]
    if budget > 0:
        assert (whole.thinking, whole.report["end_cause"]) == (budget, "budget")
    else:
        assert whole.report["end_cause"] == ("natural" if budget else "disabled")
        assert (whole.thinking > 64) == (budget < 0)


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("budget", [0, 16, 64, -1])
def test_every_dialect_cuts_at_the_same_token(serve: Serve, kind: str, budget: int) -> None:
    """The limit leaves the answer 3 tokens less than it has."""
    more = {"ponder": {"min_answer_tokens": 1}}  # a larger reserve would shorten the thought
    natural = ask_all(serve, kind, 400, budget, **more)
    whole = ask_all(serve, kind, natural.completion - 4, budget, **more)  # the fourth is EOS
    assert whole.thinking == natural.thinking
    assert whole.cut and not natural.cut
    assert whole.completion == natural.completion - 4
    assert whole.text != natural.text or whole.calls != natural.calls
    assert natural.text.startswith(whole.text)
    if kind == "call":
        ((name, partial),) = whole.calls
        assert name == "weather"
        assert isinstance(partial, str) and '{"city": "Bonn"}'.startswith(partial)
