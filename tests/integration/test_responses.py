"""The Responses API on the real engine, through OpenAI's own client."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from pydantic import BaseModel

pytestmark = pytest.mark.engine

QUESTION = "What is 38 + 45 - 17 + 26?"


@pytest.mark.parametrize("budget", [0, 16, -1])
def test_a_response_is_a_chats_answer_whole_and_streamed(
    client: openai.OpenAI, budget: int
) -> None:
    extra = {"thinking_token_budget": budget}
    asked: dict[str, Any] = {"model": "tiny", "temperature": 0, "extra_body": extra}
    chat: Any = client.chat.completions.create(
        messages=[{"role": "user", "content": QUESTION}], **asked
    )
    whole: Any = client.responses.create(input=QUESTION, **asked)
    with client.responses.stream(input=QUESTION, **asked) as stream:
        streamed: Any = stream.get_final_response()
    for response in (whole, streamed):
        assert response.output_text == chat.choices[0].message.content
        assert response.ponder == chat.choices[0].ponder
        assert response.usage.output_tokens == chat.usage.completion_tokens
        thoughts = [item for item in response.output if item.type == "reasoning"]
        told = "".join(thought.content[0].text for thought in thoughts)
        assert told == (chat.choices[0].message.reasoning or "")
    assert budget < 0 or whole.usage.output_tokens_details.reasoning_tokens <= budget


class Verdict(BaseModel):
    right: bool


def test_a_format_is_kept(client: openai.OpenAI) -> None:
    extra = {"thinking_token_budget": 8}
    response = client.responses.parse(
        model="tiny", input="Is 2 + 2 = 4?", text_format=Verdict, extra_body=extra
    )
    assert isinstance(response.output_parsed, Verdict)
