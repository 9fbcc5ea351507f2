"""The seam between requests that think and the store of what they share.

A pool lends before a thought begins (`grant`), and learns afterwards what the thought used
(`settle`). What is left shrinks the next thoughts long before it refuses one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

Kind = Literal["conversation", "tenant"]
LEAST = 64
"""The least tokens that a pool lends a thought: a shorter thought does not help its answer."""
PARTS = 10
"""A thought gets at most one part in this many of what is left."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"([1-9]\d{0,14})/([1-9]\d{0,4})([smhd])")


@dataclass(frozen=True, slots=True)
class PoolSize:
    """A full pool holds `tokens`; an empty one is full again after `seconds`.

    >>> PoolSize.read("200000/1h")
    PoolSize(tokens=200000, seconds=3600)
    """

    tokens: int
    seconds: int

    @classmethod
    def read(cls, text: str) -> PoolSize:
        """Parse an operator's notation. Raises `ValueError` with the remedy."""
        found = _SIZE.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{text!r} is no size of a pool: write the tokens of a full one and the time in "
                f"which an empty one fills, as 200000/1h (s, m, h or d)"
            )
        tokens, count, unit = int(found[1]), int(found[2]), found[3]
        if tokens < LEAST:
            raise ValueError(f"a pool of {tokens} tokens lends nothing: make it {LEAST} or more")
        return cls(tokens, count * _SECONDS[unit])

    @property
    def rate(self) -> float:
        """Tokens that come back each second."""
        return self.tokens / self.seconds


def read_pools(texts: Sequence[str]) -> dict[Kind, PoolSize]:
    """The sizes that an operator gives the kinds of pools. Raises `ValueError` with the remedy.

    >>> read_pools(["tenant=200000/1h"])
    {'tenant': PoolSize(tokens=200000, seconds=3600)}
    """
    given: dict[str, str] = {}
    for text in texts:
        kind, _, size = text.partition("=")
        if kind not in get_args(Kind):
            raise ValueError(
                f"{text!r} names no kind of pool: write tenant=200000/1h or conversation=20000/1h"
            )
        if kind in given:
            raise ValueError(f"the pool of a {kind} is set twice: leave one of the two out")
        given[kind] = size
    return {kind: PoolSize.read(given[kind]) for kind in get_args(Kind) if kind in given}


@dataclass(frozen=True, slots=True)
class Lease:
    """What a pool lends the thoughts of one request.

    Each thought may have `each` tokens, and all of them hold `tokens`. `left` tokens remain for
    others. The pool is full in `full_in` seconds if nobody takes more; where it lends nothing, it
    has enough for such a request in `enough_in` seconds. `alone` says that a server lent by itself
    because the shared store was away.
    """

    pool: str
    id: str
    tokens: int
    each: int
    left: int
    full_in: float
    enough_in: float = 0.0
    alone: bool = False

    @classmethod
    def of(
        cls,
        pool: str,
        id: str,
        wants: Sequence[int],
        size: PoolSize,
        *,
        tokens: int,
        each: int,
        left: int,
    ) -> Lease:
        """The lease with the times that follow from what is left."""
        full_in = (size.tokens - left) / size.rate
        enough_in = 0.0 if tokens else (least_of(wants, size) - left) / size.rate
        return cls(pool, id, tokens, each, left, full_in, max(0.0, enough_in))


class Pools(Protocol):
    """Pools of one size, one for each name; a new name has a full pool.

    A lease whose holder died before it settled returns to its pool after a time that no request
    outlives. If it is settled even later, its pool owes what was used.

        >>> import asyncio
        >>> from ponder.server.pools.memory import MemoryPools
        >>> pools = MemoryPools(PoolSize(1000, 3600), lifetime=600, clock=lambda: 0.0)
        >>> async def think(want, used):
        ...     lease = await pools.grant("team", [want])
        ...     await pools.settle(lease, used)
        ...     return lease.each, lease.left
        >>> asyncio.run(think(want=4096, used=60))
        (100, 900)
        >>> asyncio.run(think(want=50, used=50))
        (50, 890)
    """

    @property
    def size(self) -> PoolSize: ...
    async def grant(self, name: str, wants: Sequence[int]) -> Lease:
        """Lend a request's thoughts at most what each `wants`, in one step (see `fair_part`)."""
        ...

    async def settle(self, lease: Lease, used: int) -> None:
        """Return the rest of a lease whose thoughts took `used` tokens. Once for each lease."""
        ...


def fair_part(left: int, wants: Sequence[int], size: PoolSize) -> int:
    """The most that each of a request's thoughts may have of the tokens that are left.

    One thought gets a tenth of them, and each of n gets a tenth of what the other n - 1 leave:
    left / (n + 9). That is at least `LEAST`, and where not even that is left for all, nothing.

        >>> fair_part(10_000, [4096], PoolSize(10_000, 60))
        1000
        >>> fair_part(10_000, [4096, 4096], PoolSize(10_000, 60))
        909
        >>> fair_part(63, [4096], PoolSize(10_000, 60)), fair_part(63, [20], PoolSize(10_000, 60))
        (0, 64)
    """
    parts, least = parts_of(wants), least_each(wants, size)
    if not parts or left < least_of(wants, size):
        return 0
    return max(left // parts, least)


def parts_of(wants: Sequence[int]) -> int:
    """The number of parts that divide what is left; each thought gets one. 0 without thoughts."""
    thoughts = sum(want > 0 for want in wants)
    return thoughts + PARTS - 1 if thoughts else 0


def least_of(wants: Sequence[int], size: PoolSize) -> int:
    """A pool with fewer tokens lends such a request nothing."""
    least = least_each(wants, size)
    return sum(min(want, least) for want in wants)


def least_each(wants: Sequence[int], size: PoolSize) -> int:
    """The least tokens of each thought: `LEAST`, or less where a full pool has not that many."""
    return min(LEAST, size.tokens // max(1, sum(want > 0 for want in wants)))
