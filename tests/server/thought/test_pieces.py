"""A thought that waits in between is the same thought, whatever the places where it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.engine.protocol import Chunk, EngineRequest, Sampling
from ponder.engine.scripted import ByteVocabulary, Script, ScriptedEngine
from ponder.thought.drive import Driver
from ponder.thought.exits.inquiry import Inquiry
from ponder.thought.outcome import InterimAnswer
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Event, Thought
from server.thought.helpers import EOS, PROMPT, SINGLE, SPELT, Life, compiled, plan

KINDS = st.sampled_from([(SINGLE, "template"), (SINGLE, "model"), (SPELT, "template")])
Kind = tuple[ByteVocabulary, Literal["template", "model"]]


def goes_on(text: str, vocabulary: ByteVocabulary) -> Script:
    """Says `text`, and goes on with it where a prompt holds its beginning."""

    def script(prompt: Sequence[int], _number: int) -> Iterator[int]:
        said = list(prompt[len(PROMPT) :])
        whole = [*vocabulary.encode(text), EOS]
        yield from whole[len(said) :] if said == whole[: len(said)] else [*b"cut short", EOS]

    return script


def lived(
    text: str,
    stops: Sequence[int],
    kind: Kind = (SINGLE, "template"),
    *,
    budget: int = 40,
    sampling: Sampling | None = None,
    engine: type[ScriptedEngine] = ScriptedEngine,
) -> Life:
    """Live a thought that waits wherever it has so many tokens."""
    vocabulary, opened_by = kind
    playing = engine(goes_on(text, vocabulary), vocabulary, chunk_sizes=(3,))
    thought = Thought(
        *(vocabulary, compiled(vocabulary, opened_by)),
        prompt=PROMPT,
        plan=plan(budget),
        sampling=sampling or Sampling(max_tokens=1),
        rules=AnswerRules(),
    )
    life = Life(playing, thought.outcome)

    async def live() -> None:
        driver = Driver(thought, playing, "r", life.deltas.append)
        driver.start()
        for stop in stops:
            await driver.live(stop)
            assert not thought.thinking or len(thought.thinking_ids) >= stop
        await driver.live()
        await driver.close()

    asyncio.run(live())
    assert playing.unfinished() == 0
    return life


@given(st.text("aé漢</thi. \n", max_size=50), st.sets(st.integers(1, 60)), KINDS)
@settings(deadline=None)
def test_waiting_changes_nothing(said: str, stops: set[int], kind: Kind) -> None:
    opening = "<think>" if kind[1] == "model" else ""
    text = f"{opening}{said}</think>\n\nThe answer is 42."
    apart, whole = lived(text, sorted(stops), kind), lived(text, [], kind)
    assert apart.counts == whole.counts
    assert (apart.reasoning, apart.content) == (whole.reasoning, whole.content)
    assert apart.outcome.end_cause == whole.outcome.end_cause


def test_each_part_has_a_seed_of_its_own() -> None:
    life = lived("a" * 99, [5, 10, 20], sampling=Sampling(max_tokens=1, seed=7))
    seeds = [sampling.seed for sampling in life.samplings]
    assert seeds[0] == 7 and len(set(seeds)) == len(seeds) == 5
    assert [sampling.max_tokens for sampling in life.samplings[:3]] == [5, 5, 10]


def test_the_cache_is_that_of_the_prompt() -> None:
    class Caching(ScriptedEngine):
        async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
            async for chunk in super().generate(request):
                yield replace(chunk, cached_tokens=len(request.prompt))

    life = lived("a" * 99, [5, 10], engine=Caching)
    assert life.outcome.cached_tokens == len(PROMPT)


@pytest.mark.parametrize("asked", [True, False])
def test_a_thought_that_waits_is_probed_when_somebody_asks(asked: bool) -> None:
    inquiry = Inquiry(max_tokens=16)
    engine = ScriptedEngine(goes_on("a" * 99, SINGLE), SINGLE)
    thought = Thought(
        *(SINGLE, compiled()),
        prompt=PROMPT,
        plan=plan(40),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        exits=[inquiry],
    )
    heard: list[Event] = []

    async def live() -> None:
        driver = Driver(thought, engine, "r", heard.append)
        driver.start()
        await driver.live(32)
        inquiry.asked = asked
        driver.wake()
        inquiry.asked = False
        await driver.probed()
        assert len(thought.thinking_ids) == 32
        await driver.live()
        await driver.close()

    asyncio.run(live())
    answers = [event.text for event in heard if isinstance(event, InterimAnswer)]
    assert answers == (["cut short"] if asked else [])
    assert thought.outcome.probe_tokens == (len("cut short") + 1) * asked
