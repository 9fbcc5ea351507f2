"""Probes beside a thought, on the real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from ponder.engine.tokenizer import HFTokenizer
from ponder.server.settings import BUNDLED_MODEL
from waiting import wait_until

from .conftest import ServerProcess

pytestmark = pytest.mark.engine

BUDGET = 600  # tokens: probes answer many times before such a thought is over
EARLY = {"method": "agreement", "interval": 32, "window": 2, "answer": "number"}
PARTS = ("thinking", "forced", "answer", "retry", "probe")


def ask(client: openai.OpenAI, early: dict[str, Any], **more: Any) -> Any:
    """A thought that does not end by itself."""
    tokenizer = HFTokenizer(Path(BUNDLED_MODEL))
    ends = (*tokenizer.encode("</think>"), *tokenizer.eos_token_ids)
    ponder = {"hint": False, "loop_exit": False, "holdout": "never", "early_exit": early}
    return client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "What is 38 + 45 - 17 + 26?"}],
        extra_body={"thinking_token_budget": BUDGET, "ponder": {**ponder, "max_answer_tokens": 16}},
        logit_bias={str(token): -100 for token in ends},
        seed=1,
        **more,
    )


def test_every_probe_is_billed(server: ServerProcess, client: openai.OpenAI) -> None:
    before = server.metric("ponder_probe_tokens_total")
    reply = ask(client, EARLY, n=4)
    reports = [choice.ponder for choice in reply.choices]
    spent = sum(report[f"{part}_tokens"] for report in reports for part in PARTS)
    assert reply.usage.completion_tokens == spent
    probed = [report["probe_tokens"] for report in reports]
    assert server.metric("ponder_probe_tokens_total") - before == sum(probed)
    assert min(probed) > 0
    assert {report["end_cause"] for report in reports} <= {"agreement", "budget"}
    wait_until(lambda: server.metric("vllm:num_requests_running") == 0)


def test_interim_answers_come_in_the_stream(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    early = {**EARLY, "interim": True}
    chunks = list(ask(client, early, stream=True, stream_options=options))
    interim = [chunk.ponder for chunk in chunks if getattr(chunk, "ponder", None)]
    assert interim and all(one["answer"] for one in interim)
    report = chunks[-2].choices[0].ponder
    assert chunks[-1].usage.completion_tokens == sum(report[f"{part}_tokens"] for part in PARTS)
    agreed = interim[-1]["agreement"] == EARLY["window"]
    assert agreed == (report["end_cause"] == "agreement")


def test_the_entropy_of_a_real_answer_closes_a_thought(client: openai.OpenAI) -> None:
    early = {"method": "entropy", "interval": 32, "window": 2, "delta": 10, "prefix": "It is"}
    report = ask(client, early).choices[0].ponder
    assert (report["end_cause"], report["probe_tokens"]) == ("entropy", 2)
    assert report["thinking_tokens"] < BUDGET
