"""Thoughts that share a budget: no token too many, every token counted once, by tokens alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.checkpoint.chat import Prompt
from ponder.engine.protocol import EngineError, Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine
from ponder.protocol.fields import StrategyAsk
from ponder.protocol.response import StrategyReport
from ponder.server.strategies.group import Group
from ponder.server.strategies.place import PARTS, Home
from ponder.server.strategies.protocol import Score
from ponder.thought.answer import AnswerDelta
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.exits.deadline import Deadline
from ponder.thought.exits.exit import Exit
from ponder.thought.outcome import Outcome, ThoughtDelta
from ponder.thought.pace import Pace
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Event, Thought
from server.thought.helpers import EOS, PROMPT, SINGLE, compiled, plan

METHODS = ("self_consistency", "best_of", "particles")


class Model:
    """Its n-th thought is the n-th capital, as often as `lengths` says; then it is answered.

    A thought that is gone on from, a copy too, goes on as it began.
    """

    def __init__(
        self, lengths: Sequence[int], answers: Sequence[str], *, opens: bool = False
    ) -> None:
        self.lengths, self.answers = lengths, answers
        self.begun = 0
        self._opens = [SINGLE.THINK] * opens

    def __call__(self, prompt: Sequence[int], _number: int) -> Iterator[int]:
        said = [*prompt[len(PROMPT) :]]
        if said[: len(self._opens)] == self._opens:
            said = said[len(self._opens) :]
        else:
            yield from self._opens
        closed = bool(said) and said[-len(CLOSE) :] == CLOSE
        if not said:
            self.begun += 1
        thought = bool(said) and ord("A") <= said[0] < ord("A") + len(self.lengths)
        place = said[0] - ord("A") if thought else self.begun - 1
        answer = [*self.answers[place].encode(), EOS]
        if closed:
            yield from answer
            return
        whole = [*[ord("A") + place] * self.lengths[place], SINGLE.END_THINK, *answer]
        yield from whole[len(said) :]


CLOSE = list(compiled().close.ids)


@dataclass
class Said:
    """What a group came to."""

    outcome: Outcome
    report: StrategyReport
    engine: ScriptedEngine
    events: list[Event] = field(default_factory=list)
    failure: NoAnswerProduced | None = None

    @property
    def answer(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, AnswerDelta))

    @property
    def thought(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, ThoughtDelta))

    @property
    def thinking(self) -> list[int]:
        return [answer.thinking_tokens for answer in self.report.answers]

    @property
    def causes(self) -> list[str]:
        return [answer.end_cause for answer in self.report.answers]


def think(
    lengths: Sequence[int],
    answers: Sequence[str],
    budget: int,
    *,
    method: str = "self_consistency",
    script: Callable[[Sequence[int], int], Iterator[int]] | None = None,
    chunk_sizes: Sequence[int] = (1,),
    opened_by: Literal["template", "model"] = "template",
    score: Score | None = None,
    seed: int | None = 0,
    exits: Sequence[Exit] = (),
    beside: Callable[[Group], Awaitable[None]] | None = None,
    delay: float = 0.0,
    allowance: int = 2000,
    **asked: Any,
) -> Said:
    """Live a group on a scripted engine; `beside` runs beside it."""
    model = script or Model(lengths, answers, opens=opened_by == "model")
    engine = ScriptedEngine(model, SINGLE, chunk_sizes=chunk_sizes, delay=delay)
    form = compiled(opened_by=opened_by)
    shared = plan(budget, allowance=allowance)
    prompt = Prompt([*PROMPT], shared, form, form.close)
    ask = StrategyAsk.model_validate({"method": method, "n": len(lengths), **asked})
    events: list[Event] = []

    def make(number: int, more: Sequence[Exit]) -> Thought:
        sampling = Sampling(max_tokens=1, seed=None if seed is None else seed + number)
        return Thought(
            *(SINGLE, form),
            prompt=PROMPT,
            plan=shared,
            sampling=sampling,
            rules=AnswerRules(),
            exits=[*more, *exits],
        )

    async def live() -> tuple[Group, NoAnswerProduced | None]:
        home = Home(engine, "r", Pace())
        group = Group(
            *(ask, prompt, home, make, events.append),
            vocabulary=SINGLE,
            score=score,
            seed=seed,
        )
        task = asyncio.create_task(group.live())
        if beside is not None:
            await beside(group)
        return group, await task

    group, failure = asyncio.run(live())
    assert engine.unfinished() == 0
    said = Said(group.outcome, group.report(), engine, events, failure)
    counted(said, group)
    return said


def counted(said: Said, group: Group) -> None:
    """What holds however it went."""
    outcome, report = said.outcome, said.report
    assert outcome.thinking_tokens <= report.token_budget
    assert outcome.audited_tokens == outcome.thinking_tokens
    for part in PARTS:
        assert getattr(outcome, part) == sum(getattr(row, part) for row in report.answers)
        assert all(getattr(row, part) >= 0 for row in report.answers)
    assert outcome.completion_tokens == group.spent_tokens
    sampled = sum(map(len, said.engine.outputs))
    assert outcome.completion_tokens - outcome.forced_tokens <= sampled
    if said.failure is None:
        assert said.answer == report.answers[report.chosen].answer


async def longest(text: str) -> float | None:
    """A verifier: the longer the better."""
    return min(len(text) / 100, 1.0)


def divided(lengths: Sequence[int], budget: int) -> list[int]:
    """What each thought gets of a budget: in equal steps, for as long as there are some to make."""
    level = 0
    while wanting := [length for length in lengths if length > level]:
        spent = sum(min(length, level) for length in lengths)
        step = (budget - spent) // len(wanting)
        if not step:
            break
        level += step
        if sum(min(length, level) for length in lengths) == spent:
            break
    return [min(length, level) for length in lengths]


LENGTHS = st.lists(st.integers(1, 80), min_size=2, max_size=6)


@given(LENGTHS, st.integers(0, 250), st.sampled_from([(1,), (32,), (3, 7)]))
@settings(deadline=None)
def test_a_budget_is_divided_by_tokens_alone(
    lengths: list[int], budget: int, chunks: tuple[int, ...]
) -> None:
    """What a thought that ends leaves flows to the others, whatever the size of chunks."""
    said = think(lengths, ["42"] * len(lengths), budget, chunk_sizes=chunks)
    if not budget:
        assert set(said.causes) == {"disabled"}
        return
    got = divided(lengths, budget)
    assert said.thinking == got
    for cause, length, had in zip(said.causes, lengths, got, strict=True):
        assert cause == ("natural" if had == length else "budget")
    over = [length for length, had in zip(lengths, got, strict=True) if had < length]
    assert not over or budget - sum(got) < len(over)


@given(
    LENGTHS,
    st.integers(1, 250),
    st.sampled_from([(1,), (32,)]),
    st.data(),
    st.sampled_from(["template", "model"]),
    st.booleans(),
)
@settings(deadline=None)
def test_particles_stay_within_the_budget_and_repeat_themselves(
    lengths: list[int],
    budget: int,
    chunks: tuple[int, ...],
    data: st.DataObject,
    opened_by: Literal["template", "model"],
    verified: bool,
) -> None:
    answers = data.draw(
        st.lists(st.sampled_from(["1", "2", "none"]), min_size=len(lengths), max_size=len(lengths))
    )
    options: dict[str, Any] = {"method": "particles", "interval": 32, "answer": "number"}
    if verified:
        options["score"] = longest
    said = think(lengths, answers, budget, chunk_sizes=chunks, opened_by=opened_by, **options)
    assert said.failure is None
    again = think(lengths, answers, budget, chunk_sizes=(5,), opened_by=opened_by, **options)
    assert (again.report, again.answer) == (said.report, said.answer)
