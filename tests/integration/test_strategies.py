"""Several thoughts on one budget, on the real engine."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from waiting import wait_until

from .conftest import ServerProcess

pytestmark = pytest.mark.engine

PARTS = ("thinking", "forced", "answer", "retry", "probe")


def ask(client: openai.OpenAI, strategy: dict[str, Any], **more: Any) -> Any:
    asked = {"n": 4, "token_budget": 400, "answer": "number", **strategy}
    ponder = {"hint": False, "loop_exit": False, "holdout": "never", "strategy": asked}
    return client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "What is 38 + 45 - 17 + 26 - 9 + 14 + 3?"}],
        extra_body={"ponder": ponder},
        seed=1,
        **more,
    )


@pytest.mark.parametrize(
    "strategy", [{"method": "self_consistency"}, {"method": "particles", "interval": 32}]
)
def test_thoughts_share_a_budget_and_give_one_answer(
    server: ServerProcess, client: openai.OpenAI, strategy: dict[str, Any]
) -> None:
    before = server.metric("ponder_budget_violations_total")
    reply = ask(client, strategy)
    (choice,) = reply.choices
    report, told = choice.ponder, choice.ponder["strategy"]
    assert choice.message.content == told["answers"][told["chosen"]]["answer"]
    assert 0 < report["thinking_tokens"] <= 400
    assert reply.usage.completion_tokens == sum(report[f"{part}_tokens"] for part in PARTS)
    assert reply.usage.prompt_tokens_details.cached_tokens <= reply.usage.prompt_tokens
    for part in PARTS:
        rows = sum(row[f"{part}_tokens"] for row in told["answers"])
        assert rows == report[f"{part}_tokens"]
    assert (report["probe_tokens"] > 0) == (strategy["method"] == "particles")
    assert server.metric("ponder_budget_violations_total") == before
    wait_until(lambda: server.metric("vllm:num_requests_running") == 0)


def test_a_stream_has_the_chosen_thought_alone(client: openai.OpenAI) -> None:
    chunks = list(ask(client, {"method": "self_consistency"}, stream=True))
    told = chunks[-1].choices[0].ponder["strategy"]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == told["answers"][told["chosen"]]["answer"]
