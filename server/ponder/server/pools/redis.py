"""Pools in Redis, which servers behind one address share."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from ponder.server.pools.memory import MemoryPools
from ponder.server.pools.protocol import (
    Kind,
    Lease,
    Pools,
    PoolSize,
    least_each,
    least_of,
    parts_of,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from ponder.server.shared.link import Link

_SCRIPT = Path(__file__).with_name("grant.lua").read_text(encoding="utf-8")
_TWICE_S = 60.0
"""Seconds in which a step may reach Redis twice, or after its sender gave up."""
_MOST_UNSETTLED = 100_000


class RedisPools(Pools):
    """Runs each step as one atomic script on Redis, with the arithmetic of `MemoryPools`.

    Redis gives the time, for all servers; tests give a `clock` in seconds. A pool's keys are in one
    slot, and expire once it is full. Raises `redis.exceptions.RedisError`: the step may have been
    taken nevertheless, and may be repeated under its `id`, which counts once.
    """

    def __init__(
        self,
        redis: Redis,
        kind: Kind,
        size: PoolSize,
        lifetime: float,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._run = redis.register_script(_SCRIPT)
        self._kind = kind
        self._size = size
        self._lifetime = lifetime
        self._clock = clock

    @property
    def size(self) -> PoolSize:
        return self._size

    async def grant(self, name: str, wants: Sequence[int], id: str | None = None) -> Lease:
        id = id or new_id()
        size = self._size
        bounds = (parts_of(wants), least_each(wants, size), least_of(wants, size))
        tokens, each, left = await self._step(name, id, "grant", *bounds, *wants)
        return Lease.of(name, id, wants, size, tokens=tokens, each=each, left=left)

    async def settle(self, lease: Lease, used: int) -> None:
        if lease.tokens:
            await self.give_back(lease.pool, lease.id, used)

    async def give_back(self, name: str, id: str, used: int) -> None:
        """Settle a lease that may or may not have been granted."""
        await self._step(name, id, "settle", used)

    async def _step(self, name: str, id: str, *step: str | int) -> tuple[int, int, int]:
        key = f"ponder:{{pool:{self._kind}:{name}}}"
        now = "" if self._clock is None else repr(self._clock())
        told = (self._size.tokens, repr(self._size.rate), repr(self._lifetime), repr(_TWICE_S), now)
        tokens, each, left = await self._run(keys=[key, f"{key}:leases"], args=[*told, id, *step])
        return tokens, each, left


def new_id() -> str:
    return secrets.token_hex(8)


class SharedPools(Pools):
    """Pools in Redis and, while Redis is away, pools of this server of the same size.

    Leases that could not be settled in Redis are settled when it is back.
    """

    def __init__(self, link: Link, kind: Kind, size: PoolSize, lifetime: float) -> None:
        self._link = link
        self._shared = RedisPools(link.redis, kind, size, lifetime)
        self._own = MemoryPools(size, lifetime)
        self._unsettled: deque[tuple[str, str, int]] = deque(maxlen=_MOST_UNSETTLED)
        link.each_beat(self._catch_up)

    @property
    def size(self) -> PoolSize:
        return self._shared.size

    async def grant(self, name: str, wants: Sequence[int]) -> Lease:
        if self._link.up:
            id = new_id()
            try:
                return await self._shared.grant(name, wants, id)
            except RedisError as error:
                self._unsettled.append((name, id, 0))  # Redis may have lent it
                self._link.lost(error)
            except BaseException:  # its client left
                self._unsettled.append((name, id, 0))
                raise
        return replace(await self._own.grant(name, wants), alone=True)

    async def settle(self, lease: Lease, used: int) -> None:
        if lease.alone:
            await self._own.settle(lease, used)
        elif lease.tokens:
            self._unsettled.append((lease.pool, lease.id, used))
            if self._link.up:
                try:
                    await self._catch_up()
                except RedisError as error:
                    self._link.lost(error)

    async def _catch_up(self) -> None:
        """Settle in Redis what waits. Raises `RedisError`, and keeps the rest."""
        while self._unsettled:
            told = self._unsettled.popleft()
            try:
                await self._shared.give_back(*told)
            except BaseException:
                self._unsettled.appendleft(told)
                raise
