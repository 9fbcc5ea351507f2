"""What engines are told of a request, for what routes and schedules it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

import httpx
import pytest

from ponder.engine.protocol import Chunk, EngineRequest

from .conftest import Running, Serve

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ENDLESS = "thinking and thinking. " * 400


def asked(
    running: Running, monkeypatch: pytest.MonkeyPatch, **fields: object
) -> tuple[str, list[EngineRequest]]:
    """The id of a reply, and what the engine was asked for it."""
    requests: list[EngineRequest] = []
    generate = running.engine.generate

    def noted(request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        requests.append(request)
        return generate(request)

    monkeypatch.setattr(running.engine, "generate", noted)
    body = {"messages": [{"role": "user", "content": "What is 40 + 2?"}], **fields}
    headers = {"traceparent": TRACE, "authorization": "Bearer secret"}
    reply = httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=headers)
    return str(reply.json()["id"]), requests


def test_all_that_a_thought_asks_for_has_one_affinity(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve(ENDLESS, "the answer")
    name, requests = asked(running, monkeypatch, budget=7, n=2)
    assert len(requests) >= 4  # each thought is cut and entered again
    for index in (0, 1):
        own = [request for request in requests if request.affinity == f"{name}-{index}"]
        assert len(own) == len(requests) // 2
        assert all(request.id.startswith(f"{name}-{index}-") for request in own)


def test_thoughts_of_a_group_stay_together(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = {"strategy": {"method": "self_consistency", "n": 3}}
    name, requests = asked(serve(ENDLESS, "the answer"), monkeypatch, budget=21, ponder=strategy)
    assert len({request.id for request in requests}) >= 3
    assert {request.affinity for request in requests} == {f"{name}-0"}


def test_engines_learn_whose_request_it_is(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    running = serve("fine</think>42", api_key=["secret"])
    _, requests = asked(running, monkeypatch, ponder={"deadline_ms": 60_000})
    (origin,) = {id(request.origin): request.origin for request in requests}.values()
    assert origin.trace == {"traceparent": TRACE}
    assert origin.tenant and "secret" not in origin.tenant
    assert origin.due_at is not None and 0 < origin.due_at - time.perf_counter() < 60
