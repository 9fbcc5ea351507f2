"""Pools over HTTP: budgets shrink, every dialect is told, and what was used is settled."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest
from pydantic import ValidationError

from ponder.engine.protocol import EngineError
from ponder.server.keys import authorise
from ponder.server.lending import HEADERS, Lending
from ponder.server.pools.memory import MemoryPools
from ponder.server.settings import Settings
from waiting import wait_until

from .conftest import Running, Serve
from .test_savings import series

ENDLESS = "thinking and thinking " * 400  # no end of a sentence, where a cut could be early
ANSWER = "The answer is 42."
QUESTION = [{"role": "user", "content": "What is 40 + 2?"}]
POOL = ["tenant=2000/30d"]  # nothing comes back while a test runs
CHAT = ("/v1/chat/completions", {"messages": QUESTION, "thinking_token_budget": 400})
DIALECTS: list[tuple[str, dict[str, Any]]] = [
    CHAT,
    ("/v1/completions", {"prompt": "6 * 7?<think>", "thinking_token_budget": 400}),
    ("/v1/responses", {"input": "6 * 7?", "thinking_token_budget": 400}),
    (
        "/v1/messages",
        {
            "messages": QUESTION,
            "max_tokens": 1000,
            "thinking": {"type": "enabled", "budget_tokens": 400},
        },
    ),
]


def post(running: Running, path: str = CHAT[0], key: str = "none", **fields: Any) -> httpx.Response:
    body = dict(DIALECTS)[path] | {"model": "tiny"} | fields
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{running.url}{path}", json=body, headers=headers, timeout=60)


def report(reply: httpx.Response) -> dict[str, Any]:
    """Of the first choice, in any dialect, whole or streamed."""
    assert reply.status_code == 200, reply.text
    if "event-stream" in reply.headers["content-type"]:
        lines = [line.removeprefix("data: ") for line in reply.text.splitlines()]
        parts = [json.loads(line) for line in lines if line.startswith("{")]
    else:
        parts = [reply.json()]
    (found, *_) = (said for part in reversed(parts) for said in _reports(part))
    return found


def _reports(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "ponder" and value:
                yield value
            else:
                yield from _reports(value)
    elif isinstance(part, list):
        for value in part:
            yield from _reports(value)


def limits(reply: httpx.Response) -> tuple[int, int]:
    """Of the pool that has least left: what a full one holds, and what is left."""
    limit, remaining, reset = (reply.headers[name] for name in HEADERS)
    assert reset.endswith("s")
    assert reset[:-1].isdecimal()
    return int(limit), int(remaining)


def left(running: Running) -> int:
    """What the tenant's pool has, once all that ended is settled."""
    return limits(post(running, thinking_token_budget=0))[1]


def settled(running: Running, tokens: int) -> None:
    """Waits until the tenant's pool has so many tokens."""
    wait_until(lambda: left(running) == tokens)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", dict(DIALECTS))
def test_a_pool_shrinks_budgets_in_every_dialect(serve: Serve, path: str, stream: bool) -> None:
    running = serve(ENDLESS, ANSWER, pool=POOL)
    found = [post(running, path, stream=stream) for _ in range(3)]
    assert [limits(reply) for reply in found] == [(2000, 1800), (2000, 1620), (2000, 1458)]
    for reply, budget in zip(found, (200, 180, 162), strict=True):
        said = report(reply)
        assert (said["budget_requested"], said["budget_effective"]) == (400, budget)
        assert (said["budget_source"], said["end_cause"]) == ("pool", "budget")
        assert said["thinking_tokens"] == budget


def test_the_request_stays_the_source_while_the_pool_has_more(serve: Serve) -> None:
    said = report(post(serve(ENDLESS, ANSWER, pool=POOL), thinking_token_budget=200))
    assert (said["budget_effective"], said["budget_source"]) == (200, "request")


@pytest.mark.parametrize(
    ("size", "lent", "told"),
    [(300, 64, 40), (1000, 100, 80), (2000, 200, 200), (30_000, 3000, None)],
)
def test_a_model_that_knows_budgets_is_told_what_it_is_lent(
    serve: Serve, size: int, lent: int, told: int | None
) -> None:
    """No limit was asked for: it is not held to the largest hint where it is lent more."""
    said = report(post(serve(pool=[f"tenant={size}/30d"]), thinking_token_budget=-1))
    assert (said["budget_effective"], said["budget_source"]) == (lent, "pool")
    assert said["hint_budget"] == told


def test_what_a_thought_did_not_use_returns(serve: Serve) -> None:
    running = serve(pool=POOL)
    said = report(post(running))
    assert said["end_cause"] == "natural"
    settled(running, 2000 - said["thinking_tokens"])


def drained(serve: Serve, **settings: object) -> Running:
    """A server whose one tenant has less left than a pool lends."""
    running = serve(ENDLESS, ANSWER, **{"pool": ["tenant=100/30d"], **settings})
    post(running)
    settled(running, 36)
    return running


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", dict(DIALECTS))
def test_an_empty_pool_has_requests_answered_without_a_thought(
    serve: Serve, path: str, stream: bool
) -> None:
    running = drained(serve)
    reply = post(running, path, stream=stream)
    said = report(reply)
    assert (said["budget_effective"], said["budget_source"]) == (0, "pool")
    assert (said["end_cause"], said["thinking_tokens"]) == ("disabled", 0)
    assert ANSWER in reply.text.replace("\\", "") or stream
    assert limits(reply) == (100, 36)


@pytest.mark.parametrize("path", dict(DIALECTS))
def test_where_the_operator_says_so_an_empty_pool_is_an_error(serve: Serve, path: str) -> None:
    running = drained(serve, on_exhausted="error")
    reply = post(running, path, stream=True)
    assert reply.status_code == 429
    error = reply.json()["error"]
    assert error["code"] == "thinking_quota_exhausted"
    assert error["type"] == "rate_limit_error"
    assert error["message"].endswith(" s, or ask for an answer without a thought")
    # 28 of 100 tokens in 30 days
    assert 700_000 < int(reply.headers["retry-after"]) <= 725_760
    assert reply.headers["x-should-retry"] == "false"  # nobody waits so long
    assert limits(reply) == (100, 36)
    assert report(post(running, path, **without(path)))["thinking_tokens"] == 0
    counted = series(running, "ponder_errors_total")
    assert counted['code="thinking_quota_exhausted",status="429"'] == 1


@pytest.mark.parametrize(
    ("asked", "instead"),
    [
        ({"thinking_token_budget": 99}, {"thinking_token_budget": 0}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "none"}),
        ({"enable_thinking": True}, {"enable_thinking": False}),
        (
            {"ponder": {"strategy": {"method": "self_consistency", "n": 2, "token_budget": 99}}},
            {"budget": 0},
        ),
    ],
)
def test_the_remedy_for_an_empty_pool_holds_however_a_thought_was_asked_for(
    serve: Serve, asked: dict[str, Any], instead: dict[str, Any]
) -> None:
    """No effort, no switch and no strategy takes a 0."""
    running = drained(serve, on_exhausted="error")
    url, messages = f"{running.url}/v1/chat/completions", [{"role": "user", "content": "?"}]
    refused = httpx.post(url, json={"messages": messages, **asked})
    assert refused.status_code == 429
    assert " 0" not in refused.json()["error"]["message"].partition("try again")[2]
    assert httpx.post(url, json={"messages": messages, **instead}).status_code == 200


def without(path: str) -> dict[str, Any]:
    if path == "/v1/messages":
        return {"thinking": {"type": "disabled"}}
    return {"thinking_token_budget": 0}


def test_a_short_wait_is_worth_a_repeat(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER, pool=["tenant=100/60s"], on_exhausted="error")
    post(running)
    reply = post(running)
    assert reply.status_code == 429
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert "x-should-retry" not in reply.headers


def test_the_official_client_knows_the_error(serve: Serve) -> None:
    running = drained(serve, on_exhausted="error")
    with pytest.raises(openai.RateLimitError, match="used its thinking tokens"):
        running.ask(budget=400)


def test_the_least_thought_asked_for_does_not_hold_against_a_pool(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER, pool=POOL)
    said = report(post(running, ponder={"min_thinking_tokens": 300}))
    assert (said["thinking_tokens"], said["budget_source"]) == (200, "pool")
    said = report(post(drained(serve), ponder={"min_thinking_tokens": 300}))
    assert (said["thinking_tokens"], said["end_cause"]) == (0, "disabled")


def test_several_choices_take_their_parts_alike(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER, pool=POOL)
    reply = post(running, n=3)
    budgets = [choice["ponder"]["budget_effective"] for choice in reply.json()["choices"]]
    assert budgets == [166] * 3  # 2000 / 12
    settled(running, 2000 - 3 * 166)


def test_several_prompts_take_theirs(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER, pool=POOL)
    reply = post(running, "/v1/completions", prompt=["1 + 1?<think>", "2 + 2?<think>"], n=2)
    budgets = [choice["ponder"]["budget_effective"] for choice in reply.json()["choices"]]
    assert budgets == [153] * 4
    settled(running, 2000 - 4 * 153)


def test_a_thought_that_nobody_waits_for_pays_what_it_used(serve: Serve) -> None:
    """Its client leaves when the first tokens are there."""
    running = serve(ENDLESS, ANSWER, pool=POOL, delay=0.002)
    body = {**CHAT[1], "model": "tiny", "stream": True}
    with httpx.stream("POST", f"{running.url}{CHAT[0]}", json=body) as reply:
        assert limits(reply) == (2000, 1800)
        next(reply.iter_lines())
    wait_until(lambda: left(running) > 1800)
    used = series(running, "ponder_pool_thinking_tokens_total")['pool="tenant"']
    assert 0 < used < 200
    assert left(running) == 2000 - used
    assert used <= sum(map(len, running.engine.outputs))


def test_a_request_that_the_engine_fails_pays_what_it_used(serve: Serve) -> None:
    def script(_prompt: Sequence[int], number: int) -> Iterator[int]:
        yield from b"seven.."
        if number:
            yield from running.service.model.tokenizer.eos_token_ids
        raise EngineError("out of order")

    running = serve(script=script, pool=POOL)
    assert post(running).status_code == 502
    settled(running, 1993)


def test_a_request_that_is_refused_after_its_loan_gives_it_back(serve: Serve) -> None:
    """The plan under a pool may not fit what the plan before it did: nothing is kept."""
    running = serve(ENDLESS, ANSWER, pool=POOL)
    completion_cls = "ponder.server.completion.Completion.shrink"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(completion_cls, lambda *_: (_ for _ in ()).throw(EngineError("no")))
        assert post(running).status_code == 502
    settled(running, 2000)


def test_a_server_that_leaves_settles_what_it_cuts(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER, pool=POOL, delay=0.002, drain_timeout=0)
    asked = threading.Thread(target=post, args=(running,))
    asked.start()
    wait_until(lambda: running.engine.unfinished() == 1)
    draining = running.service.drain(asyncio.Event())
    asyncio.run_coroutine_threadsafe(draining, running.loop).result(60)
    asked.join(60)
    used = series(running, "ponder_pool_thinking_tokens_total")['pool="tenant"']
    assert 0 <= used < 200
    pools = running.observer(Lending)._pools["tenant"]
    assert isinstance(pools, MemoryPools)
    assert [pool.left for pool in pools._pools.values()] == [2000 - used]


# -- whose pool it is ------------------------------------------------------------------------


def test_every_key_is_a_tenant(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER, pool=POOL, api_key=["one", "two"])
    assert limits(post(running, key="one"))[1] == 1800
    assert limits(post(running, key="one"))[1] == 1620
    assert limits(post(running, key="two"))[1] == 1800
    header = {"x-api-key": "two"}
    reply = httpx.post(f"{running.url}{CHAT[0]}", json={**CHAT[1], "budget": 400}, headers=header)
    assert limits(reply)[1] == 1620


def test_a_tenant_is_named_without_its_key() -> None:
    settings = Settings(api_key=["a secret"])  # type: ignore[call-arg, list-item]
    tenant = authorise(settings.api_key, "Bearer a secret")
    assert "secret" not in tenant
    assert tenant == authorise(settings.api_key, "bearer  a secret ")
    assert authorise([], None) == ""


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"ponder": {"scope": "a talk"}}, {}),
        ({"user": "somebody"}, {}),
        ({}, {"x-ponder-conversation": "a talk"}),
    ],
)
def test_a_conversation_has_a_pool_of_its_own(
    serve: Serve, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    running = serve(ENDLESS, ANSWER, pool=["conversation=2000/30d"], api_key=["one", "two"])

    def ask(key: str, more: dict[str, Any], said: dict[str, str]) -> httpx.Response:
        body = {**CHAT[1], "model": "tiny", **more}
        said = {**said, "authorization": f"Bearer {key}"}
        return httpx.post(f"{running.url}{CHAT[0]}", json=body, headers=said)

    assert limits(ask("one", fields, headers))[1] == 1800
    assert limits(ask("one", fields, headers))[1] == 1620
    assert limits(ask("one", {"user": "another"}, {}))[1] == 1800
    assert limits(ask("two", fields, headers))[1] == 1800  # another tenant's, of the same name
    alone = ask("one", {}, {})
    assert HEADERS[0] not in alone.headers
    assert report(alone)["budget_source"] == "request"


def test_of_two_pools_the_tighter_one_holds_and_is_told_of(serve: Serve) -> None:
    pool = ["tenant=2000/30d", "conversation=1000/30d"]
    running = serve(ENDLESS, ANSWER, pool=pool)
    reply = post(running, user="a talk")
    assert (report(reply)["budget_effective"], limits(reply)) == (100, (1000, 900))
    settled(running, 1900)  # the tenant lent no more than the conversation
    reply = post(running)
    assert (report(reply)["budget_effective"], limits(reply)) == (190, (2000, 1710))


@pytest.mark.parametrize("on_exhausted", ["answer", "error"])
def test_an_empty_tenant_leaves_its_conversations_what_they_have(
    serve: Serve, on_exhausted: str
) -> None:
    pool = ["tenant=100/30d", "conversation=90/30d"]
    running = drained(serve, pool=pool, on_exhausted=on_exhausted)
    reply = post(running, user="a talk")
    assert (reply.status_code, limits(reply)) == (
        429 if on_exhausted == "error" else 200,
        (100, 36),
    )
    conversations = running.observer(Lending)._pools["conversation"]
    assert isinstance(conversations, MemoryPools)
    lease = asyncio.run_coroutine_threadsafe(conversations.grant("any", [0]), running.loop).result(
        60
    )
    assert (len(conversations), lease.left) == (0, 90)


# -- what is counted, and what it costs ------------------------------------------------------


def test_what_pools_lend_is_counted_without_a_name(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER, pool=["tenant=200/30d"], api_key=["a key"])
    zeros = series(running, "ponder_pool_requests_total")
    assert zeros == {f'lent="{lent}",pool="tenant"': 0 for lent in ("whole", "less", "nothing")}
    post(running, key="a key", thinking_token_budget=10)
    post(running, key="a key")
    post(running, key="a key")
    post(running, key="a key")
    post(running, key="a key", thinking_token_budget=0)
    assert series(running, "ponder_pool_requests_total") == {
        'lent="whole",pool="tenant"': 1,
        'lent="less",pool="tenant"': 2,
        'lent="nothing",pool="tenant"': 1,
    }
    assert series(running, "ponder_pool_thinking_tokens_total") == {'pool="tenant"': 138}
    assert series(running, "ponder_pool_left_ratio_count") == {'pool="tenant"': 4}


def test_without_pools_nothing_is_lent_or_told(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER)
    reply = post(running)
    assert not [name for name in reply.headers if name.startswith("x-ratelimit")]
    assert report(reply)["budget_source"] == "request"
    assert series(running, "ponder_pool_requests_total") == {}


def test_a_model_without_thoughts_is_not_charged(serve: Serve) -> None:
    running = serve("42", thinks=False, pool=["tenant=64/30d"], on_exhausted="error")
    for _ in range(3):
        said = running.ask()
        assert said.choices[0].message.content == "42"
    assert left(running) == 64


def test_browsers_may_read_what_is_left(serve: Serve) -> None:
    running = serve(pool=POOL, cors_origin=["https://app.example"])
    headers = {"origin": "https://app.example"}
    reply = httpx.post(f"{running.url}{CHAT[0]}", json=CHAT[1], headers=headers)
    assert set(HEADERS) <= set(reply.headers["access-control-expose-headers"].split(", "))


def test_both_arms_keep_to_the_pools(serve: Serve) -> None:
    """They are ceilings, and not what saves."""
    running = serve(
        ENDLESS, ANSWER, pool=POOL, default_budget=30, holdout=0.5, holdout_key="a key of sixteen"
    )
    arms: dict[str, set[str]] = {}
    for name in map(str, range(12)):
        said = running.ask(user=name).choices[0].ponder
        arms.setdefault(said["arm"], set()).add(said["budget_source"])
    assert arms == {"policy": {"default"}, "holdout": {"pool"}}


def test_what_is_done_about_an_empty_pool_needs_one() -> None:
    with pytest.raises(ValidationError, match="add --pool, or leave it out"):
        Settings(on_exhausted="error")
    with pytest.raises(ValidationError, match="as 200000/1h"):
        Settings(pool=["tenant=much"])
