"""Data-parallel engines in one vLLM: a thought stays on one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.protocol import EngineRequest, Sampling
from ponder.engine.scripted import ByteVocabulary, say
from ponder.engine.vllm import VLLMEngine, parse_options
from ponder.engine.vllm_ranks import Ranks
from ponder.server.settings import BUNDLED_MODEL


class FakeLLM:
    """What `AsyncLLM` does with requests, and the rank that each was given."""

    model_config = SimpleNamespace(max_model_len=4096, max_logprobs=20)

    def __init__(self) -> None:
        self.ranks: dict[str, int | None] = {}

    async def generate(
        self, prompt: Any, params: Any, name: str, *, data_parallel_rank: int | None
    ) -> AsyncGenerator[Any, None]:
        self.ranks[name] = data_parallel_rank
        for token in say("abc", vocabulary=ByteVocabulary())([], 0):
            part = SimpleNamespace(token_ids=[token], finish_reason=None, logprobs=None)
            yield SimpleNamespace(outputs=[part], num_cached_tokens=0, prompt_logprobs=None)
            await asyncio.sleep(0)


def test_all_requests_of_a_thought_run_on_one_rank() -> None:
    fake: Any = FakeLLM()
    engine = VLLMEngine(fake, ranks=Ranks(2))

    async def ask(name: str, affinity: str) -> None:
        request = EngineRequest([1], Sampling(max_tokens=9), name, affinity)
        async with aclosing(engine.generate(request)) as stream:
            async for _ in stream:
                pass

    async def scenario() -> None:
        names = ("0", "probe-0", "1", "1-7")
        await asyncio.gather(*(ask(f"{t}-{name}", t) for t in "abcd" for name in names))
        for thought in "dcba":  # one after the other: ties would go to the first
            await ask(f"{thought}-2", thought)

    asyncio.run(scenario())
    homes = {name.split("-")[0]: rank for name, rank in fake.ranks.items()}
    assert all(rank == homes[name.split("-")[0]] for name, rank in fake.ranks.items())
    assert Counter(homes.values()) == {0: 2, 1: 2}


def test_one_engine_needs_no_rank() -> None:
    fake: Any = FakeLLM()

    async def first() -> None:
        request = EngineRequest([1], Sampling(max_tokens=9), "a-0", "a")
        async with aclosing(VLLMEngine(fake).generate(request)) as stream:
            await anext(stream)

    asyncio.run(first())
    assert fake.ranks == {"a-0": None}


@given(st.integers(2, 5), st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_new_thoughts_go_where_the_fewest_run(size: int, thoughts: list[int]) -> None:
    ranks, homes, open_requests = Ranks(size), dict[int, int | None](), []
    for thought in thoughts:
        request = ranks.taken(str(thought))
        before = list(ranks._running)
        rank = request.__enter__()
        open_requests.append(request)
        assert rank is not None
        if thought in homes:
            assert rank == homes[thought]
        else:
            assert before[rank] == min(before)
        homes[thought] = rank
    for request in open_requests:
        request.__exit__(None, None, None)
    assert ranks._running == [0] * size


def test_ranks_are_vllms_unless_something_outside_chooses() -> None:
    def size(*options: str) -> int:
        return len(Ranks.of(parse_options(BUNDLED_MODEL, options))._running)

    assert size() == 1
    assert size("--data-parallel-size", "3") == 3
    assert size("--data-parallel-size", "3", "--data-parallel-rank", "1") == 1
    assert size("--data-parallel-size", "3", "--data-parallel-hybrid-lb") == 1
