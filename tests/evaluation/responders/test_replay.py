import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.protocol import EngineDeadError, EngineRequest, Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say
from ponder.evaluation.responders.replay import ReplayEngine

VOCABULARY = ByteVocabulary()
SAMPLING = Sampling(max_tokens=50, seed=3)


async def tokens(engine: ReplayEngine, sampling: Sampling, most: int = 99) -> list[int]:
    found: list[int] = []
    async with aclosing(engine.generate(EngineRequest(b"Q: ", sampling, "r"))) as stream:
        async for chunk in stream:
            found += chunk.token_ids
            if len(found) >= most:
                break
    return found


@given(st.integers(1, 12), st.sampled_from([1, 3, 16]))
def test_a_request_is_sampled_once_and_played_back(most: int, chunk: int) -> None:
    async def twice() -> tuple[list[int], list[int]]:
        return await tokens(replay, SAMPLING, most), await tokens(replay, again)

    engine = ScriptedEngine(say("Hello there.", vocabulary=VOCABULARY), VOCABULARY)
    replay = ReplayEngine(engine)
    again = Sampling(max_tokens=50, seed=3, chunk_tokens=chunk)
    first, second = asyncio.run(twice())
    assert first == second == list(b"Hello there."[:most])
    assert len(engine.requests) == 1
    assert engine.unfinished() == replay.unfinished() == 0


def test_another_seed_is_another_request() -> None:
    async def both() -> None:
        await tokens(replay, SAMPLING)
        await tokens(replay, Sampling(max_tokens=50, seed=4))

    engine = ScriptedEngine(say("Hello", vocabulary=VOCABULARY), VOCABULARY)
    replay = ReplayEngine(engine)
    asyncio.run(both())
    assert [sampling.seed for _, sampling in engine.requests] == [3, 4]


def test_the_engine_behind_it_is_watched_and_ended() -> None:
    engine = ScriptedEngine(say("Hello", vocabulary=VOCABULARY), VOCABULARY)
    replay = ReplayEngine(engine)
    assert replay.facts == engine.facts
    asyncio.run(replay.check_health())
    replay.shutdown()
    with pytest.raises(EngineDeadError):
        asyncio.run(replay.check_health())
