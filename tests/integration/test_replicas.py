"""Two server processes behind one Redis and one Postgres: one pool, any server finishes any
thought, one account of the savings, and what happens while Redis is gone.

The engine is scripted, because what is shared is above it. Each test has a key, and so a pool, of
its own.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from ponder.server.keys import authorise
from ponder.server.lending import HEADERS, _name
from ponder.server.settings import Settings
from stores import PostgresServer, RedisServer
from waiting import PATIENCE, wait_until

from .conftest import ServerProcess, start_server

TOKENS = 100_000
POOL = f"tenant={TOKENS}/9999d"  # nothing comes back while a test runs
KEYS = [f"a key for test {number}" for number in range(10)]
THOUGHT = "thinking and thinking " * 200
ANSWER = "so it is 42, " * 80
TESTS = Path(__file__).parents[1]


def replica(log: Path, redis: RedisServer, postgres: PostgresServer) -> ServerProcess:
    keys = [part for key in KEYS for part in ("--api-key", key)]
    said = ("0.005", f"{THOUGHT}</think>{ANSWER}")
    return start_server(
        log,
        *("--engine", "paced", "--redis", redis.url, "--pool", POOL, "--state", postgres.url),
        *("--holdout", "0.5", "--holdout-key", "a key for the tests", *keys, "--", *said),
        environment={"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
    )


def asked(budget: int, answer: int) -> dict[str, Any]:
    """At most so many tokens of thought and of answer, each of which takes 5 ms."""
    return {
        "messages": [{"role": "user", "content": "6 * 7?"}],
        "thinking_token_budget": budget,
        "ponder": {"loop_exit": False, "max_answer_tokens": answer},
    }


@dataclass
class Replicas:
    """Two servers and the Redis between them, asked under one key."""

    redis: RedisServer
    servers: list[ServerProcess]
    key: str
    threads: ThreadPoolExecutor

    def post(self, number: int, path: str, key: str = "", **sent: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.key}", **sent.pop("headers", {})}
        url = f"{self.servers[number].url}{path}"
        return httpx.post(url, headers=headers, timeout=PATIENCE, **sent)

    def think(
        self, number: int, budget: int, name: str = "", answer: int = 20, conversation: str = ""
    ) -> httpx.Response:
        headers = {"x-client-request-id": name} if name else {}
        if conversation:
            headers["x-ponder-conversation"] = conversation
        return self.post(
            number, "/v1/chat/completions", json=asked(budget, answer), headers=headers
        )

    def thinking(self, *asked: Any, **more: Any) -> Future[httpx.Response]:
        return self.threads.submit(self.think, *asked, **more)

    def finish(self, number: int, name: str, key: str = "", **sent: Any) -> httpx.Response:
        return self.post(number, f"/v1/ponder/{name}/finish", key, **sent)

    def report(self, number: int) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.key}"}
        reply = httpx.get(f"{self.servers[number].url}/v1/ponder/savings", headers=headers)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def left(self, number: int) -> int:
        """As a client is told who asks for no thought."""
        return int(self.think(number, 0).headers[HEADERS[1]])

    @property
    def pool(self) -> str:
        """The key in Redis."""
        settings = Settings(api_key=[self.key])  # type: ignore[list-item]
        tenant = authorise(settings.api_key, f"Bearer {self.key}")
        return f"ponder:{{pool:tenant:{_name(tenant, None)}}}"

    def lent(self) -> int:
        """What leases hold, as Redis knows."""
        with self.redis.client() as client:
            return int(client.hget(self.pool, "lent") or 0)

    def alone(self) -> int:
        """Requests that a server lent their thoughts by itself."""
        return int(sum(server.metric("ponder_pool_lent_alone_total") for server in self.servers))

    def up(self) -> list[float]:
        return [server.metric("ponder_pool_store_up") for server in self.servers]


_keys = iter(KEYS)


@pytest.fixture(scope="module")
def running(
    program: Callable[[str], Path],
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RedisServer, list[ServerProcess]]]:
    program("redis-server")
    folder = tmp_path_factory.mktemp("replicas")
    redis = RedisServer(folder / "redis")
    servers = [replica(folder / f"log{number}", redis, postgres_server) for number in range(2)]
    try:
        for server in servers:
            server.wait_ready()
        yield redis, servers
    finally:
        for server in servers:
            server.stop()
        redis.kill()


@pytest.fixture
def replicas(running: tuple[RedisServer, list[ServerProcess]]) -> Iterator[Replicas]:
    redis, servers = running
    with ThreadPoolExecutor(16) as threads:
        found = Replicas(redis, servers, next(_keys), threads)
        wait_until(lambda: found.up() == [1.0, 1.0])
        yield found


def spent(replies: list[httpx.Response]) -> int:
    assert {reply.status_code for reply in replies} == {200}, [reply.text for reply in replies]
    return sum(reply.json()["choices"][0]["ponder"]["thinking_tokens"] for reply in replies)


# -- pools -------------------------------------------------------------------------------------


def test_a_pool_is_one_for_both_to_the_token(replicas: Replicas) -> None:
    replies = [replicas.thinking(number % 2, 20 + number) for number in range(24)]
    used = spent([reply.result() for reply in replies])
    assert used == sum(20 + number for number in range(24))
    wait_until(lambda: replicas.lent() == 0)  # settled after the reply was sent
    assert replicas.left(0) == replicas.left(1) == TOKENS - used
    assert replicas.alone() == 0


@contextmanager
def load(replicas: Replicas, budget: int) -> Iterator[list[httpx.Response]]:
    """Six clients that ask again and again, and the replies so far; they end with the block."""
    replies: list[httpx.Response] = []
    over = Event()

    def lane(number: int) -> None:
        while not over.is_set():
            replies.append(replicas.think(number % 2, budget))

    lanes = [replicas.threads.submit(lane, number) for number in range(6)]
    try:
        yield replies
    finally:
        over.set()
    for each in lanes:
        each.result()


Fault = Callable[[RedisServer], None]


def killed(redis: RedisServer) -> None:
    redis.kill()


def partitioned(redis: RedisServer) -> None:
    redis.suspend()


@pytest.mark.parametrize("fault", [killed, partitioned])
def test_without_redis_everybody_is_answered_and_afterwards_nothing_is_missing(
    replicas: Replicas, fault: Fault
) -> None:
    """Under load, with leases that are held over it. What was lent alone is not the pool's."""
    before, budget = replicas.alone(), 20
    with load(replicas, budget) as replies:
        wait_until(lambda: len(replies) >= 6)
        over_it = replicas.thinking(0, 300)
        wait_until(lambda: replicas.lent() >= 300)
        fault(replicas.redis)
        wait_until(lambda: replicas.up() == [0.0, 0.0])
        counted = len(replies)
        wait_until(lambda: len(replies) >= counted + 6 and over_it.done())
        if replicas.redis.process.poll() is None:
            replicas.redis.resume()
        else:
            replicas.redis.start()
        wait_until(lambda: replicas.up() == [1.0, 1.0])
        counted = len(replies)
        wait_until(lambda: len(replies) >= counted + 6)
    alone = replicas.alone() - before
    assert 0 < alone < len(replies)
    used = spent([*replies, over_it.result()])
    wait_until(lambda: replicas.lent() == 0)
    assert replicas.left(0) == replicas.left(1) == TOKENS - used + alone * budget
    log = replicas.servers[0].log.read_text()
    assert f"Redis at {replicas.redis.url} is away" in log
    assert f"Redis at {replicas.redis.url} is back" in log


def test_a_promoted_redis_goes_on_with_the_pool(replicas: Replicas, tmp_path: Path) -> None:
    """The primary dies with a lease out, and a copy of it takes its address."""
    old = replicas.redis
    copy = RedisServer(tmp_path, "--replicaof", "127.0.0.1", str(old.port))
    try:
        with copy.client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up")
            over_it = replicas.thinking(0, 400)
            wait_until(lambda: replicas.lent() == 400)
            wait_until(lambda: client.hget(replicas.pool, "lent") == "400")
            old.kill()
            client.replicaof("NO", "ONE")
            client.config_set("port", old.port)
        wait_until(lambda: replicas.up() == [1.0, 1.0])
        more = [replicas.think(number, 50) for number in range(2)]
        used = spent([over_it.result(), *more])
        wait_until(lambda: replicas.lent() == 0)
        assert replicas.left(0) == replicas.left(1) == TOKENS - used
    finally:
        copy.kill()
        old.start()


# -- savings -----------------------------------------------------------------------------------


def test_both_servers_account_for_what_the_clients_saw(replicas: Replicas) -> None:
    """To the token; a conversation that both of them serve is one."""
    sums = ("sum", "count", "conversations")

    def accounts() -> list[list[float]]:
        names = [f"ponder_holdout_tokens_{name}" for name in sums]
        return [[server.metric(name) for name in names] for server in replicas.servers]

    before = accounts()[0]
    asked = [
        replicas.thinking(number % 2, 10 + number, conversation=f"talk {number // 6}")
        for number in range(24)
    ]
    replies = [reply.result() for reply in asked]
    assert spent(replies) > 0
    tokens = sum(reply.json()["usage"]["completion_tokens"] for reply in replies)
    expected = [was + more for was, more in zip(before, (tokens, 24, 4), strict=True)]
    wait_until(lambda: accounts() == [expected, expected])
    reports = [replicas.report(number) for number in range(2)]
    assert reports[0] == reports[1]
    rated = replicas.post(1, f"/v1/ponder/{replies[0].json()['id']}/feedback", json={"score": 1})
    assert rated.status_code == 200  # which the other server answered


# -- finish now --------------------------------------------------------------------------------

_names = (f"request {number}" for number in itertools.count())


def cause(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.headers["x-ponder-end-cause"])


def test_a_thought_is_finished_by_the_server_that_does_not_run_it(replicas: Replicas) -> None:
    name = next(_names)
    reply = replicas.thinking(0, 2000, name, answer=800)
    wait_until(lambda: replicas.finish(1, name).status_code == 202)
    told = [replicas.finish(number, name) for number in (1, 0, 1)]  # while it is answered
    assert [each.status_code for each in told] == [202] * 3
    assert [each.json()["choices"] for each in told] == [[0]] * 3
    assert replicas.finish(1, name, json={"choice": 3}).status_code == 400
    assert replicas.finish(1, name, KEYS[-1]).status_code == 404  # another one's key
    assert cause(reply.result()) == "finish_now"
    over = replicas.finish(1, name)
    assert (over.status_code, over.json()["error"]["code"]) == (404, "response_not_found")
    assert over.json()["error"]["param"] == "id"


def test_an_answer_that_is_written_elsewhere_is_no_thought(replicas: Replicas) -> None:
    body = {**asked(5, answer=800), "stream": True}
    url = f"{replicas.servers[0].url}/v1/chat/completions"
    headers = {"authorization": f"Bearer {replicas.key}"}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE) as reply:
        lines = reply.iter_lines()
        next(line for line in lines if re.search('"content": "[^"]', line))
        told = replicas.finish(1, reply.headers["x-request-id"])
    assert (told.status_code, told.json()["error"]["code"]) == (409, "not_thinking")
    assert told.headers["x-should-retry"] == "false"


def test_of_two_with_one_name_the_younger_is_finished_wherever_it_is(replicas: Replicas) -> None:
    name = next(_names)
    older = replicas.thinking(0, 4000, name)
    wait_until(lambda: replicas.finish(1, name, json={"choice": 9}).status_code == 400)
    younger = replicas.thinking(1, 4000, name)
    wait_until(lambda: replicas.servers[1].metric("ponder_choices_running") == 1)
    assert replicas.finish(0, name).status_code == 202  # which writes the older one
    assert cause(younger.result()) == "finish_now"
    assert not older.done()
    assert replicas.finish(1, name).status_code == 202
    assert cause(older.result()) == "finish_now"


def test_without_redis_a_server_finishes_its_own_and_says_what_it_cannot(
    replicas: Replicas,
) -> None:
    name = next(_names)
    reply = replicas.thinking(0, 4000, name)
    wait_until(lambda: replicas.finish(0, name, json={"choice": 9}).status_code == 400)
    replicas.redis.suspend()
    try:
        told = replicas.finish(1, name)
        assert (told.status_code, told.json()["error"]["code"]) == (503, "servers_unreachable")
        assert told.headers["retry-after"] == "1"
        wait_until(lambda: replicas.up() == [0.0, 0.0])
        assert replicas.finish(0, name).status_code == 202
    finally:
        replicas.redis.resume()
    assert cause(reply.result()) == "finish_now"


# -- the last of all ---------------------------------------------------------------------------


def test_the_leases_of_a_killed_server_are_held_until_their_time(replicas: Replicas) -> None:
    dying = [replicas.thinking(1, 500) for _ in range(4)]
    wait_until(lambda: replicas.lent() == 2000)
    replicas.servers[1].stop()
    assert all(each.exception() for each in dying)
    assert replicas.left(0) == TOKENS - 2000
    with replicas.redis.client() as client:  # as if their time had passed
        for lease, until in client.zrange(f"{replicas.pool}:leases", 0, -1, withscores=True):
            client.zadd(f"{replicas.pool}:leases", {lease: until - 700})
    assert replicas.left(0) == TOKENS
