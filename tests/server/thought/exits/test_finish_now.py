"""A thought that somebody wants finished: at any moment of any life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ponder.engine.hermes import HermesParser
from ponder.engine.protocol import CallPart, Chunk, EngineRequest, Grammar, Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say
from ponder.thought.budget import Plan
from ponder.thought.calls import CallRules
from ponder.thought.drive import Driver
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.exits.finish_now import FinishNow
from ponder.thought.format import Close, CompiledFormat
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Thought
from server.thought.helpers import (
    EOS,
    HARMONY,
    PROMPT,
    SINGLE,
    SPECIAL,
    SPELT,
    Life,
    compiled,
    plan,
    tokens,
)
from server.thought.test_invariants import Case, cases, decode, examples

AT_BIRTH = -1


@dataclass
class Finished(Life):
    """A life that was asked to finish; `thought_then` says of each time whether it was thinking."""

    thought_then: list[bool] = field(default_factory=list)


class Pressing(ScriptedEngine):
    """Presses a button in front of some of its chunks, which it counts over all requests.

    Where it is `slow`, the loop has a turn before the chunk comes.
    """

    def __init__(self, *args: object, at: Collection[int], slow: bool, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._at = at
        self._slow = slow
        self._told = 0
        self.press: Callable[[], None] = lambda: None

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        async with aclosing(super().generate(request)) as stream:
            async for chunk in stream:
                number, self._told = self._told, self._told + 1
                if number in self._at:
                    self.press()
                    if self._slow:
                        await asyncio.sleep(0)
                yield chunk


def lived(
    engine: Pressing,
    *,
    plan: Plan,
    vocabulary: ByteVocabulary = SINGLE,
    form: CompiledFormat | None = None,
    sampling: Sampling | None = None,
    rules: AnswerRules | None = None,
    close: Close | None = None,
    at_birth: bool = False,
) -> Finished:
    """Live a life whose engine presses the button; `at_birth` also before it begins."""
    exit = FinishNow()
    thought = Thought(
        vocabulary,
        form or compiled(vocabulary),
        prompt=PROMPT,
        plan=plan,
        sampling=sampling or Sampling(max_tokens=1),
        rules=rules or AnswerRules(),
        close=close,
        exits=[exit],
    )
    life = Finished(engine, thought.outcome)

    async def scenario() -> None:
        driver = Driver(thought, engine, "r", life.deltas.append)

        def press() -> None:
            life.thought_then.append(thought.thinking)
            if thought.thinking:
                exit.asked = True
            driver.wake()

        engine.press = press
        if at_birth:
            press()
        await driver.run()

    try:
        asyncio.run(scenario())
    except NoAnswerProduced as error:
        life.failure = error
    assert engine.unfinished() == 0
    return life


def live(
    case: Case, at: Collection[int], *, slow: bool = False, chunks: tuple[int, ...]
) -> Finished:
    engine = Pressing(tokens(*case.says), case.vocabulary, chunk_sizes=chunks, at=at, slow=slow)
    return lived(
        engine,
        plan=case.plan,
        vocabulary=case.vocabulary,
        form=compiled(case.vocabulary, case.opened_by),
        sampling=case.sampling,
        rules=case.rules,
        at_birth=AT_BIRTH in at,
    )


MOMENTS = st.integers(AT_BIRTH, 60)


@examples
@given(cases(), MOMENTS, st.booleans())
def test_nothing_changes_once_the_thought_is_over(case: Case, at: int, slow: bool) -> None:
    one, plain = (live(case, moments, slow=slow, chunks=case.chunk_sizes) for moments in ({at}, ()))
    assume(not any(one.thought_then))
    for life in (one, plain):
        for name in ("first_token_at", "thought_ended_at", "first_answer_at", "ended_at"):
            setattr(life.outcome, name, None)
    assert one.outcome == plain.outcome
    assert one.engine.requests == plain.engine.requests
    assert (one.reasoning, one.content) == (plain.reasoning, plain.content)


@examples
@given(cases(), MOMENTS, st.booleans())
def test_an_open_thought_is_closed_where_it_is(case: Case, at: int, slow: bool) -> None:
    assume(not case.reopens)
    one, plain = (live(case, moments, slow=slow, chunks=case.chunk_sizes) for moments in ({at}, ()))
    assume(any(one.thought_then))
    outcome = one.outcome
    assert outcome.thinking_tokens <= plain.outcome.thinking_tokens
    assert plain.reasoning.startswith(one.reasoning)
    if outcome.end_cause != "finish_now":  # the model answered without one, or ended it first
        assert case.opened_by == "model" or at == AT_BIRTH
        assert outcome.end_cause == plain.outcome.end_cause
        return
    assert outcome.answer_forced
    before = next(prompt for prompt in one.prompts if len(prompt) > len(PROMPT))
    kept = before[len(PROMPT) : -len(case.close)]
    assert before[-len(case.close) :] == case.close
    text, half = decode(kept, case.vocabulary)
    assert not half and "</think>" not in text and "<tool_call>" not in text
    if case.opened_by == "template":
        assert len(kept) == outcome.thinking_tokens


@examples
@given(cases(), st.sets(MOMENTS, min_size=1, max_size=4), st.booleans())
def test_the_promises_hold_however_often_it_is_asked(case: Case, at: set[int], slow: bool) -> None:
    life = live(case, at, slow=slow, chunks=case.chunk_sizes)
    outcome = life.outcome
    assert outcome.thinking_tokens == outcome.audited_tokens <= case.plan.budget
    assert outcome.completion_tokens <= case.plan.allowance
    assert outcome.forced_tokens % len(case.close) == 0
    for prompt, sampling in life.engine.requests:
        assert len(prompt) - len(PROMPT) + sampling.max_tokens <= case.plan.allowance
    if life.failure is None and not life.content.strip():
        last = life.engine.outputs[-1]
        stopped = any(stop in decode(last, case.vocabulary)[0] for stop in case.rules.stop)
        assert stopped or not set(last).isdisjoint(case.rules.stop_token_ids)


@settings(examples, suppress_health_check=[HealthCheck.filter_too_much])  # many end before
@given(cases(), MOMENTS, st.booleans())
def test_the_parts_are_what_the_engine_was_asked_and_sampled(
    case: Case, at: int, slow: bool
) -> None:
    assume(not case.reopens)
    life = live(case, {at}, slow=slow, chunks=(1,))
    assume(life.outcome.end_cause == "finish_now")
    outputs = life.engine.outputs
    appended = len(life.prompts[-1]) - len(PROMPT)
    # The cut drops what was sampled past it; a retry goes on without the EOS before it.
    eos = sum(output[-1] == EOS for output in outputs[-2:-1]) if life.outcome.retry_tokens else 0
    assert life.outcome.completion_tokens == appended + len(outputs[-1]) + eos


# -- examples ----------------------------------------------------------------------------------

FORMS = {
    "single": (SINGLE, compiled(SINGLE)),
    "spelt": (SPELT, compiled(SPELT)),
    "special": (SPECIAL, CompiledFormat.of(HARMONY, "template", SPECIAL)),
}


def pressed(
    *texts: str,
    at: Collection[int],
    vocabulary: ByteVocabulary = SINGLE,
    slow: bool = False,
    **options: Any,
) -> Finished:
    engine = Pressing(say(*texts, vocabulary=vocabulary), vocabulary, at=at, slow=slow)
    options.setdefault("plan", plan(100))
    return lived(engine, vocabulary=vocabulary, **options)


@pytest.mark.parametrize("slow", [False, True])
def test_before_the_first_token_nothing_is_thought(slow: bool) -> None:
    life = pressed("I add.", "42", at={0}, slow=slow)
    assert (life.reasoning, life.content, life.outcome.end_cause) == ("", "42", "finish_now")
    assert life.counts == (0, len(compiled().close.ids), 3, 0)
    assert len(life.prompts) == 2


def test_before_it_begins_the_engine_is_not_even_asked_for_a_thought() -> None:
    life = pressed("42", at=(), at_birth=True)
    assert (life.reasoning, life.content, life.outcome.end_cause) == ("", "42", "finish_now")
    assert life.prompts == [[*PROMPT, *compiled().close.ids]]


def test_a_thought_that_the_model_opens_is_closed_when_it_opens() -> None:
    form = compiled(SINGLE, "model")
    life = pressed("\n<think>I add.", "42", at={0}, form=form)
    assert life.prompts[1] == [*PROMPT, ord("\n"), SINGLE.THINK, *form.close.ids]
    assert (life.reasoning, life.content, life.outcome.end_cause) == ("", "42", "finish_now")
    none = pressed("42", at={0}, form=form)
    assert (none.content, none.outcome.end_cause) == ("42", "natural")


def test_the_least_thought_does_not_hold_against_the_users_word() -> None:
    life = pressed("I add.", "42", at={3}, plan=plan(100, min_thinking=50))
    assert (life.reasoning, life.content, life.outcome.end_cause) == ("I a", "42", "finish_now")


def test_a_cut_does_not_wait_for_a_clean_end() -> None:
    life = pressed("I add 40 and 2.\n", "42", at={7}, plan=plan(16, grace=16))
    assert (life.reasoning, life.outcome.end_cause) == ("I add 4", "finish_now")


@pytest.mark.parametrize("said", ["ab</think>42", "abcde"])
def test_whoever_ended_the_thought_first_is_its_cause(said: str) -> None:
    cause = "natural" if "</think>" in said else "budget"
    life = pressed(said, "42", at={5}, plan=plan(4))
    assert life.thought_then == [False]
    assert (life.outcome.end_cause, life.content) == (cause, "42")


@pytest.mark.parametrize("name", FORMS)
def test_a_finished_thought_is_not_opened_again(name: str) -> None:
    vocabulary, form = FORMS[name]
    answer = f"c {form.start.text}de{form.end.text}f"
    life = pressed("ab", answer, "f", at={2}, vocabulary=vocabulary, form=form)
    assert (life.reasoning, life.outcome.end_cause) == ("ab", "finish_now")
    assert life.outcome.thinking_tokens == life.outcome.audited_tokens == 2
    assert life.content.startswith("c ")
    assert "de" not in life.reasoning


@pytest.mark.parametrize("slow", [False, True])
def test_another_block_is_closed_as_the_first_one_is(slow: bool) -> None:
    said = "ab</think>c <think>de"
    life = pressed(said, "f", at={len("ab_c _d")}, slow=slow)
    assert life.thought_then == [True]
    assert (life.reasoning, life.content) == ("abd", "c \n\nf")
    assert (life.outcome.end_cause, life.outcome.thinking_tokens) == ("finish_now", 3)
    sampled = len("ab_c _d") + len("f") + 1
    assert life.outcome.completion_tokens == sampled + len(compiled().close.ids)


@pytest.mark.parametrize("slow", [False, True])
def test_a_button_pressed_twice_loses_nothing_of_the_answer(slow: bool) -> None:
    """The close text ends in the answer's first words, which are certain once it closes."""
    close = Close(tuple(SINGLE.encode("</think>\n\nIt is ")), shown="\n\nIt is ")

    class Twice(Pressing):
        async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
            press = self.press
            self.press = lambda: [press() for _ in range(3)]  # type: ignore[assignment]
            async with aclosing(super().generate(request)) as stream:
                async for chunk in stream:
                    yield chunk

    engine = Twice(say("I add.", "42", vocabulary=SINGLE), SINGLE, at={2}, slow=slow)
    life = lived(engine, plan=plan(100), close=close)
    assert life.thought_then == [True, False, False]
    assert (life.reasoning, life.content) == ("I ", "It is 42")


def test_a_format_holds_the_answer_behind_a_finished_thought() -> None:
    grammar = Grammar("regex", "[0-9]+")
    life = pressed("I add.", "42", at={3}, rules=AnswerRules(grammar=grammar))
    assert (life.reasoning, life.content, life.outcome.end_cause) == ("I a", "42", "finish_now")
    assert [sampling.grammar for sampling in life.samplings] == [None, grammar]
    assert life.outcome.retry_tokens == 0


def test_a_call_follows_a_finished_thought_and_is_never_cut() -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 40}}\n</tool_call>'
    rules = AnswerRules(calls=CallRules(HermesParser))
    for at in (3, 6, 7, 8, 30):
        life = pressed(f"I add.{call}", call, at={at}, rules=rules)
        parts = [event.arguments for event in life.deltas if isinstance(event, CallPart)]
        assert "".join(parts) == '{"a": 40}'
        assert life.outcome.end_cause == ("finish_now" if at <= 6 else "natural")


def test_a_block_that_is_closed_while_its_request_waits_is_never_asked_for() -> None:
    """The button is pressed while the request before it is still being aborted."""

    class Lingering(Pressing):
        async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
            try:
                async with aclosing(super().generate(request)) as stream:
                    async for chunk in stream:
                        yield chunk
            finally:
                if len(self.requests) == 2:
                    self.press()
                    await asyncio.sleep(0)
                    left.append(request.id)

    left: list[str] = []
    rules = AnswerRules(min_tokens=1)  # thought and answer are requests of their own
    script = say("ab</think>", "c <think>", "f", vocabulary=SPELT)
    engine = Lingering(script, SPELT, at=(), slow=False)
    life = lived(engine, plan=plan(100), vocabulary=SPELT, rules=rules)
    assert left == ["r-1"]
    assert life.thought_then == [True]
    assert (life.reasoning, life.content) == ("ab", "c \n\nf")
    assert life.outcome.end_cause == "finish_now"
    assert len(life.prompts) == 3
    assert life.prompts[2][-len(compiled(SPELT).close.ids) :] == list(compiled(SPELT).close.ids)
