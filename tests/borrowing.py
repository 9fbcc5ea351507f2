"""A process that borrows of a pool in Redis, beside others: for tests and for the benchmark."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from ponder.server.pools.protocol import Pools, PoolSize
from ponder.server.pools.redis import RedisPools


@dataclass(frozen=True)
class Borrower:
    """Asks `times`, `at_once` a process, for `want` tokens, and uses a random part of them.

    Its clocks are `ahead` by so many seconds.
    """

    port: int
    name: str
    size: PoolSize
    times: int
    want: int = 400
    at_once: int = 4
    lifetime: float = 600.0
    ahead: float = 0.0


@dataclass(frozen=True)
class Borrowed:
    """What it used, how many seconds each grant took, and how many all of them took together."""

    used: int
    seconds: Sequence[float]
    together: float


def borrow_in_processes(borrowers: Sequence[Borrower]) -> list[Borrowed]:
    """Each in a process of its own, at the same time."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(borrowers)) as processes:
        return processes.map(borrow, borrowers, chunksize=1)


def borrow(borrower: Borrower) -> Borrowed:
    set_clocks_ahead(borrower.ahead)
    return asyncio.run(_with_redis(borrower))


def hang_with_a_lease(borrower: Borrower) -> None:
    """Until it is killed."""

    async def go() -> None:
        redis = Redis(port=borrower.port)
        pools = RedisPools(redis, "tenant", borrower.size, borrower.lifetime)
        await pools.grant(borrower.name, [borrower.want])
        await asyncio.Event().wait()

    asyncio.run(go())


def set_clocks_ahead(seconds: float) -> None:
    wall, monotonic = time.time, time.monotonic
    time.time = lambda: wall() + seconds
    time.monotonic = lambda: monotonic() + seconds


async def _with_redis(borrower: Borrower) -> Borrowed:
    redis = Redis(port=borrower.port)
    try:
        pools = RedisPools(redis, "tenant", borrower.size, borrower.lifetime)
        return await borrow_of(pools, borrower)
    finally:
        await redis.aclose()


async def borrow_of(
    pools: Pools, borrower: Borrower, clock: Callable[[], float] = time.perf_counter
) -> Borrowed:
    """The same of any pools, in this process."""
    used, seconds, draw = [0], list[float](), random.Random(borrower.ahead)

    async def lane() -> None:
        for _ in range(borrower.times // borrower.at_once):
            began = clock()
            lease = await pools.grant(borrower.name, [borrower.want])
            seconds.append(clock() - began)
            spent = draw.randint(0, lease.tokens)
            used[0] += spent
            await pools.settle(lease, spent)

    began = clock()
    async with asyncio.TaskGroup() as group:
        for _ in range(borrower.at_once):
            group.create_task(lane())
    return Borrowed(used[0], seconds, clock() - began)
