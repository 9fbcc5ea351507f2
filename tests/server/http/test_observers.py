"""Whoever looks at requests is told of every one, once, however it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import openai
import pytest
from prometheus_client import Counter

from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say
from ponder.protocol.errors import ApiError
from ponder.server.completion import Completion
from ponder.server.observers.protocol import Observer, Watch
from ponder.server.watch import EngineWatch
from ponder.thought.answer import AnswerDelta
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.thought import Event
from waiting import wait_until

from .conftest import Serve

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "What is 40 + 2?"}]}


class Curious(Observer):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.began_with: list[str] = []
        self.answers: list[str] = []
        self.errors: list[BaseException | None] = []
        self._seen = Counter("ponder_seen_total", "Requests seen", registry=None)
        self.collectors = (self._seen,)

    def began(self, completion: Completion) -> Watch:
        self.began_with.append(completion.id)
        self._seen.inc()
        completion.headers["x-seen"] = "yes"
        return Watch(self.errors.append, self._heard)

    def _heard(self, index: int, event: Event) -> None:
        if isinstance(event, AnswerDelta):
            self.answers.append(event.text)


def test_an_observer_sees_whole_and_streamed_requests_and_adds_metrics_and_headers(
    serve: Serve,
) -> None:
    curious = Curious()
    running = serve(observers=[curious])
    whole = httpx.post(f"{running.url}/v1/chat/completions", json=BODY)
    assert whole.headers["x-seen"] == "yes"
    assert "".join(curious.answers) == "The answer is 42."
    streamed = running.ask(stream=True, n=2)
    assert curious.began_with == [whole.json()["id"], streamed[0].id]
    assert len("".join(curious.answers)) == 3 * len("The answer is 42.")
    assert curious.errors == [None, None]
    assert "\nponder_seen_total 2.0\n" in httpx.get(f"{running.url}/metrics").text


def test_an_observer_is_told_of_failures_timeouts_and_clients_that_leave(serve: Serve) -> None:
    curious = Curious()
    running = serve("thought</think>" + "\n" * 100, observers=[curious])
    with pytest.raises(openai.InternalServerError):
        running.ask(ponder={"max_answer_tokens": 20})
    running = serve(delay=0.05, request_timeout=0.2, observers=[curious])
    with pytest.raises(openai.InternalServerError):
        running.ask()
    running = serve(delay=0.05, observers=[curious])
    url = f"{running.url}/v1/chat/completions"
    with httpx.stream("POST", url, json={**BODY, "stream": True}) as stream:
        next(stream.iter_lines())
    wait_until(lambda: len(curious.errors) == 3)
    kinds = [NoAnswerProduced, ApiError, asyncio.CancelledError]
    assert [type(error) for error in curious.errors] == kinds


def test_a_request_that_is_refused_is_none(serve: Serve) -> None:
    curious = Curious()
    running = serve(observers=[curious])
    with pytest.raises(openai.BadRequestError):
        running.ask(n=-1)
    assert curious.began_with == curious.errors == []


def test_an_engine_that_cannot_be_asked_counts_as_dead(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(ScriptedEngine):
        async def check_health(self) -> None:
            raise RuntimeError("out of descriptors")

    vocabulary = ByteVocabulary()
    watch = EngineWatch(Odd(say("a", vocabulary=vocabulary), vocabulary), 1.0)
    with caplog.at_level(logging.CRITICAL):
        asyncio.run(watch.until_dead())
    assert watch.dead
    assert "out of descriptors" in caplog.text
