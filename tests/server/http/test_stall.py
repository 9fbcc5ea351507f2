"""An engine that hangs: seen, counted, and forgiven when it speaks again."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ponder.engine.protocol import EngineOverloadedError
from ponder.server import watch
from waiting import wait_until

from .conftest import Running, Serve

READY = (200, "ready\n")
STALLED = (503, "engine stalled\n")


def readiness(running: Running) -> tuple[int, str]:
    answer = httpx.get(f"{running.url}/readyz")
    return answer.status_code, answer.text


def silence(running: Running) -> float:
    name = "ponder_engine_silence_seconds "
    metrics = httpx.get(f"{running.url}/metrics").text.splitlines()
    (line,) = [line for line in metrics if line.startswith(name)]
    return float(line.removeprefix(name))


def test_an_engine_that_gives_no_token_is_not_ready_until_it_does(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "HEALTH_CHECK_SECONDS", 0.01)
    running = serve(stall_timeout=0.2)
    watching = asyncio.run_coroutine_threadsafe(running.service.watch.until_dead(), running.loop)
    running.engine.hang()
    assert silence(running) == 0  # it has nothing to do
    assert readiness(running) == READY
    with ThreadPoolExecutor() as pool, caplog.at_level(logging.WARNING):
        reply = pool.submit(running.ask)
        wait_until(lambda: readiness(running) == STALLED)
        wait_until(lambda: "has given no token" in caplog.text)
        assert silence(running) > 0.2
        running.loop.call_soon_threadsafe(running.engine.go_on)
        assert reply.result(20).choices[0].message.content
        wait_until(lambda: readiness(running) == READY)
        wait_until(lambda: "gives tokens again" in caplog.text)
    assert silence(running) == 0
    watching.cancel()


def test_an_engine_that_is_away_is_not_ready_until_it_is_back(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "HEALTH_CHECK_SECONDS", 0.01)
    running, away = serve(), True

    async def check_health() -> None:
        if away:
            raise EngineOverloadedError("no server answers")

    monkeypatch.setattr(running.engine, "check_health", check_health)
    watching = asyncio.run_coroutine_threadsafe(running.service.watch.until_dead(), running.loop)
    wait_until(lambda: readiness(running) == (503, "engine away\n"))
    away = False
    wait_until(lambda: readiness(running) == READY)
    wait_until(lambda: "the engine is back" in caplog.text)
    assert not running.service.watch.dead
    watching.cancel()


def test_a_slow_engine_is_no_stalled_one(serve: Serve) -> None:
    running = serve(delay=0.05, stall_timeout=5)
    seen = set()
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(running.ask)
        while not reply.done():
            seen.add(readiness(running))
    assert seen == {READY}
