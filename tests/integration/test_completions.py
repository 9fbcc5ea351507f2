"""Raw prompts on the real engine, through OpenAI's own client."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from .conftest import ServerProcess

pytestmark = pytest.mark.engine

CHAT: Any = [{"role": "user", "content": "What is 38 + 45 - 17 + 26?"}]


@pytest.fixture
def prompt(server: ServerProcess) -> list[int]:
    """What the chat template makes of the question: it ends inside an open thought."""
    said = httpx.post(f"{server.url}/tokenize", json={"messages": CHAT})
    tokens: list[int] = said.json()["tokens"]
    return tokens


def test_an_open_thought_is_a_chats(client: openai.OpenAI, prompt: list[int]) -> None:
    asked: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 200}
    options = {"thinking_token_budget": 32, "ponder": {"hint": False}}
    chat: Any = client.chat.completions.create(messages=CHAT, extra_body=options, **asked)
    extra = {"thinking_token_budget": 32}
    raw: Any = client.completions.create(prompt=prompt, extra_body=extra, **asked)
    said, choice = chat.choices[0], raw.choices[0]
    assert choice.text == said.message.content
    assert choice.reasoning == said.message.reasoning
    assert choice.ponder == said.ponder
    assert choice.ponder["thinking_tokens"] <= 32
    assert raw.usage.total_tokens == chat.usage.total_tokens


def test_streaming_equals_whole(client: openai.OpenAI, prompt: list[int]) -> None:
    text = "What is 1 + 2?"
    asked: dict[str, Any] = {
        "model": "tiny", "prompt": [text, text], "n": 2, "seed": 3, "logprobs": 2,
        "extra_body": {"ignore_eos": True},
    }  # fmt: skip
    whole = client.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert whole.usage is not None and whole.usage.completion_tokens == 4 * 16
    texts = dict.fromkeys(range(4), "")
    for chunk in client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {choice.index: choice.text for choice in whole.choices}
    for choice in whole.choices:
        told = choice.logprobs
        assert told is not None and told.text_offset is not None and told.tokens is not None
        for token, offset in zip(told.tokens, told.text_offset, strict=True):
            if "\ufffd" not in token:
                assert choice.text[offset:].startswith(token)


def test_a_budget_without_a_thought_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="leave thinking_token_budget out"):
        client.completions.create(
            model="tiny", prompt="Once", extra_body={"thinking_token_budget": 8}
        )
