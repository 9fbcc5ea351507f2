"""Pools in this process's memory, for a server that shares them with no other."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from ponder.server.pools.protocol import Lease, Pools, PoolSize, fair_part


class _Pool:
    """`level` counts the unused tokens, `lent` those among them that leases hold."""

    def __init__(self, size: PoolSize, now: float) -> None:
        self.level = float(size.tokens)
        self.lent = 0
        self.leases: dict[str, tuple[int, float]] = {}  # tokens, and when they return
        self._size = size
        self._at = now

    def bring_to(self, now: float) -> None:
        """Fill up until `now`, and take back expired leases; the first lease is the oldest."""
        self.level = min(self._size.tokens, self.level + (now - self._at) * self._size.rate)
        self._at = now
        while self.leases:
            name, (_, until) = next(iter(self.leases.items()))
            if until > now:
                break
            self.take_back(name)

    def take_back(self, name: str) -> None:
        tokens, _ = self.leases.pop(name, (0, 0.0))
        self.lent -= tokens

    @property
    def left(self) -> int:
        return max(0, int(self.level) - self.lent)

    @property
    def untouched(self) -> bool:
        return not self.leases and self.level >= self._size.tokens


class MemoryPools(Pools):
    """A lease that is not settled returns after `lifetime` seconds. `clock` is in seconds.

    A pool that is full again is forgotten, so that the store holds only pools that were used
    within the time that a pool takes to fill.
    """

    def __init__(
        self, size: PoolSize, lifetime: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._size = size
        self._lifetime = lifetime
        self._clock = clock
        self._numbers = itertools.count()
        self._pools: OrderedDict[str, _Pool] = OrderedDict()  # last used, last in order

    def __len__(self) -> int:
        """The number of pools that are not full."""
        return len(self._pools)

    @property
    def size(self) -> PoolSize:
        return self._size

    async def grant(self, name: str, wants: Sequence[int]) -> Lease:
        now = self._clock()
        self._forget(now)
        pool = self._pools.get(name) or _Pool(self._size, now)
        pool.bring_to(now)
        each = fair_part(pool.left, wants, self._size)
        tokens = sum(min(want, each) for want in wants)
        number = str(next(self._numbers))
        if tokens:
            pool.leases[number] = (tokens, now + self._lifetime)
            pool.lent += tokens
            self._pools[name] = pool
            self._pools.move_to_end(name)
        return Lease.of(name, number, wants, self._size, tokens=tokens, each=each, left=pool.left)

    async def settle(self, lease: Lease, used: int) -> None:
        if not lease.tokens:
            return
        now = self._clock()
        pool = self._pools.setdefault(lease.pool, _Pool(self._size, now))
        pool.bring_to(now)
        pool.take_back(lease.id)
        pool.level -= used
        self._pools.move_to_end(lease.pool)

    def _forget(self, now: float) -> None:
        """Drop full pools, beginning with those that were not used for the longest time."""
        while self._pools:
            name, pool = next(iter(self._pools.items()))
            pool.bring_to(now)
            if not pool.untouched:
                break
            del self._pools[name]
