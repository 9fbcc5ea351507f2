"""What every implementation of pools promises, on a scripted clock."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from redis.asyncio import Redis

from ponder.server.pools.memory import MemoryPools
from ponder.server.pools.protocol import LEAST, Lease, Pools, PoolSize, fair_part, read_pools
from ponder.server.pools.redis import RedisPools
from stores import RedisServer

SIZE = PoolSize(10_000, 100)  # 100 tokens come back in a second
LIFETIME = 50.0


@dataclass
class Bench:
    """Pools and the clock that they go by."""

    pools: Pools
    clock: list[float]
    redis: Redis | None = None
    team: str = field(default_factory=lambda: secrets.token_hex(8))
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def close(self) -> None:
        if self.redis is not None:
            self.runner.run(self.redis.aclose())
        self.runner.close()

    def grant(self, *wants: int, name: str = "") -> Lease:
        return self.runner.run(self._grant(name or self.team, wants or (4096,)))

    def settle(self, lease: Lease, used: int) -> None:
        self.runner.run(self._settle(lease, used))

    async def _grant(self, name: str, wants: Sequence[int]) -> Lease:
        return await self.pools.grant(name, wants)

    async def _settle(self, lease: Lease, used: int) -> None:
        await self.pools.settle(lease, used)

    def use(self, want: int, name: str = "") -> int:
        lease = self.grant(want, name=name)
        self.settle(lease, lease.tokens)
        return lease.tokens


Make = Callable[[], Bench]


def in_memory() -> Bench:
    clock = [0.0]
    return Bench(MemoryPools(SIZE, LIFETIME, lambda: clock[0]), clock)


@pytest.fixture
def in_redis(redis_server: RedisServer) -> Make:
    def make() -> Bench:
        clock, redis = [0.0], Redis(port=redis_server.port)
        return Bench(RedisPools(redis, "tenant", SIZE, LIFETIME, lambda: clock[0]), clock, redis)

    return make


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.quick), "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes pools that nobody has used yet."""
    if request.param == "memory":
        return in_memory
    found: Make = request.getfixturevalue("in_redis")
    return found


@pytest.fixture
def bench(make: Make) -> Iterator[Bench]:
    with closing(make()) as bench:
        yield bench


def test_budgets_shrink_smoothly_before_anything_is_refused(bench: Bench) -> None:
    lent = []
    while (lease := bench.grant()).tokens:
        lent.append(lease.tokens)
    assert lent[:4] == [1000, 900, 810, 729]
    assert lent == sorted(lent, reverse=True)
    assert lent[-1] == LEAST
    assert 10_000 - sum(lent) == lease.left < LEAST


def test_what_was_not_used_returns(bench: Bench) -> None:
    lease = bench.grant(4096)
    assert (lease.each, lease.tokens, lease.left) == (1000, 1000, 9000)
    bench.settle(lease, 300)
    assert bench.grant(0).left == 9700


def test_a_thought_is_lent_no_more_than_it_wants(bench: Bench) -> None:
    lease = bench.grant(50)
    assert (lease.tokens, lease.left) == (50, 9950)
    assert lease.each >= 50


def test_whoever_wants_nothing_takes_nothing_and_sees_what_is_left(bench: Bench) -> None:
    assert bench.use(600) == 600
    lease = bench.grant(0, 0)
    assert (lease.tokens, lease.left, lease.full_in) == (0, 9400, 6.0)
    bench.settle(lease, 0)
    assert bench.grant(0).left == 9400


def test_pools_of_other_names_are_others(bench: Bench) -> None:
    bench.grant(4096, name="one")
    assert bench.grant(4096, name="two").tokens == 1000


def test_a_pool_fills_continuously_and_no_further_than_full(bench: Bench) -> None:
    for _ in range(200):
        bench.use(4096)
    assert bench.grant(4096).each == 0
    bench.clock[0] += 0.1
    before = bench.grant(0).left
    bench.clock[0] += 10.5
    assert bench.grant(0).left == before + 1050
    bench.clock[0] += 1000
    assert bench.grant(0).left == 10_000


def test_a_pool_says_when_it_has_enough_again(bench: Bench) -> None:
    while bench.use(4096):
        pass
    lease = bench.grant(4096)
    assert lease.each == 0
    bench.clock[0] += lease.enough_in * 0.99
    assert bench.grant(4096).each == 0
    bench.clock[0] += lease.enough_in * 0.01 + 1e-6
    assert bench.grant(4096).each == LEAST


def test_a_lease_whose_holder_died_returns(bench: Bench) -> None:
    lease = bench.grant(4096)
    bench.clock[0] += LIFETIME - 1
    assert bench.grant(0).left == 9000
    bench.clock[0] += 1
    assert bench.grant(0).left == 10_000
    bench.settle(lease, 400)  # it lived after all
    assert bench.grant(0).left == 9600


def test_what_a_late_holder_used_is_owed(bench: Bench) -> None:
    late = [bench.grant(4096) for _ in range(30)]
    bench.clock[0] += LIFETIME
    while bench.use(4096):
        pass
    for lease in late:
        bench.settle(lease, lease.tokens)
    assert bench.grant(4096).each == 0
    owed = sum(lease.tokens for lease in late)
    bench.clock[0] += owed / SIZE.rate
    assert 0 <= bench.grant(0).left <= LEAST


def test_memory_keeps_no_pool_that_is_full() -> None:
    clock = [0.0]
    pools = MemoryPools(SIZE, LIFETIME, lambda: clock[0])
    with closing(Bench(pools, clock)) as bench:
        for name in map(str, range(100)):
            bench.use(100, name=name)
            clock[0] += 0.5
    assert len(pools) == 2  # each was full again after a second


# -- the fair part ---------------------------------------------------------------------------

sizes = st.builds(PoolSize, st.integers(LEAST, 10**6), st.integers(1, 10**5))
lists_of_wants = st.lists(st.integers(0, 10**6), min_size=1, max_size=128)


@given(sizes, st.data(), lists_of_wants)
def test_no_more_is_lent_than_is_left(size: PoolSize, data: Any, wants: list[int]) -> None:
    left = data.draw(st.integers(0, size.tokens))
    each = fair_part(left, wants, size)
    assert 0 <= sum(min(want, each) for want in wants) <= left


@given(sizes, st.data(), st.integers(1, 10**6))
def test_more_left_is_never_less_lent(size: PoolSize, data: Any, want: int) -> None:
    one, other = sorted(data.draw(st.integers(0, size.tokens)) for _ in range(2))
    assert fair_part(one, [want], size) <= fair_part(other, [want], size)


@given(sizes, st.data(), st.integers(1, 64))
def test_nobody_is_cut_below_the_least_while_it_lasts(size: PoolSize, data: Any, n: int) -> None:
    left = data.draw(st.integers(0, size.tokens))
    wants = [size.tokens] * n
    each = fair_part(left, wants, size)
    least = min(LEAST, size.tokens // n)
    assert each >= least if left >= n * least else each == 0


@given(sizes, st.integers(2, 64))
def test_a_choice_gets_no_more_than_a_request_alone(size: PoolSize, n: int) -> None:
    alone = fair_part(size.tokens, [size.tokens], size)
    assert fair_part(size.tokens, [size.tokens] * n, size) <= alone


def test_one_request_leaves_the_others_their_part() -> None:
    """Of ten that come at the same time, the last gets more than a third of the first."""
    left, lent = 10_000, []
    for _ in range(10):
        lent.append(fair_part(left, [10_000], SIZE))
        left -= lent[-1]
    assert lent[-1] > lent[0] / 3


# -- any interleaving ------------------------------------------------------------------------


class Interleaving(RuleBasedStateMachine):
    """Requests of one pool: granted, settled early, late or never, while the clock runs."""

    make: Make
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.bench = self.make()
        self.clock = self.bench.clock
        self.open: dict[str, tuple[Lease, float]] = {}
        self.used = self.grace = 0  # within and after a lease's time

    @rule(target=leases, wants=st.lists(st.integers(0, 5000), min_size=1, max_size=5))
    def grant(self, wants: list[int]) -> Lease:
        lease = self.bench.grant(*wants)
        assert lease.tokens == sum(min(want, lease.each) for want in wants)
        assert lease.tokens or not any(wants) or lease.enough_in > 0
        self.open[lease.id] = (lease, self.clock[0])
        return lease

    @rule(lease=consumes(leases), share=st.floats(0, 1))
    def settle(self, lease: Lease, share: float) -> None:
        used = int(lease.tokens * share)
        _, since = self.open.pop(lease.id)
        if self.clock[0] - since < LIFETIME:
            self.used += used
        else:
            self.grace += used
        self.bench.settle(lease, used)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.clock[0] += seconds

    @invariant()
    def no_more_is_used_than_there_ever_was(self) -> None:
        """Beyond it is only what the holders of leases used whose time was over."""
        assert self.used <= SIZE.tokens + SIZE.rate * self.clock[0] + 1e-6

    @invariant()
    def no_lease_is_lost(self) -> None:
        held = sum(
            lease.tokens for lease, since in self.open.values() if self.clock[0] - since < LIFETIME
        )
        left = self.bench.grant(0).left
        assert left <= SIZE.tokens - held
        ever = SIZE.tokens + SIZE.rate * self.clock[0]
        assert left <= ever - self.used - self.grace - held + 1 or left == 0

    def teardown(self) -> None:
        for lease, _ in self.open.values():
            self.bench.settle(lease, 0)
        self.clock[0] += (SIZE.tokens + self.used + self.grace) / SIZE.rate + LIFETIME
        assert self.bench.grant(0).left == SIZE.tokens
        self.bench.close()


def test_any_interleaving_keeps_to_the_size(make: Make) -> None:
    kind = type("Interleaving_of_pools", (Interleaving,), {"make": staticmethod(make)})
    case = kind.TestCase  # type: ignore[attr-defined]
    case.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
    case().runTest()


class Pair(RuleBasedStateMachine):
    """The same steps in memory and in Redis, at times that a float holds exactly."""

    in_redis: Make
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.benches = (in_memory(), self.in_redis())

    @rule(target=leases, wants=st.lists(st.integers(0, 5000), min_size=1, max_size=5))
    def grant(self, wants: list[int]) -> tuple[Lease, Lease]:
        here, there = (bench.grant(*wants) for bench in self.benches)
        assert replace(here, pool="", id="") == replace(there, pool="", id="")
        return here, there

    @rule(pair=consumes(leases), share=st.floats(0, 1))
    def settle(self, pair: tuple[Lease, Lease], share: float) -> None:
        for bench, lease in zip(self.benches, pair, strict=True):
            bench.settle(lease, int(lease.tokens * share))

    @rule(eighths=st.integers(0, 480))
    def wait(self, eighths: int) -> None:
        for bench in self.benches:
            bench.clock[0] += eighths / 8

    def teardown(self) -> None:
        for bench in self.benches:
            bench.close()


def test_redis_and_memory_lend_the_same(in_redis: Make) -> None:
    kind = type("Pair_of_pools", (Pair,), {"in_redis": staticmethod(in_redis)})
    case = kind.TestCase  # type: ignore[attr-defined]
    case.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
    case().runTest()


# -- in Redis --------------------------------------------------------------------------------


def test_a_step_that_comes_twice_counts_once(in_redis: Make) -> None:
    with closing(in_redis()) as bench:
        pools = bench.pools
        assert isinstance(pools, RedisPools)
        for _ in range(2):
            lease = bench.runner.run(pools.grant(bench.team, [4096], "lease"))
            assert (lease.tokens, lease.left) == (1000, 9000)
        for _ in range(2):
            bench.settle(lease, 300)
            assert bench.grant(0).left == 9700
        late = bench.runner.run(pools.grant(bench.team, [4096], "lease"))  # it was given up
        assert (late.tokens, late.left) == (0, 9700)


def test_a_clock_that_falls_behind_takes_nothing_and_gives_nothing(in_redis: Make) -> None:
    """That of a Redis which takes another's place."""
    with closing(in_redis()) as bench:
        bench.clock[0] = 3600.0
        bench.use(1000)
        bench.clock[0] = 0.0
        assert bench.grant(0).left == 9000
        bench.use(1)
        bench.clock[0] = 4.0
        assert bench.grant(0).left == 9399


def test_redis_keeps_no_pool_that_is_full(in_redis: Make, redis_server: RedisServer) -> None:
    """Its keys, of one slot, are gone by then."""
    with closing(in_redis()) as bench, redis_server.client() as client:
        keys = [f"ponder:{{pool:tenant:{bench.team}}}{part}" for part in ("", ":leases")]
        bench.grant(0)
        assert client.exists(*keys) == 0
        bench.use(4096)
        assert client.exists(*keys) == 2
        for _ in range(20):
            bench.use(4096)
        full_in = bench.grant(0).full_in
        assert full_in > 60
        for key in keys:
            assert full_in - 5 < client.ttl(key) <= full_in + 2


# -- as an operator writes them --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("tenant=200000/1h", PoolSize(200_000, 3600)),
        ("tenant=64/1s", PoolSize(64, 1)),
        ("tenant=5000/30m", PoolSize(5000, 1800)),
        ("tenant=1000000/7d", PoolSize(1_000_000, 604_800)),
    ],
)
def test_sizes_are_tokens_and_a_time(text: str, size: PoolSize) -> None:
    assert read_pools([text]) == {"tenant": size}


def test_the_conversation_is_asked_before_its_tenant() -> None:
    assert list(read_pools(["tenant=900/1s", "conversation=90/1s"])) == ["conversation", "tenant"]


@pytest.mark.parametrize(
    ("texts", "remedy"),
    [
        (["tenant"], "write the tokens of a full one and the time"),
        (["tenant=1000"], "as 200000/1h"),
        (["tenant=0/1h"], "as 200000/1h"),
        (["tenant=-5/1h"], "as 200000/1h"),
        (["tenant=1000/0h"], "as 200000/1h"),
        (["tenant=1e3/1h"], "as 200000/1h"),
        (["tenant=1000/1w"], r"\(s, m, h or d\)"),
        (["tenant=63/1h"], "make it 64 or more"),
        (["user=1000/1h"], "write tenant=200000/1h or conversation=20000/1h"),
        (["1000/1h"], "write tenant=200000/1h or conversation=20000/1h"),
        (["tenant=1000/1h", "tenant=2000/1h"], "the pool of a tenant is set twice: leave one"),
    ],
)
def test_what_is_no_size_is_told_the_remedy(texts: list[str], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        read_pools(texts)
