"""One pool under several processes and one Redis: nothing is lent twice, and nothing is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
from dataclasses import replace

from redis.asyncio import Redis

from borrowing import Borrower, borrow_in_processes, hang_with_a_lease
from ponder.server.pools.protocol import LEAST, Lease, PoolSize
from ponder.server.pools.redis import RedisPools
from stores import RedisServer
from waiting import wait_until

SIZE = PoolSize(20_000, 86_400 * 9999)  # nothing comes back while a test runs


def look(borrower: Borrower) -> Lease:
    """What is left of its pool."""

    async def go() -> Lease:
        redis = Redis(port=borrower.port)
        try:
            pools = RedisPools(redis, "tenant", borrower.size, borrower.lifetime)
            return await pools.grant(borrower.name, [0])
        finally:
            await redis.aclose()

    return asyncio.run(go())


def test_processes_that_want_more_than_there_is_spend_exactly_what_there_is(
    redis_server: RedisServer,
) -> None:
    """However their own clocks go: one is an hour ahead, one an hour behind."""
    one = Borrower(redis_server.port, secrets.token_hex(8), SIZE, times=400, want=4000)
    done = borrow_in_processes([replace(one, ahead=ahead) for ahead in (0.0, 3600.0, -3600.0, 1.0)])
    spent = sum(each.used for each in done)
    assert SIZE.tokens - LEAST < spent <= SIZE.tokens
    assert look(one).left == SIZE.tokens - spent
    with redis_server.client() as client:
        assert client.hget(f"ponder:{{pool:tenant:{one.name}}}", "lent") == "0"


def test_the_lease_of_a_killed_process_returns(redis_server: RedisServer) -> None:
    """By Redis' clock, and not before its time."""
    one = Borrower(redis_server.port, secrets.token_hex(8), SIZE, times=1, lifetime=2.0)
    process = multiprocessing.get_context("spawn").Process(target=hang_with_a_lease, args=(one,))
    process.start()
    wait_until(lambda: look(one).left == SIZE.tokens - one.want)
    process.kill()
    process.join()
    with redis_server.client() as client:
        assert client.zcard(f"ponder:{{pool:tenant:{one.name}}}:leases") == 1
    wait_until(lambda: look(one).left == SIZE.tokens)
