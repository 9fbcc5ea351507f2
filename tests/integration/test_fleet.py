"""Two stock vLLM servers, their router and two Ponder servers: faults that a fleet has.

The tests share them, in this order: a server that is killed in one is back for the next.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fleet
import httpx
import psutil
import pytest
import report
from demo import free_port

from ponder.engine import http
from ponder.engine.http import HttpEngine, load
from ponder.engine.protocol import EngineOverloadedError, EngineRequest, Load, Sampling
from ponder.engine.tokenizer import HFTokenizer
from ponder.server.settings import BUNDLED_MODEL
from waiting import wait_until

from .conftest import START_SECONDS, ServerProcess, start_server

pytestmark = pytest.mark.engine

MODEL = Path(BUNDLED_MODEL)
BUDGET, TOKENS = 12, 200
SEATS, QUEUE = 128, 100  # of a worker: a test's streams fit into one, and a burst of them waits
GRACE_SECONDS = 30


@dataclass
class Process:
    """One of the fleet's, which can be killed and started again on its port."""

    command: Sequence[str | Path]
    url: str
    log: Path
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=fleet.environment(MODEL),
                start_new_session=True,
            )

    def end(self, number: int = signal.SIGKILL) -> None:
        """As Kubernetes ends a pod: what has not left after its grace is killed.

        A vLLM server whose engine has left may keep a stream open for ever.
        """
        assert self.child is not None
        with suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self.child.pid, number)
        try:
            self.child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()

    def answers(self, path: str) -> bool:
        assert self.child is not None and self.child.poll() is None, self.log.read_text()
        try:
            return httpx.get(self.url + path).status_code == 200
        except httpx.TransportError:
            return False


@dataclass
class Stream:
    """What a client got."""

    status: int = 0
    error: str = ""
    retry_after: str | None = None
    pieces: int = 0
    over: bool = False
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def thinking(self) -> int:
        return int(self.usage["completion_tokens_details"]["reasoning_tokens"])

    @property
    def whole(self) -> bool:
        """All tokens that it asked for are there, and its thought kept its budget."""
        return self.usage.get("completion_tokens") == TOKENS and self.thinking <= BUDGET


class Fleet:
    """All of it, and what clients got of it."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port(), free_port()]
        options = ("--max-num-seqs", str(SEATS), "--max-num-queued-reqs", str(QUEUE))
        self.workers = [
            Process(
                fleet.worker(MODEL, port, *options),
                f"http://127.0.0.1:{port}",
                folder / f"worker-{port}.log",
            )
            for port in ports
        ]
        port = free_port()
        self.router = Process(
            fleet.router(port, [worker.url for worker in self.workers]),
            f"http://127.0.0.1:{port}",
            folder / "router.log",
        )
        self.replicas: list[ServerProcess] = []
        self.folder = folder
        self.streams: list[Stream] = []
        self._numbers = itertools.count(10)

    def start(self) -> None:
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            wait_until(lambda worker=worker: worker.answers("/health"), START_SECONDS)  # type: ignore[misc]
        self.router.start()
        self.balanced()
        for name in ("one", "other"):
            log = self.folder / name
            self.replicas.append(start_server(log, "--engine", "http", "--", self.router.url))
        for replica in self.replicas:
            replica.wait_ready()

    def stop(self) -> None:
        for replica in self.replicas:
            replica.stop()
        for process in (self.router, *self.workers):
            if process.child is not None:
                process.end()

    def balanced(self) -> None:
        """Wait until the router has two workers."""
        wait_until(lambda: self.router.answers("/readiness"), START_SECONDS)
        ready = f"{self.router.url}/readiness"
        wait_until(lambda: httpx.get(ready).json()["healthy_workers"] == 2, START_SECONDS)

    def metric(self, name: str) -> float:
        return sum(replica.metric(name) for replica in self.replicas)

    @asynccontextmanager
    async def streaming(self, count: int) -> AsyncIterator[list[Stream]]:
        """`count` streams, which have begun to come inside, and have all ended after it."""
        streams = [Stream() for _ in range(count)]
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(limits=limits, timeout=None) as client,
            asyncio.TaskGroup() as group,
        ):
            for stream, replica in zip(streams, itertools.cycle(self.replicas), strict=False):
                group.create_task(self._ask(client, replica.url, stream))
            begun = count // 2
            await until(lambda: sum(one.pieces > 5 or one.over for one in streams) >= begun)
            yield streams
        self.streams += streams

    async def _ask(self, client: httpx.AsyncClient, url: str, stream: Stream) -> None:
        body = {
            "messages": [{"role": "user", "content": f"What is {next(self._numbers)} + 17 - 5?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "thinking_token_budget": BUDGET,
            "max_completion_tokens": TOKENS,
            "ignore_eos": True,
        }
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            stream.status = answer.status_code
            stream.retry_after = answer.headers.get("retry-after")
            async for line in answer.aiter_lines():
                if line.startswith(("data: {", "{")):
                    event = json.loads(line.removeprefix("data: "))
                    stream.pieces += 1
                    stream.usage = event.get("usage") or stream.usage
                    if "error" in event:
                        stream.error = event["error"]["code"]
        stream.over = True


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, START_SECONDS)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@asynccontextmanager
async def engine_on(url: str) -> AsyncIterator[HttpEngine]:
    tokenizer = HFTokenizer(MODEL)
    asked = Load(
        name=BUNDLED_MODEL, directory=MODEL, served_as="tiny", vocabulary=tokenizer, options=[url]
    )
    engine = load(asked)
    try:
        yield engine
    finally:
        engine.shutdown()
        await asyncio.sleep(0)


def test_budgets_are_exact_through_the_router(running: Fleet) -> None:
    async def scenario() -> list[Stream]:
        async with running.streaming(20) as streams:
            pass
        return streams

    assert all(stream.whole for stream in asyncio.run(scenario()))
    assert running.metric("ponder_engine_resumes_total") == 0
    assert running.metric("ponder_truncations_total") > 0


def test_re_entries_find_their_prompt_in_the_cache(running: Fleet) -> None:
    """All segments of a thought go to one of the two workers."""
    found = [worker_metric(running, name) for name in ("hits", "queries")]
    assert found[0] > 0.3 * found[1]


def worker_metric(running: Fleet, name: str) -> float:
    pages = [httpx.get(f"{worker.url}/metrics").text for worker in running.workers]
    wanted = f"vllm:prefix_cache_{name}_total{{"
    return sum(
        float(line.rsplit(" ", 1)[1])
        for page in pages
        for line in page.splitlines()
        if line.startswith(wanted)
    )


def test_the_fleet_has_what_its_row_of_the_dashboard_shows(running: Fleet) -> None:
    panels = json.loads(report.DASHBOARD.read_text())["panels"]
    titles = [panel["title"] for panel in panels]
    queries = [
        target["expr"]
        for panel in panels[titles.index(report.FLEET) + 1 :]
        for target in panel.get("targets", [])
    ]
    named = {name for query in queries for name in re.findall(r"[a-z]+[_:]\w+(?=\{)", query)}
    assert len(named) >= 5
    servers = [worker.url for worker in running.workers]
    servers += [replica.url for replica in running.replicas]
    pages = "".join(httpx.get(f"{url}/metrics").text for url in servers)
    assert {name for name in named if f"\n{name}{{" not in pages} == set()


def test_a_worker_that_is_slow_holds_up_its_own_streams_alone(running: Fleet) -> None:
    slow = running.workers[0].child
    assert slow is not None
    (engine,) = [
        child
        for child in psutil.Process(slow.pid).children(recursive=True)
        if "EngineCore" in " ".join(child.cmdline())
    ]

    async def scenario() -> list[Stream]:
        async with running.streaming(20) as streams:
            engine.suspend()
            try:
                await until(lambda: sum(bool(stream.usage) for stream in streams) >= 5)
                assert not all(stream.usage for stream in streams)
            finally:
                engine.resume()
        return streams

    assert all(stream.whole for stream in asyncio.run(scenario()))
    assert running.metric("ponder_engine_resumes_total") == 0


def test_a_worker_that_is_killed_costs_no_answer(running: Fleet) -> None:
    async def scenario() -> list[Stream]:
        async with running.streaming(100) as streams:
            await asyncio.to_thread(running.workers[0].end)
        return streams

    first = running.metric("ponder_engine_resumes_total")

    streams = asyncio.run(scenario())
    assert [stream for stream in streams if not stream.whole] == []
    assert running.metric('ponder_engine_resumes_total{cause="lost"}') > first
    running.workers[0].start()  # it is needed after the next test


def test_a_full_queue_is_overloaded_and_not_an_answer(
    running: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker says 200, and inside the stream that it is full."""
    monkeypatch.setattr(http, "_RESUMES", 1)  # with more, the queue is over first
    count = SEATS + QUEUE + 70

    async def scenario() -> list[int | EngineOverloadedError]:
        async with engine_on(running.workers[1].url) as engine:

            async def one(number: int) -> int | EngineOverloadedError:
                rules = Sampling(max_tokens=150, ignore_eos=True, chunk_tokens=50)
                request = EngineRequest([5, 6, 7], rules, f"full-{number}")
                tokens = 0
                try:
                    async for chunk in engine.generate(request):
                        tokens += len(chunk.token_ids)
                except EngineOverloadedError as error:
                    return error
                return tokens

            return await asyncio.gather(*map(one, range(count)))

    ended = asyncio.run(scenario())
    refused = [end for end in ended if isinstance(end, EngineOverloadedError)]
    assert refused and len(refused) < count
    assert {end for end in ended if not isinstance(end, EngineOverloadedError)} == {150}


def test_a_worker_that_leaves_under_streams_costs_no_answer(running: Fleet) -> None:
    """The one that was killed is back; now the other one is told to leave.

    vLLM's engine leaves before its streams end, and the server takes and fails requests until the
    router sees that it leaves.
    """
    running.balanced()

    async def scenario() -> list[Stream]:
        async with running.streaming(60) as streams:
            await asyncio.to_thread(running.workers[1].end, signal.SIGTERM)
        return streams

    streams = asyncio.run(scenario())
    assert [stream for stream in streams if not stream.whole] == []


def test_without_a_router_clients_are_told_to_come_again(running: Fleet) -> None:
    readiness = f"{running.replicas[0].url}/readyz"

    async def scenario() -> list[Stream]:
        async with running.streaming(20) as streams:
            await asyncio.to_thread(running.router.end)
        return streams

    cut = asyncio.run(scenario())
    assert {stream.error for stream in cut if not stream.whole} <= {"engine_error", "overloaded"}
    wait_until(lambda: httpx.get(readiness).text == "engine away\n")
    body = {"messages": [{"role": "user", "content": "2+2"}]}
    refused = httpx.post(f"{running.replicas[0].url}/v1/chat/completions", json=body)
    assert refused.status_code == 503 and "retry-after" in refused.headers
    assert refused.json()["error"]["code"] == "overloaded"
    running.router.command = fleet.router(
        int(running.router.url.rsplit(":", 1)[1]), [running.workers[0].url]
    )
    running.router.start()
    wait_until(lambda: httpx.get(readiness).text == "ready\n")

    async def again() -> list[Stream]:
        async with running.streaming(4) as streams:
            pass
        return streams

    assert all(stream.whole for stream in asyncio.run(again()))


def test_the_replicas_counted_what_clients_got(running: Fleet) -> None:
    """To the token: what was resumed is counted once."""
    whole = [stream for stream in running.streams if stream.whole]
    assert len(whole) > 200
    assert running.metric("ponder_requests_total") == len(whole)
    assert running.metric("ponder_thinking_tokens_total") == sum(s.thinking for s in whole)
    parts = ("thinking", "answer", "forced", "retry")
    counted = sum(running.metric(f"ponder_{part}_tokens_total") for part in parts)
    assert counted == len(whole) * TOKENS
    assert running.metric("ponder_budget_violations_total") == 0


def test_a_replica_that_leaves_ends_its_streams_first(running: Fleet) -> None:
    """Both can be replaced, one after the other, as the workers can."""
    leaving = running.replicas[1].process

    async def scenario() -> list[Stream]:
        async with running.streaming(40) as streams:
            leaving.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.wait, START_SECONDS) == 0
        return streams

    assert all(stream.whole for stream in asyncio.run(scenario()))
