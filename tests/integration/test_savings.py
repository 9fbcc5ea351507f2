"""The savings that a real server reports are those of serving every prompt in both arms."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
import openai
import pytest

from ponder.engine.tokenizer import ModelFiles
from ponder.experiment.holdout import Arm, Holdout
from ponder.server.model import ServedModel
from ponder.server.savings import open_ledger, report
from ponder.server.settings import Settings

from .conftest import ServerProcess, start_server

pytestmark = pytest.mark.engine

KEY = "integration test key"
BUDGET = 24
PER_ARM = 205  # conversations of one prompt each; 200 per arm are enough to measure
CEILING = 96
AT_ONCE = 48


@pytest.fixture(scope="module")
def measuring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    running = start_server(
        tmp_path_factory.mktemp("measuring") / "log",
        *("--holdout", "0.5", "--holdout-key", KEY),
        *("--default-budget", str(BUDGET), "--budget-ceiling", str(CEILING)),
    )
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def prompts() -> dict[str, tuple[Arm, str]]:
    """(arm, question) by user, as many for each arm."""
    holdout = Holdout(0.5, KEY.encode())
    left = {"policy": PER_ARM, "holdout": PER_ARM}
    found: dict[str, tuple[Arm, str]] = {}
    for index in range(100_000):
        arm = holdout.assign(f"user:{index}").arm
        if left[arm]:
            left[arm] -= 1
            more = " + 26" * (index % 4)
            found[str(index)] = (arm, f"What is {index % 89 + 2} + {index % 37 + 3} - 4{more}?")
        if not any(left.values()):
            return found
    raise AssertionError("the key draws no conversations")


def ask_all(url: str, requests: list[dict[str, Any]]) -> list[Any]:
    async def go() -> list[Any]:
        places = asyncio.Semaphore(AT_ONCE)
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600
        ) as client:

            async def one(request: dict[str, Any]) -> Any:
                async with places:
                    return await client.chat.completions.create(**request)

            return await asyncio.gather(*map(one, requests))

    return asyncio.run(go())


def request(question: str, **extra: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": "tiny", "messages": messages, "temperature": 0, "extra_body": extra}


def test_the_effect_is_that_of_serving_every_prompt_in_both_arms(measuring: ServerProcess) -> None:
    drawn = prompts()
    replies = ask_all(measuring.url, [request(q, user=user) for user, (_, q) in drawn.items()])
    for (arm, _), reply in zip(drawn.values(), replies, strict=True):
        assert reply.choices[0].ponder["arm"] == arm

    report = httpx.get(f"{measuring.url}/v1/ponder/savings").json()
    tokens = report["tokens"]
    assert report["status"] == "measured"
    spent: dict[str, list[int]] = {"policy": [], "holdout": []}
    for (arm, _), reply in zip(drawn.values(), replies, strict=True):
        spent[arm].append(reply.usage.completion_tokens)
    for arm, costs in spent.items():
        assert (tokens[arm]["count"], tokens[arm]["conversations"]) == (PER_ARM, PER_ARM)
        assert tokens[arm]["mean"]["value"] == pytest.approx(fmean(costs))

    # What the other arm would have cost, by asking for its budget.
    other = {"policy": -1, "holdout": BUDGET}
    requests = [request(q, thinking_token_budget=other[arm]) for arm, q in drawn.values()]
    twins = ask_all(measuring.url, requests)
    effects = []
    for (arm, _), reply, twin in zip(drawn.values(), replies, twins, strict=True):
        difference = reply.usage.completion_tokens - twin.usage.completion_tokens
        effects.append(difference if arm == "policy" else -difference)
    effect, measured = fmean(effects), tokens["difference"]
    assert measured["low"] <= effect <= measured["high"]
    assert measured["high"] < 0  # the policy saves, and the report knows
    assert tokens["ratio"]["high"] < 1

    # Each metric, to the token, against what the responses of this run said.
    every = [*replies, *twins]
    usages = [reply.usage for reply in every]
    thinking = sum(usage.completion_tokens_details.reasoning_tokens for usage in usages)
    assert measuring.metric("ponder_thinking_tokens_total") == thinking
    assert measuring.metric("ponder_thinking_tokens_sum") == thinking
    parts = ("thinking", "forced", "answer", "retry", "probe")
    totals = {part: measuring.metric(f"ponder_{part}_tokens_total") for part in parts}
    reports = [reply.choices[0].ponder for reply in every]
    assert totals == {part: sum(r[f"{part}_tokens"] for r in reports) for part in parts}
    assert sum(totals.values()) == measuring.metric("ponder_holdout_tokens_sum")
    assert measuring.metric("ponder_prompt_tokens_total") == sum(u.prompt_tokens for u in usages)
    assert measuring.metric("ponder_requests_total") == len(every)
    causes = Counter(report["end_cause"] for report in reports)
    truncations = causes["budget"] + causes["length"]
    assert measuring.metric("ponder_truncations_total") == truncations
    assert measuring.metric("ponder_budget_effective_tokens_sum") == sum(
        report["budget_effective"] for report in reports
    )
    assert measuring.metric("ponder_budget_violations_total") == 0
    assert measuring.metric("ponder_empty_answers_total") == 0


def test_ours_and_the_engines_metrics_are_beside_each_other(measuring: ServerProcess) -> None:
    text = httpx.get(f"{measuring.url}/metrics").text
    families = re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)
    assert [name for name, count in Counter(families).items() if count > 1] == []
    assert {"vllm:num_requests_running", "ponder_thinking_tokens"} <= set(families)
    assert all(name.startswith(("ponder_", "vllm:", "python_", "process_")) for name in families)


def test_names_from_clients_never_become_labels(measuring: ServerProcess) -> None:
    url = f"{measuring.url}/v1/chat/completions"
    body = request("hi", user="nobody-knows-me") | {"model": "no-such-model"}
    body |= body.pop("extra_body")
    assert httpx.post(url, json=body).status_code == 404
    assert httpx.post(f"{measuring.url}/v1/no-such-endpoint", json={}).status_code == 404
    headers = {"x-ponder-conversation": "nobody-knows-this"}
    body["model"] = "tiny"
    assert httpx.post(url, json=body, headers=headers, timeout=60).status_code == 200
    text = httpx.get(f"{measuring.url}/metrics").text
    assert not [name for name in ("nobody-knows", "no-such") if name in text]


def test_sums_survive_a_restart(measuring: ServerProcess, tmp_path: Path) -> None:
    """Last, because it ends the server: what was charged is there for the next one."""
    before = httpx.get(f"{measuring.url}/v1/ponder/savings").json()
    assert before["tokens"]["policy"]["count"] + before["tokens"]["holdout"]["count"] > 0
    measuring.process.terminate()
    assert measuring.process.wait(60) == 0
    state = measuring.log.with_name("state.sqlite3")
    settings = Settings(  # type: ignore[call-arg]
        holdout=0.5,
        holdout_key=KEY,
        default_budget=BUDGET,
        budget_ceiling=CEILING,
        state=str(state),
    )
    model = ServedModel.load(ModelFiles.find(settings.model), settings)
    ledger = open_ledger(settings, model)
    after = asyncio.run(report(ledger, 0.5))
    ledger.close()
    assert after.model_dump() == before
