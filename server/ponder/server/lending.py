"""Lends requests the thinking tokens that their conversation and their tenant have left."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter, Histogram

from ponder.protocol.errors import NO_RETRY, ApiError
from ponder.server.completion import Completion
from ponder.server.observers.protocol import Observer, Watch
from ponder.server.pools.memory import MemoryPools
from ponder.server.pools.protocol import Kind, Lease, Pools
from ponder.server.settings import Settings
from ponder.server.shared.link import Link

HEADERS = tuple(f"x-ratelimit-{what}-thinking-tokens" for what in ("limit", "remaining", "reset"))
_PASSES_S = 60.0  # a lease ends this long after its request's time, when the request is over
_WAITS_S = 60  # the longest that clients wait before they repeat a request by themselves
_SHARES = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@dataclass(slots=True)
class Loan:
    """The leases of one request, by the kind of their pool; each thought may have `each` tokens.

    `headers` describe to the client the pool that has the least left.
    """

    each: int
    leases: dict[Kind, Lease] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def configured_pools(settings: Settings, link: Link | None) -> dict[Kind, Pools]:
    """The pools that the operator set, in the order in which requests ask them.

    With a `link` they are in Redis, for all servers.
    """
    lifetime = settings.request_timeout + _PASSES_S
    if link is not None:
        from ponder.server.pools.redis import SharedPools

        sizes = settings.pools.items()
        return {kind: SharedPools(link, kind, size, lifetime) for kind, size in sizes}
    return {kind: MemoryPools(size, lifetime) for kind, size in settings.pools.items()}


class Lending(Observer):
    """Asks the pools before a request runs, and settles with them once it has ended.

    It asks the conversation's pool first: if the tenant's then lends less, the conversation's holds
    the difference until the request ends, at no other conversation's cost. A request that names no
    conversation has only its tenant's pool. With `refuses`, an empty pool is an error; otherwise
    the request is answered without a thought.
    """

    def __init__(self, pools: Mapping[Kind, Pools], *, refuses: bool) -> None:
        self._pools = pools
        self._refuses = refuses
        self._settling: set[asyncio.Task[None]] = set()
        self._used = Counter(
            "ponder_pool_thinking_tokens_total",
            "Thinking tokens that requests took from their pools",
            ["pool"],
            registry=None,
        )
        self._requests = Counter(
            "ponder_pool_requests_total",
            "Requests for thoughts, by what their pool lent: whole budgets, less, or nothing",
            ["pool", "lent"],
            registry=None,
        )
        self._left = Histogram(
            "ponder_pool_left_ratio",
            "Share of a pool that is left after it lent to a request, from 0 to 1",
            ["pool"],
            buckets=_SHARES,
            registry=None,
        )
        self._alone = Counter(
            "ponder_pool_lent_alone_total",
            "Requests to which the server lent from a pool of its own while Redis was away",
            ["pool"],
            registry=None,
        )
        self.collectors = (self._used, self._requests, self._left, self._alone)
        for kind in pools:
            self._used.labels(kind)
            self._alone.labels(kind)
            self._left.labels(kind)
            for lent in ("whole", "less", "nothing"):
                self._requests.labels(kind, lent)

    async def lend(self, tenant: str, conversation: str | None, wants: Sequence[int]) -> Loan:
        """Have the pools lend thinking tokens; `wants` are the tokens of each thought.

        Raises 429 where a pool has nothing and the operator wants an error.
        """
        most = max(wants)
        loan = Loan(most)
        try:
            for kind, pools in self._pools.items():
                if kind == "conversation" and conversation is None:
                    continue
                name = _name(tenant, conversation if kind == "conversation" else None)
                lease = await pools.grant(name, [min(want, loan.each) for want in wants])
                loan.leases[kind] = lease
                if not most:
                    continue
                self._count(kind, pools, lease, loan.each)
                loan.each = min(loan.each, lease.each)
                if not loan.each:
                    self.settle(loan, 0)
                    loan.leases = {kind: lease}
                    break
            loan.headers = self._headers(loan)
            if most and not loan.each and self._refuses:
                raise self._exhausted(kind, lease, loan)
        except BaseException:
            self.settle(loan, 0)
            raise
        return loan

    def settle(self, loan: Loan, used: int) -> None:
        """Give back what was not `used`; called once for every loan, however its request ended."""
        for kind, lease in loan.leases.items():
            if lease.tokens:
                self._used.labels(kind).inc(used)
                task = asyncio.create_task(self._pools[kind].settle(lease, used))
                self._settling.add(task)
                task.add_done_callback(self._settling.discard)

    def began(self, completion: Completion) -> Watch:
        """Nothing: a request settles when it leaves its place, even if it never began."""
        return Watch(lambda error: None)

    async def settled(self) -> None:
        while self._settling:
            await asyncio.wait(self._settling)

    def _count(self, kind: Kind, pools: Pools, lease: Lease, most: int) -> None:
        lent = "whole" if lease.each >= most else "less" if lease.each else "nothing"
        self._requests.labels(kind, lent).inc()
        if lease.alone:
            self._alone.labels(kind).inc()
        self._left.labels(kind).observe(lease.left / pools.size.tokens)

    def _headers(self, loan: Loan) -> dict[str, str]:
        if not loan.leases:
            return {}
        kind, lease = min(loan.leases.items(), key=lambda item: item[1].left)
        said = (self._pools[kind].size.tokens, lease.left, f"{math.ceil(lease.full_in)}s")
        return dict(zip(HEADERS, map(str, said), strict=True))

    def _exhausted(self, kind: Kind, lease: Lease, loan: Loan) -> ApiError:
        size, seconds = self._pools[kind].size, max(1, math.ceil(lease.enough_in))
        return ApiError(
            429,
            "thinking_quota_exhausted",
            f"this {kind} has used its thinking tokens ({size.tokens} in {size.seconds} s): try "
            f"again in {seconds} s, or ask for an answer without a thought",
            field="budget",
            headers={
                **loan.headers,
                "retry-after": str(seconds),
                **(NO_RETRY if seconds > _WAITS_S else {}),
            },
        )


def _name(tenant: str, conversation: str | None) -> str:
    """A pool's name: a hash of fixed length, whatever a client calls its conversation."""
    said = tenant if conversation is None else f"{tenant}/{conversation}"
    return hashlib.sha256(said.encode()).hexdigest()
