import asyncio
from collections.abc import Iterator, Sequence

import pytest

from ponder.engine.protocol import (
    Chunk,
    Engine,
    EngineDeadError,
    EngineRequest,
    Sampling,
)
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say

VOCABULARY = ByteVocabulary()
EOS = VOCABULARY.EOS


def engine_of(
    text: str = "abc", chunk_sizes: Sequence[int] = (1,), **options: int
) -> ScriptedEngine:
    return ScriptedEngine(
        say(text, vocabulary=VOCABULARY), VOCABULARY, chunk_sizes=chunk_sizes, **options
    )


def play(engine: Engine, sampling: Sampling, prompt: Sequence[int] = (1,)) -> list[Chunk]:
    async def drain() -> list[Chunk]:
        return [chunk async for chunk in engine.generate(EngineRequest(prompt, sampling, "r"))]

    return asyncio.run(drain())


def sampled(chunks: list[Chunk]) -> list[int]:
    return [token_id for chunk in chunks for token_id in chunk.token_ids]


def test_a_script_sees_its_prompt_and_the_number_of_its_request() -> None:
    def script(prompt: Sequence[int], number: int) -> Iterator[int]:
        yield from (*prompt, number, EOS)

    engine = ScriptedEngine(script, VOCABULARY)
    assert sampled(play(engine, Sampling(max_tokens=9), [5, 6])) == [5, 6, 0, EOS]
    assert sampled(play(engine, Sampling(max_tokens=9), [7])) == [7, 1, EOS]


def test_say_repeats_its_last_text() -> None:
    engine = ScriptedEngine(say("a", "b", vocabulary=VOCABULARY), VOCABULARY)
    texts = [sampled(play(engine, Sampling(max_tokens=9)))[0] for _ in range(3)]
    assert bytes(texts) == b"abb"


def test_a_killed_engine_is_dead() -> None:
    async def scenario() -> None:
        engine = engine_of()
        await engine.check_health()
        stream = engine.generate(EngineRequest([1], Sampling(max_tokens=9), "r"))
        await anext(stream)
        engine.kill()
        with pytest.raises(EngineDeadError):
            await anext(stream)
        with pytest.raises(EngineDeadError):
            await anext(engine.generate(EngineRequest([1], Sampling(max_tokens=9), "s")))
        with pytest.raises(EngineDeadError):
            await engine.check_health()
        assert engine.unfinished() == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(
    "text", ["", "a€b", "<think></think><tool_call>", "a</think>b<think>c", "</think></think>"]
)
def test_the_bytes_of_the_tokens_are_the_text(text: str, single: bool) -> None:
    vocabulary = ByteVocabulary(single_token_markers=single)
    ids = vocabulary.encode(text)
    assert b"".join(map(vocabulary.token_bytes, ids)).decode() == text
    assert any(token_id > EOS for token_id in ids) == (single and "<" in text)
    assert vocabulary.token_bytes(EOS) == b""
