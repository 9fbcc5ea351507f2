"""Two servers behind nginx, one replaced while 200 streams run: nothing breaks, nothing is lost.

The engine of the one that leaves is suspended until it drains: what it runs cannot end before.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
from demo import free_port

from waiting import wait_until

from .conftest import ServerProcess, start_server

pytestmark = pytest.mark.engine

SITE = Path(__file__).parents[2] / "deploy" / "nginx" / "ponder.conf"
STREAMS = 200
SERVED_BY_THE_NEW = 40
PATIENCE = 400.0
OPTIONS = ["--drain-timeout", "300", "--holdout", "0.5", "--holdout-key", "a key for the tests"]


@dataclass
class Stream:
    """What a client got from first to last byte; `server` is the port that answered."""

    started: float
    ended: float
    status: int
    server: int
    text: str

    @property
    def usage(self) -> dict[str, Any]:
        chunks = [json.loads(line[6:]) for line in self.text.splitlines() if line[:7] == "data: {"]
        (usage,) = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
        return dict(usage)

    @property
    def thinking(self) -> int:
        return int(self.usage["completion_tokens_details"]["reasoning_tokens"])


class Load:
    """Lanes that ask for one stream after the other until they are told to stop."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._numbers = itertools.count(10)
        self.stopping = False
        self.begun: set[int] = set()  # ports of servers that have said something
        self.done: list[Stream] = []

    async def lane(self, client: httpx.AsyncClient) -> None:
        while not self.stopping:
            await self._stream(client)

    async def _stream(self, client: httpx.AsyncClient) -> None:
        number = next(self._numbers)
        body = {
            "messages": [{"role": "user", "content": f"What is {number} + 17 - 5?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "thinking_token_budget": 60,
            "max_completion_tokens": 120,
            "ignore_eos": True,
        }
        started = monotonic()
        async with client.stream("POST", self._url, json=body) as answer:
            server = int(answer.headers["x-upstream"].rsplit(":", 1)[1])
            self.begun.add(server)
            parts = [part async for part in answer.aiter_bytes()]
            text = b"".join(parts).decode()
            self.done.append(Stream(started, monotonic(), answer.status_code, server, text))


@pytest.fixture
def servers(
    nginx: Callable[[Path, str], list[str | Path]], tmp_path: Path
) -> Iterator[list[ServerProcess]]:
    """The two servers; what a test adds to the list is stopped too."""
    running = [serve(tmp_path / name, free_port()) for name in ("old", "other")]
    try:
        for server in running:
            server.wait_ready()
        yield running
    finally:
        for server in running:
            server.stop()


def serve(log: Path, port: int) -> ServerProcess:
    """Logs in one folder: one state file."""
    return start_server(log, *OPTIONS, "--port", str(port))


@pytest.fixture
def proxy(
    nginx: Callable[[Path, str], list[str | Path]], servers: list[ServerProcess], tmp_path: Path
) -> Iterator[str]:
    """The shipped site, on ports that are free here."""
    site, port = SITE.read_text(), free_port()
    for shipped, used in zip((8001, 8002), servers, strict=True):
        site = site.replace(f"127.0.0.1:{shipped}", used.url.removeprefix("http://"))
    site = site.replace("listen 8000", f"listen 127.0.0.1:{port}")
    process = subprocess.Popen(nginx(tmp_path, site))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: reachable(url))
        yield url
    finally:
        process.terminate()
        process.wait(10)


def reachable(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def port_of(server: ServerProcess) -> int:
    return int(server.url.rsplit(":", 1)[1])


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, PATIENCE)


def draining(server: ServerProcess) -> bool:
    return httpx.get(f"{server.url}/readyz").text == "draining\n"


@dataclass
class Replaced:
    """All streams, and when the old server was told to leave, said that it drains, and had left.

    A client may read a stream's end after the server has left."""

    streams: list[Stream]
    told: float
    draining: float
    left: float


async def replace_one_under_load(url: str, servers: list[ServerProcess], log: Path) -> Replaced:
    load, (old, _) = Load(url), servers
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(limits=limits, timeout=PATIENCE) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(STREAMS):
            group.create_task(load.lane(client))
        await until(lambda: port_of(old) in load.begun)
        engine = old.engine()
        engine.suspend()
        await until(lambda: old.metric("ponder_choices_running") >= STREAMS // 4)
        told = monotonic()
        old.process.send_signal(signal.SIGTERM)
        await until(lambda: draining(old))
        drains = monotonic()
        engine.resume()
        await until(lambda: old.process.poll() is not None)
        left = monotonic()
        new = serve(log, port_of(old))
        servers.append(new)
        await asyncio.to_thread(new.wait_ready)
        ready = monotonic()

        def served_by_the_new() -> int:
            return sum(s.server == port_of(old) and s.started > ready for s in load.done)

        await until(lambda: served_by_the_new() >= SERVED_BY_THE_NEW)
        load.stopping = True
    return Replaced(load.done, told, drains, left)


def test_no_stream_breaks_and_no_request_is_lost(
    servers: list[ServerProcess], proxy: str, tmp_path: Path
) -> None:
    seen = asyncio.run(replace_one_under_load(proxy, servers, tmp_path / "new"))
    streams = seen.streams
    old, other, new = servers
    broken = [s for s in streams if s.status != 200 or not s.text.endswith("data: [DONE]\n\n")]
    assert broken == []
    assert old.process.returncode == 0, old.log.read_text()

    # The old server had streams when it was told to leave; meanwhile the other one took the rest.
    theirs = [s for s in streams if s.started < seen.told < s.ended and s.server == port_of(old)]
    assert len(theirs) >= STREAMS // 4
    meanwhile = [s for s in streams if seen.draining < s.started < seen.left]
    assert meanwhile
    assert {s.server for s in meanwhile} == {port_of(other)}

    # Each process counted what it served, to the token.
    for server, since in ((other, 0.0), (new, seen.left)):
        mine = [s for s in streams if s.server == port_of(server) and s.started > since]
        assert server.metric("ponder_requests_total") == len(mine)
        assert server.metric("ponder_thinking_tokens_total") == sum(s.thinking for s in mine)

    # And the state that they share kept what the old one served, past its end.
    assert new.metric("ponder_holdout_tokens_count") == len(streams)
    spent = sum(s.usage["completion_tokens"] for s in streams)
    assert new.metric("ponder_holdout_tokens_sum") == spent
