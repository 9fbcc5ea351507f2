"""Thoughts that share a budget: no token too many, every token counted once, by tokens alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.checkpoint.chat import Prompt
from ponder.engine.protocol import Chunk, EngineError, EngineRequest, Sampling
from ponder.engine.scripted import ScriptedEngine
from ponder.protocol.fields import StrategyAsk
from ponder.protocol.response import StrategyReport
from ponder.server.strategies.group import Group
from ponder.server.strategies.place import PARTS, Home
from ponder.server.strategies.protocol import Score
from ponder.thought.answer import AnswerDelta
from ponder.thought.errors import NoAnswerProduced
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
    allowance: int = 2000,
    engine: type[ScriptedEngine] = ScriptedEngine,
    **asked: Any,
) -> Said:
    """Live a group on a scripted engine; `beside` runs beside it."""
    model = script or Model(lengths, answers, opens=opened_by == "model")
    playing = engine(model, SINGLE, chunk_sizes=chunk_sizes)
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
        home = Home(playing, "r", Pace())
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
    assert playing.unfinished() == 0
    said = Said(group.outcome, group.report(), playing, events, failure)
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


async def until(true: Callable[[], bool]) -> None:
    """Let the others go on until it is so."""
    while not true():  # noqa: ASYNC110 - whatever a group does there
        await asyncio.sleep(0)


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


LIVES = st.lists(
    st.tuples(st.integers(1, 80), st.sampled_from(["1", "2", "none"])), min_size=2, max_size=6
)


@given(LIVES, st.integers(1, 250), st.sampled_from(["template", "model"]), st.booleans())
@settings(deadline=None)
def test_particles_stay_within_the_budget_and_repeat_themselves(
    lives: list[tuple[int, str]],
    budget: int,
    opened_by: Literal["template", "model"],
    verified: bool,
) -> None:
    lengths, answers = zip(*lives, strict=True)
    options: dict[str, Any] = {"method": "particles", "interval": 32, "answer": "number"}
    if verified:
        options["score"] = longest
    said = think(lengths, answers, budget, opened_by=opened_by, **options)
    assert said.failure is None
    again = think(lengths, answers, budget, chunk_sizes=(5,), opened_by=opened_by, **options)
    assert (again.report, again.answer) == (said.report, said.answer)


class Blank(ScriptedEngine):
    """Says nothing but blanks where the model would have nothing to say."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more, masked_token=ord(" "))


# -- which answer is given ---------------------------------------------------------------------


def test_most_votes_win_and_of_these_the_first() -> None:
    said = think([9] * 5, ["7", "It is 42.", "42", "nothing", "7"], 100, answer="number")
    assert (said.report.chosen, said.answer, said.thought) == (0, "7", "A" * 9)
    assert [row.votes for row in said.report.answers] == [2, 2, 2, 0, 2]
    said = think([9] * 3, ["7", "It is 42.", "42"], 100, answer="number")
    assert (said.report.chosen, said.answer, said.thought) == (1, "It is 42.", "B" * 9)


def test_where_no_answer_says_anything_the_first_is_given() -> None:
    said = think([9] * 2, ["I do not know", "Nor do I"], 100, answer="number")
    assert (said.report.chosen, [row.votes for row in said.report.answers]) == (0, [0, 0])


def test_the_best_score_wins_then_votes() -> None:
    scores = {"7": 0.5, "8": None, "9": 0.5, "1": 0.2}

    async def score(text: str) -> float | None:
        return scores[text]

    answers = ["8", "8", "8", "7", "9", "9", "1"]
    said = think([9] * 7, answers, 100, method="best_of", score=score)
    assert (said.report.chosen, said.answer) == (4, "9")
    assert [row.score for row in said.report.answers] == [scores[text] for text in answers]
    assert [row.votes for row in said.report.answers] == [3, 3, 3, 1, 2, 2, 1]


def test_without_any_score_votes_decide() -> None:
    async def score(text: str) -> float | None:
        return None

    said = think([9] * 3, ["7", "8", "8"], 100, method="best_of", score=score)
    assert (said.report.chosen, said.report.answers[1].score) == (1, None)


def test_a_thought_without_an_answer_does_not_vote() -> None:
    said = think([9] * 3, ["", "", "42"], 100, engine=Blank, allowance=120)
    assert (said.report.chosen, said.failure) == (2, None)
    assert [row.error for row in said.report.answers] == [*["no_answer_produced"] * 2, None]
    assert [row.votes for row in said.report.answers] == [0, 0, 1]
    none = think([9] * 2, ["", ""], 100, engine=Blank, allowance=120)
    assert none.failure is not None and none.events == []


# -- particles ---------------------------------------------------------------------------------

PARTICLES: dict[str, Any] = {"method": "particles", "interval": 32, "answer": "number"}


def test_a_thought_that_promises_nothing_is_replaced_by_a_copy() -> None:
    said = think([200] * 4, ["7", "42", "42", "none"], 280, **PARTICLES)
    rows = said.report.answers
    assert said.report.copies >= 1 and said.answer == "42"
    assert said.thinking == [70] * 4  # the copy goes on where the thought that is gone stood
    assert all(row.probe_tokens for row in rows)
    assert rows[3].answer in ("7", "42")
    assert sum(row.votes for row in rows if row.answer == "42") >= 4
    assert said.thought in ("B" * 70, "C" * 70)


def test_a_verifier_weighs_particles() -> None:
    async def score(text: str) -> float | None:
        return float("42" in text)

    said = think([200] * 4, ["7", "8", "42", "9"], 280, score=score, **PARTICLES)
    assert {row.answer for row in said.report.answers} == {"42"}
    assert (said.report.copies, said.answer) == (3, "42")


def test_other_seeds_draw_others() -> None:
    """Of two votes for one answer and one for another, the one is dropped now and then."""
    copies = {
        think([300] * 3, ["7", "7", "42"], 200, seed=seed, **PARTICLES).report.copies
        for seed in range(12)
    }
    assert len(copies) > 1


def test_a_thought_that_ended_keeps_its_answer() -> None:
    said = think([20, 200, 200, 200], ["5", "42", "42", "42"], 280, **PARTICLES)
    assert said.report.answers[0].answer == "5"
    assert said.thinking[0] == 20


def test_a_probe_that_the_engine_fails_promises_nothing() -> None:
    model = Model([200] * 3, ["7", "8", "9"])
    left = [3]

    def script(prompt: Sequence[int], number: int) -> Iterator[int]:
        if left[0] and list(prompt[-len(CLOSE) :]) == CLOSE:
            left[0] -= 1
            raise EngineError("this probe is none of mine")
        yield from model(prompt, number)

    said = think([200] * 3, ["7", "8", "9"], 150, script=script, **PARTICLES)
    assert (said.report.copies, said.outcome.failed_probes) == (0, 3)


# -- who else may close thoughts ---------------------------------------------------------------


@pytest.mark.parametrize("method", ["self_consistency", "particles"])
def test_finish_now_closes_all_that_think(method: str) -> None:
    async def finish(group: Group) -> None:
        await until(lambda: group.thinking_tokens >= 40)
        assert group.finish() and group.finish()

    said = think([500] * 3, ["42"] * 3, 900, method=method, beside=finish)
    assert set(said.causes) == {"finish_now"}
    assert 40 <= sum(said.thinking) < 100


def test_there_is_nothing_to_finish_once_all_are_answered() -> None:
    groups: list[Group] = []

    async def keep(group: Group) -> None:
        groups.append(group)

    think([5] * 2, ["42"] * 2, 900, beside=keep)
    assert not groups[0].finish()


class Stuck(ScriptedEngine):
    """Gives the second thought three tokens and no more, until it is let go."""

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        given = 0
        async for chunk in super().generate(request):
            yield chunk
            given += 1
            if request.id.startswith("r-1") and given == 3:
                await self.let_go.wait()

    @property
    def let_go(self) -> asyncio.Event:
        if not hasattr(self, "_let_go"):
            self._let_go = asyncio.Event()
        return self._let_go


def test_a_thought_that_is_closed_while_it_waits_is_answered_at_once() -> None:
    """It waits for another to come to its share, and its answer does not."""

    async def finish(group: Group) -> None:
        first, second = group._places
        await until(lambda: first.outcome.thinking_tokens == 50 and not first.driver._living)
        assert first.thinks
        group.finish()
        await until(lambda: first.outcome.ended_at is not None)
        assert second.outcome.ended_at is None
        home = second._home.engine
        assert isinstance(home, Stuck)
        home.let_go.set()

    said = think([500] * 2, ["42 it is"] * 2, 100, beside=finish, engine=Stuck)
    assert said.causes == ["finish_now", "finish_now"]
    assert said.thinking == [50, 3]


def test_an_engine_that_fails_one_thought_fails_the_request() -> None:
    model = Model([50] * 3, ["42"] * 3)

    def script(prompt: Sequence[int], number: int) -> Iterator[int]:
        yield from [*model(prompt, number)][:7]
        raise EngineError("no more")

    with pytest.raises(EngineError, match="no more"):
        think([50] * 3, ["42"] * 3, 150, script=script)


def test_a_limit_of_length_is_named_as_such() -> None:
    """The context leaves each thought 30 tokens, its close text and its answer."""
    room = 30 + len(CLOSE) + 50
    said = think([200] * 2, ["42"] * 2, 1000, allowance=room)
    assert (said.causes, said.thinking) == (["length"] * 2, [30, 30])
