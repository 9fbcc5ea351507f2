"""A server that leaves: what runs ends well or with an error, and is accounted for either way."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from waiting import PATIENCE, wait_until

from .conftest import THOUGHT, Running, Serve
from .test_savings import savings, series

SLOW = {"delay": 0.02, "holdout": 0.5, "holdout_key": "a key of sixteen"}
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "What is 40 + 2?"}]}


class Leaving:
    """A server that was told to leave."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._hurry = asyncio.Event()
        drained = running.service.drain(self._hurry)
        self.left = asyncio.run_coroutine_threadsafe(drained, running.loop)
        wait_until(lambda: running.service.draining)

    def hurry(self) -> None:
        self._running.loop.call_soon_threadsafe(self._hurry.set)


def events(stream: Iterator[str]) -> list[str]:
    return [line.removeprefix("data: ") for line in stream if line]


def charged(running: Running) -> float:
    """Requests that the savings know of."""
    return sum(series(running, "ponder_holdout_tokens_count").values())


def held(serve: Serve) -> tuple[Running, threading.Event]:
    """A server whose thoughts go on until the event: nothing ends before."""
    released = threading.Event()

    def script(_prompt: Sequence[int], _number: int) -> Iterator[int]:
        tokenizer = running.service.model.tokenizer
        while not released.is_set():
            yield from tokenizer.encode("a")
        yield from tokenizer.encode(THOUGHT)
        yield from tokenizer.eos_token_ids

    running = serve(script=script, **SLOW)
    return running, released


def test_what_runs_ends_by_itself_while_the_server_says_that_it_drains(serve: Serve) -> None:
    running, released = held(serve)
    with httpx.stream(
        "POST", f"{running.url}/v1/chat/completions", json={**BODY, "stream": True}
    ) as s:
        lines = s.iter_lines()
        next(lines)
        leaving = Leaving(running)
        ready = httpx.get(f"{running.url}/readyz")
        assert (ready.status_code, ready.text) == (503, "draining\n")
        assert series(running, "ponder_choices_running") == {"": 1}
        with pytest.raises(openai.InternalServerError) as refused:
            running.ask()
        assert refused.value.code == "draining"
        assert not leaving.left.done()
        released.set()
        assert events(lines)[-1] == "[DONE]"
    leaving.left.result(PATIENCE)
    assert charged(running) == 1


@pytest.mark.parametrize("hurried", [False, True])
def test_what_does_not_end_in_time_is_told_so_and_charged(serve: Serve, hurried: bool) -> None:
    """By the drain timeout, or by a second signal."""
    running = serve("thinking. " * 500, drain_timeout=600 if hurried else 0, **SLOW)
    url = f"{running.url}/v1/chat/completions"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        whole = pool.submit(httpx.post, url, json=BODY)
        with httpx.stream("POST", url, json={**BODY, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            wait_until(lambda: running.service.running == 2)
            leaving = Leaving(running)
            if hurried:
                leaving.hurry()
            leaving.left.result(PATIENCE)
            last = events(lines)[-1]
    assert json.loads(last)["error"]["code"] == "draining"
    answer = whole.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    assert answer.headers["retry-after"] == "1"
    assert running.engine.unfinished() == 0
    assert charged(running) == 2


HELLO = BODY["messages"]
BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": HELLO},
    "completions": {"prompt": "What is 40 + 2?", "max_tokens": 2000},
    "responses": {"input": "What is 40 + 2?"},
    "messages": {"messages": HELLO, "max_tokens": 2000},
}


class Asking:
    """A whole and a streamed request in every dialect, which all run."""

    def __init__(self, running: Running, pool: concurrent.futures.ThreadPoolExecutor) -> None:
        self._begun: list[str] = []
        self.whole, self.lines = {}, {}
        for path, body in BODIES.items():
            url = f"{running.url}/v1/{path}"
            self.whole[path] = pool.submit(httpx.post, url, json=body, timeout=PATIENCE)
            self.lines[path] = pool.submit(self._stream, url, {**body, "stream": True})
        wait_until(lambda: len(self._begun) == len(BODIES))
        wait_until(lambda: running.service.running == 2 * len(BODIES))

    def _stream(self, url: str, body: dict[str, Any]) -> list[str]:
        with httpx.stream("POST", url, json=body, timeout=PATIENCE) as stream:
            lines = stream.iter_lines()
            told = [next(lines)]
            self._begun.append(url)
            return events(iter([*told, *lines]))


def test_every_dialect_ends_by_itself_while_the_server_drains(serve: Serve) -> None:
    running, released = held(serve)
    with concurrent.futures.ThreadPoolExecutor(2 * len(BODIES)) as pool:
        try:
            asking = Asking(running, pool)
            leaving = Leaving(running)
            assert not leaving.left.done()
        finally:
            released.set()
        whole = {path: reply.result() for path, reply in asking.whole.items()}
        told = {path: lines.result() for path, lines in asking.lines.items()}
    leaving.left.result(PATIENCE)
    assert {path: reply.status_code for path, reply in whole.items()} == dict.fromkeys(BODIES, 200)
    assert told["chat/completions"][-1] == told["completions"][-1] == "[DONE]"
    for path, kind in (("responses", "response.completed"), ("messages", "message_stop")):
        assert json.loads(told[path][-1])["type"] == kind
    assert charged(running) == 2 * len(BODIES)


def test_every_dialect_is_told_what_did_not_end_in_time(serve: Serve) -> None:
    running = serve("thinking. " * 500, drain_timeout=0, **SLOW)
    with concurrent.futures.ThreadPoolExecutor(2 * len(BODIES)) as pool:
        asking = Asking(running, pool)
        Leaving(running).left.result(PATIENCE)
        whole = {path: reply.result() for path, reply in asking.whole.items()}
        told = {path: json.loads(lines.result()[-1]) for path, lines in asking.lines.items()}
    for path in ("chat/completions", "completions", "responses"):
        assert (whole[path].status_code, whole[path].json()["error"]["code"]) == (503, "draining")
    assert whole["messages"].status_code == 529
    assert {reply.headers["retry-after"] for reply in whole.values()} == {"1"}
    assert told["chat/completions"]["error"]["code"] == "draining"
    assert told["completions"]["error"]["code"] == "draining"
    assert told["responses"]["type"] == "response.failed"
    assert told["responses"]["response"]["error"]["code"] == "draining"
    overloaded = (told["messages"]["error"], whole["messages"].json()["error"])
    assert {error["type"] for error in overloaded} == {"overloaded_error"}
    assert running.engine.unfinished() == 0
    assert charged(running) == 2 * len(BODIES)


def test_scores_are_waited_for(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\ndef judge(messages, answer):\n    time.sleep(0.5)\n    return 1.0\n"
    )
    monkeypatch.chdir(tmp_path)
    running = serve(verifier="slow:judge")
    running.ask()
    Leaving(running).left.result(PATIENCE)
    assert savings(running)["quality"]["verifier"]["policy"]["count"] == 1


def test_a_full_server_refuses_before_it_reads(serve: Serve) -> None:
    """Its refusal does not wait for a body, which never comes here."""
    running = serve()
    running.service.gate.draining = True
    url = httpx.URL(running.url)
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n"
    with socket.create_connection((url.host, url.port or 80), timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 503 ")
