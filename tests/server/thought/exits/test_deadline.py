"""A deadline closes a thought so late that it thinks, and so early that its answer comes in time.

The engine of these tests is as fast as its pace says, at any size of chunks; the clock is theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.protocol import Chunk, Sampling
from ponder.thought.exits.budget import Budget
from ponder.thought.exits.deadline import Deadline, Due
from ponder.thought.exits.exit import Close, Exit, GoOn, Progress
from ponder.thought.exits.loop import Loop
from ponder.thought.exits.watch import Watch
from ponder.thought.outcome import Outcome
from ponder.thought.pace import UNJUDGED, Pace
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Thought
from server.thought.helpers import EOS, PROMPT, SINGLE, compiled, plan

TICK = 0.002
EPSILON = 1e-6


@dataclass
class Steady(Pace):
    """An engine that is always as fast."""

    first_s: float
    gap_s: float
    safety: float = UNJUDGED

    def seconds(self, tokens: int, now: float, *, continues: bool = False) -> float:
        return self.first_s + tokens * self.gap_s

    def __deepcopy__(self, _memo: object) -> Steady:
        return self


@dataclass
class Slowing(Pace):
    """An engine that takes `before`, and `after` from the moment `at` on."""

    before: float
    after: float
    at: float
    safety: float = UNJUDGED

    def seconds(self, tokens: int, now: float, *, continues: bool = False) -> float:
        return self.before if now < self.at else self.after


def live(
    pace: Steady,
    *exits: Exit,
    answer: int,
    chunk: int = 1,
    budget: int = 10**6,
    says: list[int] | None = None,
    opened_by: str = "template",
    min_thinking: int = 0,
    grace: int = 0,
) -> tuple[Outcome, int]:
    """A life under a clock of its own, as a driver has it: its outcome, and its requests.

    The model thinks for ever, or `says` so much of its first request, and answers in so many
    tokens, its EOS among them.
    """
    thought = Thought(
        SINGLE,
        compiled(opened_by="model" if opened_by == "model" else "template"),
        prompt=PROMPT,
        plan=plan(budget, allowance=2 * 10**6, min_thinking=min_thinking, grace=grace),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        exits=exits,
    )
    now, requests = 0.0, 0
    thought.start(now)
    while thought.segment is not None:
        segment, requests = thought.segment, requests + 1
        said = [*(says or ())] if segment.number == 0 and says else []
        closed = SINGLE.END_THINK in segment.prompt
        if closed:
            said = [*b"a" * (answer - 1), EOS]
        coming, size = now + pace.first_s + pace.gap_s, 1  # engines report the first token at once
        while thought.segment is segment:
            now = min(coming, thought.wake_at)
            if now < coming:
                thought.tick(now)
                continue
            part = [said.pop(0) if said else ord("x") for _ in range(size)]
            if EOS in part:
                part = part[: part.index(EOS) + 1]
            thought.feed(Chunk(part, "stop" if part[-1] == EOS else None), now)
            size = min(chunk, len(said)) if said else chunk
            coming = now + size * pace.gap_s
    assert thought.outcome.failure is None
    return thought.outcome, requests


milliseconds = st.integers(1, 200).map(lambda n: n / 1000)


@given(
    pace=st.builds(
        Steady,
        milliseconds,
        st.integers(1, 40).map(lambda n: n / 2000),
        st.integers(100, 400).map(lambda n: n / 100),
    ),
    answer=st.integers(2, 40),
    chunk=st.integers(1, 40),
    spare=st.integers(0, 3000).map(lambda n: n / 1000),
)
def test_an_answer_fits_and_no_more_time_is_left_than_its_safety(
    pace: Steady, answer: int, chunk: int, spare: float
) -> None:
    safety, needed = pace.safety, pace.seconds(answer, 0.0)
    due = safety * needed + spare
    outcome, requests = live(pace, Deadline(due, answer, pace), answer=answer, chunk=chunk)
    closed, ended = outcome.thought_ended_at, outcome.ended_at
    assert closed is not None and ended is not None
    assert outcome.end_cause == "deadline"
    assert due - safety * needed - TICK <= closed + EPSILON
    assert closed <= due - safety * needed + EPSILON
    assert due - (safety - 1) * needed - TICK <= ended + EPSILON
    assert ended <= due - (safety - 1) * needed + EPSILON
    assert outcome.answer_tokens == answer
    assert outcome.completion_tokens == (
        outcome.thinking_tokens + outcome.forced_tokens + outcome.answer_tokens
    )
    assert requests <= 2


@given(
    before=st.integers(1, 500).map(lambda n: n / 1000),
    factor=st.integers(100, 200).map(lambda n: n / 100),
    at=st.integers(0, 5000).map(lambda n: n / 1000),
    spare=st.integers(0, 5000).map(lambda n: n / 1000),
)
def test_an_engine_that_takes_twice_as_long_still_answers_in_time(
    before: float, factor: float, at: float, spare: float
) -> None:
    pace = Slowing(before, before * factor, at)
    due = pace.safety * before + spare
    exit, now, looks = Deadline(due, 1, pace), 0.0, 0
    while isinstance(act := exit.look(Progress(now=now)), GoOn):
        assert act.time > now
        assert (act.tokens, act.clean) == (math.inf, math.inf)
        now, looks = act.time, looks + 1
    assert now + pace.seconds(1, now) <= due + EPSILON
    assert now + pace.before <= due + EPSILON
    assert looks <= 3 + math.log2(max(1, due / TICK))


@pytest.mark.parametrize("chunk", [1, 9])
def test_the_least_thought_and_the_grace_do_not_hold_against_it(chunk: int) -> None:
    pace = Steady(0.1, 0.01)
    outcome, _ = live(
        pace,
        Deadline(2.0, 20, pace),
        answer=20,
        chunk=chunk,
        budget=500,
        min_thinking=400,
        grace=450,
    )
    assert (outcome.end_cause, outcome.thought_ended_at) == (
        "deadline",
        pytest.approx(1.4, abs=TICK),
    )
    assert 0 < outcome.thinking_tokens < 400


def test_what_comes_first_is_the_cause() -> None:
    pace = Steady(0.1, 0.01)
    says = [*b"abc", SINGLE.END_THINK, *b"12", EOS]
    for exits, budget, text, cause in (
        ((Deadline(9.0, 20, pace),), 50, None, "budget"),
        ((Deadline(9.0, 20, pace),), 500, says, "natural"),
        ((Deadline(9.0, 20, pace), Loop(64)), 10**6, None, "loop"),
        ((Deadline(0.9, 20, pace), Loop(64)), 10**6, None, "deadline"),
    ):
        outcome, _ = live(pace, *exits, answer=3, budget=budget, says=text)
        assert outcome.end_cause == cause
    at = Progress(thinking=[1], coming=1, now=9.0)
    assert Watch([Budget(1), Deadline(1.0, 1, pace)]).ask(at, woken=True) == "budget"


def test_without_time_for_a_thought_there_is_one_request() -> None:
    pace = Steady(0.1, 0.01)
    outcome, requests = live(pace, Deadline(0.5, 20, pace), answer=20)
    assert (outcome.end_cause, outcome.thinking_tokens, requests) == ("deadline", 0, 1)
    assert outcome.ended_at == pytest.approx(0.3)


def test_a_thought_that_the_model_opens_too_late_is_closed_at_once() -> None:
    pace = Steady(0.4, 0.01)
    outcome, _ = live(
        pace,
        Deadline(1.0, 20, pace),
        answer=20,
        opened_by="model",
        says=[SINGLE.THINK, *b"abc"],
    )
    assert (outcome.end_cause, outcome.thinking_tokens) == ("deadline", 0)


def test_another_block_of_thought_has_no_more_time() -> None:
    pace = Steady(0.1, 0.01)
    due = Deadline(2.0, 20, pace)
    early, late = [*b"ab", SINGLE.END_THINK, *b"42"], [*b"y" * 120]
    once, _ = live(pace, due, answer=20, says=[*early, SINGLE.THINK, *late, *late, EOS])
    assert (once.end_cause, once.thought_ended_at) == ("deadline", pytest.approx(1.4, abs=TICK))
    again, _ = live(pace, due, answer=20, says=[*early, *late, *late, SINGLE.THINK, *late, EOS])
    assert again.end_cause == "deadline"
    assert again.thinking_tokens == 2
    assert again.thought_ended_at == pytest.approx(0.1 + 0.01 * (len(early) + 241))


def test_a_pace_that_is_not_known_closes_when_the_time_is_up() -> None:
    exit = Deadline(8.0, 20, Pace())
    assert exit.look(Progress(now=0.0)) == GoOn(time=4.0)
    assert exit.look(Progress(now=8.0)) == Close("deadline")
    assert exit.room(0.0) is None


def test_a_thought_that_has_begun_leaves_its_answer_no_time_for_the_prompt() -> None:
    pace = Pace()
    pace.first(1.0, 0.0)
    pace.first(0.25, 0.0, continues=True)
    pace.later(0.125, 1, 0.0)
    exit = Deadline(4.0, 8, pace)  # needs 2 s in all before the thought has begun, 1.25 s after
    assert exit.look(Progress(now=0.0)) == Close("deadline")
    for begun in (Progress(thinking=[1]), Progress(coming=1), Progress(overhead=1)):
        assert exit.look(begun) == GoOn(time=0.75)
    assert exit.room(0.0) == 4  # 1.5 s are left: 1 s for the prompt, 4 tokens


def test_the_answer_that_is_expected() -> None:
    pace = Pace()
    given = plan(50, reserve=30)

    def tokens(answer: int | None = None, max_answer: int | None = None) -> int:
        asked = plan(50, reserve=30, max_answer=max_answer)
        return Due(9.0, 0.0, pace, answer).exit(asked).tokens

    assert Due(9.0, 0.0, pace).exit(given) == Deadline(9.0, 30, pace)
    assert (tokens(answer=7), tokens(max_answer=12), tokens(7, 12)) == (7, 12, 7)
    pace.answered(9)
    assert (tokens(), tokens(answer=20), tokens(max_answer=5)) == (9, 20, 5)
    pace.answered(400)
    assert tokens() == 30  # no more than the plan keeps


@given(st.integers(0, 10_000).map(lambda n: n / 1000), st.integers(1, 60))
def test_the_room_is_what_is_left_before_the_close(due: float, answer: int) -> None:
    pace = Pace()
    pace.first(0.125, 0.0)
    pace.later(0.03125, 1, 0.0)
    exit = Deadline(due, answer, pace)
    room = exit.room(0.0)
    assert room is not None
    thinks = pace.seconds(room, 0.0) + pace.safety * pace.seconds(answer, 0.0)
    assert room == 0 or thinks <= due < thinks + 0.03125


def test_a_fork_keeps_the_deadline() -> None:
    pace = Steady(0.1, 0.01)
    living = Thought(
        SINGLE,
        compiled(),
        prompt=PROMPT,
        plan=plan(100),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        exits=[Deadline(2.0, 20, pace)],
    )
    living.start(0.0)
    living.feed(Chunk([*b"ab"]), 0.5)
    for life in (living.fork(), living):
        life.tick(1.5)
        assert (life.outcome.end_cause, life.outcome.thinking_tokens) == ("deadline", 2)
