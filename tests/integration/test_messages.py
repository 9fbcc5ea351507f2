"""Anthropic's Messages API on the real engine, through Anthropic's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from .conftest import ServerProcess

pytestmark = pytest.mark.engine

QUESTION: list[Any] = [{"role": "user", "content": "What is 38 + 45 - 17 + 26?"}]


@pytest.fixture
def anthropics(server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("budget", [8, 64, 4096])
def test_a_stream_is_the_whole_message_within_its_budget(
    anthropics: anthropic.Anthropic, budget: int
) -> None:
    asked: Any = {
        "model": "tiny", "max_tokens": 400, "messages": QUESTION,
        "thinking": {"type": "enabled", "budget_tokens": budget},
        "extra_body": {"temperature": 0},
    }  # fmt: skip
    whole = anthropics.messages.create(**asked)
    with anthropics.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert [it.to_dict() for it in streamed.content] == [it.to_dict() for it in whole.content]
    details = whole.usage.output_tokens_details
    assert details is not None and 0 < details.thinking_tokens <= budget
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    said = (whole.model_extra or {})["ponder"]
    assert (said["end_cause"], whole.stop_reason) == (
        "budget" if budget == 8 else "natural",
        "end_turn",
    )


def test_a_count_is_the_input_of_the_usage_cached_or_not(anthropics: anthropic.Anthropic) -> None:
    asked: Any = {"model": "tiny", "messages": QUESTION, "system": "Be brief. " * 50}
    counted = anthropics.messages.count_tokens(**asked).input_tokens
    cached = []
    for _ in range(2):
        usage = anthropics.messages.create(**asked, max_tokens=50).usage
        cached.append(usage.cache_read_input_tokens or 0)
        assert usage.input_tokens + cached[-1] == counted
    assert cached[1] > 0
