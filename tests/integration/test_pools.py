"""A pool and the load on a real engine: budgets shrink, and grow again with time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ponder.server.lending import HEADERS
from waiting import wait_until

from .conftest import ServerProcess, start_server

pytestmark = pytest.mark.engine

TOKENS = 2000
LONG = "What is 38 + 45 - 17 + 26?"  # without a hint the model thinks for a hundred tokens


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its pool takes five minutes to fill: seven tokens a second."""
    running = start_server(
        tmp_path_factory.mktemp("pooled") / "log",
        *("--pool", f"tenant={TOKENS}/5m", "--shed-load", "unasked", "--", "--max-num-seqs", "4"),
    )
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def body(budget: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": LONG}],
        "thinking_token_budget": budget,
        "ponder": {"hint": False},
        "temperature": 0,
    }


def ask(server: ServerProcess, budget: int = 400) -> tuple[dict[str, Any], int]:
    """The report, and what is left in the pool."""
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body(budget), timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["ponder"], int(reply.headers[HEADERS[1]])


def test_a_pool_shrinks_successive_budgets_and_refills(pooled: ServerProcess) -> None:
    budgets, used = [], 0
    while not budgets or budgets[-1]:
        said, left = ask(pooled)
        budgets.append(said["budget_effective"])
        used += said["thinking_tokens"]
        assert said["thinking_tokens"] <= said["budget_effective"]
        assert said["budget_source"] == "pool"
        assert left + used <= TOKENS * 2  # what came back meanwhile is less than a pool
    assert budgets[0] == TOKENS // 10
    assert budgets[0] > budgets[3] > budgets[6]
    assert said["end_cause"] == "disabled"
    assert pooled.metric("ponder_pool_thinking_tokens_total") == used
    wait_until(lambda: ask(pooled, budget=0)[1] >= 64)
    said, _ = ask(pooled)
    assert (said["budget_effective"], said["budget_source"]) == (64, "pool")


def test_a_real_engine_tells_what_it_has_to_do(pooled: ServerProcess) -> None:
    """Four run at once, and the others wait."""
    long = {**body(0), "min_tokens": 200, "max_tokens": 256}

    async def highest() -> float:
        """The load while sixteen are asked."""
        async with httpx.AsyncClient(timeout=120) as client:
            url = f"{pooled.url}/v1/chat/completions"
            asked = [asyncio.create_task(client.post(url, json=long)) for _ in range(16)]
            found = [0.0]
            while not all(task.done() for task in asked):
                text = (await client.get(f"{pooled.url}/metrics")).text
                found += map(float, re.findall(r"^ponder_load_ratio (\S+)$", text, re.MULTILINE))
            assert all(task.result().status_code == 200 for task in asked)
            return max(found)

    assert asyncio.run(highest()) > 1
    wait_until(lambda: pooled.metric("ponder_load_ratio") == 0)
