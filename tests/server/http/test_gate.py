"""A request before it is planned: counted, bounded, in its time, and covered by the drain."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from ponder.server.planning import Planner
from waiting import wait_until

from .conftest import Running, Serve
from .test_drain import BODY, Leaving
from .test_savings import series

LONG = {"messages": [{"role": "user", "content": "What is 40 + 2? " * 1200}]}


@contextmanager
def half_sent(running: Running) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection on which half a request was sent and taken, and the other half."""
    body = json.dumps(BODY).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    address = ("127.0.0.1", int(running.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(head.encode() + body[:20])
        wait_until(lambda: running.service.gate.reading == 1)
        yield connection, body[20:]


def test_a_request_holds_a_place_from_its_first_byte(serve: Serve) -> None:
    running = serve(max_running=1)
    with half_sent(running) as (connection, rest):
        assert series(running, "ponder_requests_reading") == {"": 1}
        assert series(running, "ponder_choices_running") == {"": 0}
        refused = httpx.post(f"{running.url}/v1/chat/completions", json=BODY)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        connection.sendall(rest)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: running.service.gate.reading == running.service.running == 0)
    assert running.ask().choices


def test_a_client_that_goes_before_its_body_is_there_gives_its_place_back(serve: Serve) -> None:
    running = serve()
    with half_sent(running):
        pass
    wait_until(lambda: running.service.gate.reading == 0)
    assert series(running, "ponder_client_disconnects_total") == {"": 1}


def test_a_body_that_does_not_come_is_out_of_time(serve: Serve) -> None:
    running = serve(request_timeout=0.2)
    with half_sent(running) as (connection, _):
        assert connection.recv(4096).startswith(b"HTTP/1.1 504 ")
    wait_until(lambda: running.service.gate.reading == 0)


@pytest.mark.parametrize("hurried", [False, True])
def test_the_drain_covers_what_is_being_read(serve: Serve, hurried: bool) -> None:
    running = serve(drain_timeout=600)
    with half_sent(running) as (connection, rest):
        leaving = Leaving(running)
        if hurried:
            leaving.hurry()
        else:
            assert not leaving.left.done()
            connection.sendall(rest)
        status = b"503" if hurried else b"200"
        assert connection.recv(4096).startswith(b"HTTP/1.1 " + status)
    leaving.left.result(10)


class Slow:
    """Planning that takes until it is told to go on, and who is at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.now, self.most = 0, 0
        self._lock = threading.Lock()
        monkeypatch.setattr(Planner, "plan", self.around(Planner.plan))

    def around(self, plan: Any) -> Any:
        def slow(planner: Planner, *arguments: Any, **options: Any) -> Any:
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
            try:
                assert self.go_on.wait(20)
                return plan(planner, *arguments, **options)
            finally:
                with self._lock:
                    self.now -= 1

        return slow


def test_long_requests_are_planned_one_by_one_and_the_loop_waits_for_none(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, slow = serve(max_model_len=100_000), Slow(monkeypatch)
    url = f"{running.url}/v1/chat/completions"
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(httpx.post, url, json=LONG, timeout=30) for _ in range(5)]
        wait_until(lambda: running.service.gate.reading == 5 and slow.now == 1)
        assert httpx.get(f"{running.url}/healthz").text == "ok\n"
        slow.go_on.set()
        assert [answer.result().status_code for answer in answers] == [200] * 5
    assert slow.most == 1


def test_a_client_that_goes_while_it_is_planned_gives_its_place_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, slow = serve(), Slow(monkeypatch)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{running.url}/v1/chat/completions", json=LONG, timeout=0.5)
    wait_until(lambda: running.service.gate.reading == 0)
    assert slow.now == 1
    slow.go_on.set()
    wait_until(lambda: slow.now == 0)
    assert running.engine.requests == []
    assert series(running, "ponder_client_disconnects_total") == {"": 1}


def test_planning_that_takes_too_long_is_out_of_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, slow = serve(request_timeout=0.3), Slow(monkeypatch)
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=LONG)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    slow.go_on.set()
