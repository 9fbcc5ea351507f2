"""What a thought asks of the engine, and what becomes of it when the engine or the reader fails."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from ponder.engine.protocol import Chunk, EngineDeadError, EngineError, Sampling
from ponder.engine.scripted import ScriptedEngine, say
from ponder.thought.drive import drive
from ponder.thought.outcome import Outcome
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Event, Thought
from server.thought.helpers import PROMPT, SINGLE, SPELT, compiled, live, plan

# -- one request or two ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=1, presence_penalty=0.5),
        Sampling(max_tokens=1, frequency_penalty=0.5),
        Sampling(max_tokens=1, repetition_penalty=1.1),
    ],
)
def test_penalties_of_the_answer_do_not_count_the_thought(sampling: Sampling) -> None:
    life = live("ab</think>\n\n", "42", plan=plan(5), sampling=sampling)
    assert life.prompts[1] == [*PROMPT, *SINGLE.encode("ab</think>")]
    assert life.samplings[0].stop_token_ids == (SINGLE.END_THINK, SINGLE.TOOL_CALL)
    assert life.samplings[1].stop_token_ids == ()
    assert life.counts == (2, 0, 1 + 3, 0)


def test_stop_token_ids_hold_for_the_answer_alone() -> None:
    rules = AnswerRules(stop_token_ids=(ord("Z"),))
    life = live("aZb</think>", "4Z2", plan=plan(5), rules=rules)
    assert (life.reasoning, life.content) == ("aZb", "4")
    empty = live("aZb</think>", "Z", plan=plan(5), rules=rules)
    assert (empty.content, empty.failure) == ("", None)


def test_min_tokens_hold_for_the_answer_alone() -> None:
    life = live("ab</think>", "42", plan=plan(5), rules=AnswerRules(min_tokens=5))
    assert [sampling.min_tokens for sampling in life.samplings] == [0, 5]
    assert life.content == "42xxx" + "x" * (len(life.content) - 5)


def test_min_thinking_tokens_mask_the_end_marker() -> None:
    life = live("ab</think>cd</think>", "42", plan=plan(20, min_thinking=4))
    assert life.reasoning == "abxcd"
    assert life.samplings[0].min_tokens == 4
    opened = live(
        "<think>ab</think>cd</think>", "42", plan=plan(20, min_thinking=3), opened_by="model"
    )
    assert opened.reasoning == "abxcd"  # the opening marker is not a token of the thought


def test_two_requests_when_the_model_opens_no_thought() -> None:
    rules = AnswerRules(min_tokens=3)
    life = live("42", "1", plan=plan(20), opened_by="model", rules=rules)
    assert life.prompts[1] == [*PROMPT, ord("4")]
    assert life.samplings[1].min_tokens == 2
    assert life.content == "41x" + life.content[3:]


def test_an_answer_complete_before_it_was_decided_is_not_asked_again() -> None:
    life = live(
        "<th",
        plan=plan(20),
        vocabulary=SPELT,
        opened_by="model",
        sampling=Sampling(max_tokens=1, presence_penalty=1.0),
    )
    assert life.content == "<th"
    assert len(life.prompts) == 1


def test_re_entries_have_seeds_of_their_own() -> None:
    first, second = (
        live("0123456789", " ", "42", plan=plan(5), sampling=Sampling(max_tokens=1, seed=seed))
        for seed in (7, 8)
    )
    seeds = [sampling.seed for life in (first, second) for sampling in life.samplings]
    assert seeds[0] == 7
    assert len(set(seeds)) == 6
    assert all(seed is not None and 0 <= seed < 2**63 for seed in seeds)
    unseeded = live("0123456789", "42", plan=plan(5))
    assert [sampling.seed for sampling in unseeded.samplings] == [None, None]


def test_the_thought_is_reported_in_chunks_that_meet_the_budget() -> None:
    life = live("0" * 30, "42", plan=plan(21), sampling=Sampling(max_tokens=1, chunk_tokens=8))
    assert [sampling.chunk_tokens for sampling in life.samplings] == [7, 8]


# -- engine ------------------------------------------------------------------------------------


async def lived(engine: ScriptedEngine, emit: Callable[[Event], None] = lambda _: None) -> Outcome:
    thought = Thought(
        SINGLE,
        compiled(),
        prompt=PROMPT,
        plan=plan(1000, allowance=2000),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
    )
    return await drive(thought, engine, "r", emit)


def test_a_cancelled_run_aborts_the_engine_request() -> None:
    async def scenario() -> int:
        engine = ScriptedEngine(say("abc" * 1000, vocabulary=SINGLE), SINGLE, delay=0.001)
        task = asyncio.create_task(lived(engine))
        await asyncio.sleep(0.01)
        assert engine.unfinished() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return engine.unfinished()

    assert asyncio.run(scenario()) == 0


def test_a_reader_that_fails_aborts_the_engine_request() -> None:
    engine = ScriptedEngine(say("abc", vocabulary=SINGLE), SINGLE)

    def emit(_: object) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(lived(engine, emit))
    assert engine.unfinished() == 0


def test_the_death_of_the_engine_is_told() -> None:
    engine = ScriptedEngine(say("abc", vocabulary=SINGLE), SINGLE)
    with pytest.raises(EngineDeadError):
        asyncio.run(lived(engine, lambda _: engine.kill()))


def test_a_stream_that_breaks_off_is_the_engines_error() -> None:
    class Broken(ScriptedEngine):
        async def generate(self, request):  # type: ignore[no-untyped-def]
            yield Chunk([ord("a")])

    with pytest.raises(EngineError, match="ended before"):
        asyncio.run(lived(Broken(say("a", vocabulary=SINGLE), SINGLE)))


def test_times_are_in_order_and_the_cache_is_that_of_the_first_request() -> None:
    class Cached(ScriptedEngine):
        async def generate(self, request):  # type: ignore[no-untyped-def]
            async for chunk in super().generate(request):
                yield replace(chunk, cached_tokens=len(request.prompt))

    engine = Cached(say("a" * 2000, "42", vocabulary=SINGLE), SINGLE)
    outcome = asyncio.run(lived(engine))
    assert outcome.cached_tokens == len(PROMPT)
    assert outcome.first_token_at is not None
    assert outcome.thought_ended_at is not None
    assert outcome.first_answer_at is not None
    assert outcome.first_token_at < outcome.thought_ended_at < outcome.first_answer_at
    assert outcome.ended_at is not None and outcome.first_answer_at <= outcome.ended_at
