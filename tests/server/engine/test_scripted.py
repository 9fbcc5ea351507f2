import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing

import pytest

from ponder.engine.protocol import (
    Chunk,
    Engine,
    EngineDeadError,
    EngineError,
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


@pytest.mark.parametrize(
    ("sampling", "output", "finish"),
    [
        (Sampling(max_tokens=9), [*b"abc", EOS], "stop"),
        (Sampling(max_tokens=4), [*b"abc", EOS], "stop"),
        (Sampling(max_tokens=2), [*b"ab"], "length"),
        (Sampling(max_tokens=6, ignore_eos=True), [*b"abc", EOS, *b"xx"], "length"),
        (Sampling(max_tokens=9, stop_token_ids=(ord("b"),)), [*b"ab"], "stop"),
        (Sampling(max_tokens=6, min_tokens=5), [*b"abcxxx"], "length"),
        (Sampling(max_tokens=4, min_tokens=2, stop_token_ids=(97, 99)), [*b"xbc"], "stop"),
    ],
)
def test_the_engines_own_rules(sampling: Sampling, output: list[int], finish: str) -> None:
    engine = engine_of()
    chunks = play(engine, sampling)
    assert sampled(chunks) == output
    assert [chunk.finish for chunk in chunks] == [None] * (len(output) - 1) + [finish]
    assert engine.requests == [([1], sampling)]
    assert engine.outputs == [output]
    assert engine.unfinished() == 0


def test_chunk_sizes_are_cycled() -> None:
    chunks = play(engine_of("abcdefg", (1, 3)), Sampling(max_tokens=20))
    assert [len(chunk.token_ids) for chunk in chunks] == [1, 3, 1, 3]


def test_log_probabilities_are_parallel_to_the_tokens() -> None:
    chunks = play(engine_of(chunk_sizes=(3,)), Sampling(max_tokens=20, logprobs=0))
    for chunk in chunks:
        assert chunk.logprobs is not None
        assert [entry.token_id for entry in chunk.logprobs] == list(chunk.token_ids)
    assert play(engine_of(), Sampling(max_tokens=20))[0].logprobs is None


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


@pytest.mark.parametrize(("max_tokens", "prompt"), [(0, 1), (-1, 1), (8, 3)])
def test_what_a_real_engine_refuses_is_refused(max_tokens: int, prompt: int) -> None:
    engine = engine_of(max_model_len=10)
    with pytest.raises(EngineError):
        play(engine, Sampling(max_tokens=max_tokens), [1] * prompt)
    assert engine.requests == []
    assert engine.unfinished() == 0


def test_closing_the_stream_aborts_the_request() -> None:
    async def scenario() -> None:
        engine = engine_of("abc" * 99)
        stream = engine.generate(EngineRequest([1], Sampling(max_tokens=999), "r"))
        assert engine.unfinished() == 0
        async with aclosing(stream):
            await anext(stream)
            assert engine.unfinished() == 1
            with pytest.raises(EngineError, match="already running"):
                await anext(engine.generate(EngineRequest([1], Sampling(max_tokens=9), "r")))
        assert engine.unfinished() == 0
        assert len(engine.outputs[0]) == 1

    asyncio.run(scenario())


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
