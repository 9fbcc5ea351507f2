"""The first tokens of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import fields

import pytest

from ponder.engine.protocol import EngineError, RequestRefusedError, Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say
from ponder.engine.warmup import PATHS, WarmupError, warm_up

VOCABULARY = ByteVocabulary()
# They shape no distribution: length, and what is reported how.
SHAPELESS = {"max_tokens", "ignore_eos", "chunk_tokens", "cache_salt"}


def test_every_way_to_sample_is_taken_alone_and_in_a_batch() -> None:
    engine = ScriptedEngine(say("hello", vocabulary=VOCABULARY), VOCABULARY)
    asyncio.run(warm_up(engine, [1]))
    rules = [sampling for _, sampling in engine.requests]
    wanted = [Sampling(max_tokens=2, **path) for path in PATHS.values()]
    assert rules == [*wanted, *wanted, *wanted]
    assert engine.unfinished() == 0


def test_no_field_of_sampling_is_met_by_a_client_first() -> None:
    taken = {name for path in PATHS.values() for name in path}
    assert taken == {field.name for field in fields(Sampling)} - SHAPELESS


def test_a_path_that_fails_is_named() -> None:
    logprobs = list(PATHS).index("logprobs")

    def script(_prompt: Sequence[int], number: int) -> Iterator[int]:
        if number == logprobs:
            raise EngineError("no compiler")
        yield VOCABULARY.EOS

    engine = ScriptedEngine(script, VOCABULARY)
    with pytest.raises(WarmupError, match="fails at logprobs: no compiler"):
        asyncio.run(warm_up(engine, [1]))


@pytest.mark.parametrize("refused", ["logprobs", "plain sampling"])
def test_an_engine_may_refuse_all_but_plain_sampling(refused: str) -> None:
    number_of = list(PATHS).index(refused)

    def script(_prompt: Sequence[int], number: int) -> Iterator[int]:
        if number == number_of:
            raise RequestRefusedError("not here")
        yield VOCABULARY.EOS

    engine = ScriptedEngine(script, VOCABULARY)
    if PATHS[refused]:
        asyncio.run(warm_up(engine, [1]))
        assert len(engine.requests) == 3 * len(PATHS)
    else:
        with pytest.raises(WarmupError, match="not here"):
            asyncio.run(warm_up(engine, [1]))
