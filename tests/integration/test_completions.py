"""Raw prompts on the real engine, through OpenAI's own client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM

from ponder.engine.tokenizer import HFTokenizer
from ponder.server.settings import BUNDLED_MODEL

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


def test_an_echo_scores_the_prompt_as_the_model_does(client: openai.OpenAI) -> None:
    tokenizer = HFTokenizer(Path(BUNDLED_MODEL))
    model = AutoModelForCausalLM.from_pretrained(BUNDLED_MODEL, dtype=torch.float32)
    for text in ("The answer is 33.", "17 + 25 = 42. 42 - 9 = 33.\n", "Once upon a time"):
        ids = tokenizer.encode(text)
        reply = client.completions.create(
            model="tiny", prompt=ids, echo=True, logprobs=1, max_tokens=0, temperature=0.0
        )
        (choice,) = reply.choices
        assert choice.text == text and choice.logprobs is not None
        assert reply.usage is not None and reply.usage.completion_tokens == 0
        scores = choice.logprobs.token_logprobs
        assert scores is not None and scores[0] is None
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        expected = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        pairs = zip(scores[1 : len(ids)], expected.tolist(), strict=True)
        apart = [abs(score - other) for score, other in pairs if score is not None]
        assert len(apart) == len(ids) - 1
        assert max(apart) < 0.2 and sum(apart) / len(apart) < 0.05  # it computes in bfloat16
