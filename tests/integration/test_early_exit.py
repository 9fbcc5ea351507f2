"""Probes beside a thought, on the real engine."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from waiting import wait_until

from .conftest import ServerProcess

pytestmark = pytest.mark.engine

EARLY = {"method": "agreement", "interval": 32, "window": 2, "answer": "number"}
PARTS = ("thinking", "forced", "answer", "retry", "probe")


def ask(client: openai.OpenAI, early: dict[str, Any] | None, **more: Any) -> Any:
    ponder = {"hint": False, "holdout": "never", **({} if early is None else {"early_exit": early})}
    return client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "What is 38 + 45 - 17 + 26?"}],
        extra_body={"thinking_token_budget": -1, "ponder": ponder},
        **more,
    )


def test_probes_are_billed_and_change_nothing_until_they_agree(
    server: ServerProcess, client: openai.OpenAI
) -> None:
    before = server.metric("ponder_probe_tokens_total")
    plain = ask(client, None, n=4, seed=1)
    early = ask(client, EARLY, n=4, seed=1)
    reports = [choice.ponder for choice in early.choices]
    assert early.usage.completion_tokens == sum(
        report[f"{part}_tokens"] for report in reports for part in PARTS
    )
    probed = sum(report["probe_tokens"] for report in reports)
    assert server.metric("ponder_probe_tokens_total") - before == probed > 0
    for whole, cut, report in zip(plain.choices, early.choices, reports, strict=True):
        assert cut.message.content
        assert whole.message.reasoning.startswith(cut.message.reasoning)
        assert report["end_cause"] in ("agreement", "natural")
    assert "agreement" in [report["end_cause"] for report in reports]
    wait_until(lambda: server.metric("vllm:num_requests_running") == 0)


def test_interim_answers_come_in_the_stream(client: openai.OpenAI) -> None:
    early = {**EARLY, "interim": True}
    options = {"include_usage": True}
    chunks = list(ask(client, early, seed=1, stream=True, stream_options=options))
    interim = [chunk.ponder for chunk in chunks if getattr(chunk, "ponder", None)]
    assert interim and all("answer" in one["answer"] for one in interim)
    report = chunks[-2].choices[0].ponder
    spent = sum(report[f"{part}_tokens"] for part in PARTS)
    assert chunks[-1].usage.completion_tokens == spent
    if report["end_cause"] == "agreement":
        assert interim[-1]["agreement"] == EARLY["window"]


def test_the_entropy_of_a_real_answer_closes_a_thought(client: openai.OpenAI) -> None:
    early = {
        "method": "entropy",
        "interval": 32,
        "window": 2,
        "delta": 10,
        "prefix": "The answer is",
    }
    report = ask(client, early, seed=1).choices[0].ponder
    assert (report["end_cause"], report["probe_tokens"]) == ("entropy", 2)
