"""The rules that hold for every engine: the scripted one, and a server's over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from ponder.engine.protocol import Chunk, Engine, EngineError, EngineRequest, Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say
from waiting import wait_until

from .inference_server import InferenceServer, asking

VOCABULARY = ByteVocabulary()
EOS = VOCABULARY.EOS
KINDS = ["scripted", "generate", "completions", "sglang", "sglang, incremental"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def engine_of(kind: str, behind: ScriptedEngine) -> AsyncIterator[Engine]:
    """The engine of a kind that says what the one `behind` it does."""
    if kind == "scripted":
        yield behind
        return
    dialect, _, how = kind.partition(", ")
    server = InferenceServer(behind, dialect, VOCABULARY.encode, incremental=bool(how))
    async with asking(server, VOCABULARY.eos_token_ids) as engine:
        yield engine


def saying(text: str, chunk_sizes: Sequence[int] = (1,), **options: int) -> ScriptedEngine:
    script = say(text, vocabulary=VOCABULARY)
    return ScriptedEngine(script, VOCABULARY, chunk_sizes=chunk_sizes, **options)


def on(
    kind: str, behind: ScriptedEngine, scenario: Callable[[Engine], Awaitable[object]]
) -> object:
    async def run() -> object:
        async with engine_of(kind, behind) as engine:
            result = await scenario(engine)
            assert engine.unfinished() == 0
            assert engine.silence() == 0
            return result

    return asyncio.run(run())


def play(
    kind: str, behind: ScriptedEngine, sampling: Sampling, prompt: Sequence[int] = (1,)
) -> list[Chunk]:
    chunks: list[Chunk] = []

    async def drain(engine: Engine) -> None:
        async for chunk in engine.generate(EngineRequest(prompt, sampling, "r")):
            chunks.append(chunk)

    on(kind, behind, drain)
    return chunks


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
        (Sampling(max_tokens=9, logit_bias={98: -100.0}), [*b"axc", EOS], "stop"),
    ],
)
def test_the_engines_own_rules(
    kind: str, sampling: Sampling, output: list[int], finish: str
) -> None:
    behind = saying("abc")
    chunks = play(kind, behind, sampling)
    assert sampled(chunks) == output
    assert [chunk.finish for chunk in chunks] == [None] * (len(output) - 1) + [finish]
    assert behind.requests == [([1], sampling)]
    assert behind.outputs == [output]


def test_chunks_come_as_they_were_gathered(kind: str) -> None:
    chunks = play(kind, saying("abcdefg", (1, 3)), Sampling(max_tokens=20))
    assert [len(chunk.token_ids) for chunk in chunks] == [1, 3, 1, 3]


@pytest.mark.parametrize("alternatives", [0, 2])
def test_log_probabilities_are_parallel_to_the_tokens(kind: str, alternatives: int) -> None:
    rules = Sampling(max_tokens=20, logprobs=alternatives)
    for chunk in play(kind, saying("abcde", (3,)), rules):
        assert chunk.logprobs is not None
        assert [entry.token_id for entry in chunk.logprobs] == list(chunk.token_ids)
        assert all(len(entry.top) == alternatives for entry in chunk.logprobs)
    assert play(kind, saying("abc"), Sampling(max_tokens=20))[0].logprobs is None


@pytest.mark.parametrize(("max_tokens", "prompt"), [(0, 1), (-1, 1), (8, 3)])
def test_what_cannot_be_is_refused(kind: str, max_tokens: int, prompt: int) -> None:
    behind = saying("abc", max_model_len=10)
    with pytest.raises(EngineError):
        play(kind, behind, Sampling(max_tokens=max_tokens), [1] * prompt)
    assert behind.requests == []


def test_closing_the_stream_aborts_the_request(kind: str) -> None:
    behind = saying("abc" * 99)
    behind.delay = 0.01

    async def scenario(engine: Engine) -> None:
        stream = engine.generate(EngineRequest([1], Sampling(max_tokens=999), "r"))
        assert engine.unfinished() == 0
        async with aclosing(stream):
            await anext(stream)
            assert engine.unfinished() == 1
            with pytest.raises(EngineError, match="already running"):
                await anext(engine.generate(EngineRequest([1], Sampling(max_tokens=9), "r")))
        assert engine.unfinished() == 0
        await asyncio.to_thread(wait_until, lambda: not behind.unfinished())

    on(kind, behind, scenario)
    assert len(behind.outputs[0]) < 299  # a server learns of it while the next tokens come


def test_requests_beside_each_other_do_not_mix(kind: str) -> None:
    behind = ScriptedEngine(lambda prompt, _: iter([*prompt, EOS]), VOCABULARY)

    async def scenario(engine: Engine) -> None:
        async def one(number: int) -> list[int]:
            prompt = [number + 1] * (1 + number % 7)
            request = EngineRequest(prompt, Sampling(max_tokens=20), f"r{number}")
            ids = [t async for chunk in engine.generate(request) for t in chunk.token_ids]
            assert ids == [*prompt, EOS]
            return ids

        await asyncio.gather(*map(one, range(40)))

    on(kind, behind, scenario)
    assert len(behind.outputs) == 40
