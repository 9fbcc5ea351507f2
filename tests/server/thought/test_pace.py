"""How fast an engine was of late: what is measured, what counts, and what a driver tells it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator
from copy import deepcopy
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.engine.protocol import Chunk, EngineRequest, Sampling
from ponder.engine.scripted import ScriptedEngine, say
from ponder.thought import drive as driving
from ponder.thought.outcome import Outcome
from ponder.thought.pace import (
    ANSWERS,
    FIRSTS,
    FRESH_SECONDS,
    JUDGED,
    LATE_SHARE,
    LEAST,
    LEAST_JUDGED,
    MOST,
    SPAN,
    SPAN_SECONDS,
    SPANS,
    UNJUDGED,
    Foreseen,
    Pace,
    Timing,
)
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Thought
from server.thought.helpers import PROMPT, SINGLE, compiled, plan

times = st.lists(st.integers(1, 1000).map(lambda n: n / 64), min_size=1, max_size=40)


def thought() -> Thought:
    return Thought(
        SINGLE,
        compiled(),
        prompt=PROMPT,
        plan=plan(14),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
    )


def test_nothing_is_known_before_the_first_token() -> None:
    pace = Pace()
    assert pace.seconds(100, 0.0) == 0.0
    assert pace.tokens(1.0, 0.0) is None
    assert pace.answer is None


@given(times, times)
def test_nine_in_ten_were_as_fast(firsts: list[float], gaps: list[float]) -> None:
    pace = Pace()
    for seconds in firsts:
        pace.first(seconds, 0.0)
    for seconds in gaps:
        pace.later(seconds, 1, 0.0)
    first, gap = pace.foresee(0.0)
    for reckoned, measured in ((first, firsts), (gap, gaps)):
        assert reckoned in measured
        slower = sum(seconds > reckoned for seconds in measured)
        assert slower <= len(measured) / 10 < sum(seconds >= reckoned for seconds in measured)


@given(st.integers(1, 64), st.integers(1, 100))
def test_a_gap_is_shared_by_its_tokens(tokens: int, count: int) -> None:
    whole, streamed = Pace(), Pace()
    for _ in range(count):
        whole.later(tokens / 64, tokens, 0.0)
        for _ in range(tokens):
            streamed.later(1 / 64, 1, 0.0)
    assert whole.seconds(100, 0.0) == streamed.seconds(100, 0.0) == 100 / 64


def test_a_chunk_without_tokens_is_no_gap() -> None:
    pace = Pace()
    pace.later(5.0, 0, 0.0)
    assert pace.seconds(100, 0.0) == 0.0


def test_the_last_ones_count() -> None:
    pace = Pace()
    for kind, size in ((pace.first, FIRSTS), (lambda s, now: pace.later(s, 1, now), SPANS)):
        for seconds in (8.0, 1.0):
            for _ in range(size):
                kind(seconds, 0.0)
    for length in (800, 100):
        for _ in range(ANSWERS):
            pace.answered(length)
    assert (*pace.foresee(0.0), pace.answer) == (1.0, 1.0, 100)


def test_old_times_are_forgotten_and_lengths_are_not() -> None:
    pace = Pace()
    pace.first(9.0, 0.0)
    pace.answered(12)
    assert pace.seconds(1, FRESH_SECONDS) == 9.0
    assert pace.seconds(1, FRESH_SECONDS + 1) == 0.0  # a silent engine
    assert pace.tokens(9.0, FRESH_SECONDS + 1) is None
    assert pace.answer == 12


def test_the_newest_of_a_kind_counts_while_tokens_come() -> None:
    """One long thought alone has no other first token than its own."""
    pace = Pace()
    pace.first(9.0, 0.0)
    pace.first(2.0, 1.0)
    for at in range(2, 100):
        pace.later(0.5, 1, float(at))
    assert pace.seconds(1, 30.0) == 9.5
    assert pace.seconds(1, 32.0) == 2.5
    assert pace.seconds(1, 99.0 + FRESH_SECONDS) == 2.5
    assert pace.seconds(1, 99.5 + FRESH_SECONDS) == 0.0


@given(st.integers(1, 500), st.integers(1, 64), st.integers(0, 2000))
def test_as_many_tokens_fit_as_take_no_longer(first: int, gap: int, left: int) -> None:
    pace, seconds = Pace(), left / 64
    pace.first(first / 64, 0.0)
    pace.later(gap / 64, 1, 0.0)
    fit = pace.tokens(seconds, 0.0)
    assert fit is not None
    assert fit == 0 or pace.seconds(fit, 0.0) <= seconds
    assert pace.seconds(fit + 1, 0.0) > seconds


def test_it_is_asked_in_one_thread_while_another_measures() -> None:
    pace, over = Pace(), threading.Event()

    def measure() -> None:
        while not over.is_set():
            pace.first(1.0, 0.0)
            pace.later(1.0, 1, 0.0)
            pace.answered(7)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=measure)
    thread.start()
    try:
        for _ in range(5000):
            assert pace.seconds(3, 0.0) in (0.0, 1.0, 3.0, 4.0)
            assert pace.answer in (None, 7)
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)


def test_forks_share_it() -> None:
    pace = Pace()
    assert deepcopy([pace]) == [pace]


@pytest.mark.parametrize("chunk", [1, 7])
def test_a_driver_tells_what_its_engine_does(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Each look at the clock is a second later: a driver looks before a request, then per chunk."""
    clock = iter(range(1000))
    monkeypatch.setattr(driving, "_clock", lambda: float(next(clock)))

    class Told(Pace):
        def __init__(self) -> None:
            super().__init__()
            self.firsts: list[tuple[float, bool]] = []
            self.laters: list[tuple[float, int, float]] = []
            self.judged: list[tuple[int, float]] = []

        def judge(self, foreseen: Foreseen, tokens: int, seconds: float) -> None:
            self.judged.append((tokens, seconds))

        def first(self, seconds: float, now: float, *, continues: bool = False) -> None:
            self.firsts.append((seconds, continues))

        def later(self, seconds: float, tokens: int, now: float) -> None:
            self.laters.append((seconds, tokens, now))

    told = Told()
    engine = ScriptedEngine(say("x" * 99, "42", vocabulary=SINGLE), SINGLE, chunk_sizes=(chunk,))

    async def live() -> Outcome:
        return await driving.Driver(thought(), engine, "r", lambda _: None, told).run()

    outcome = asyncio.run(live())
    assert told.firsts == [(1.0, False), (1.0, True)]  # the thought's and the answer's
    assert len(told.laters) + 2 == sum(-(-len(said) // chunk) for said in engine.outputs)
    assert {seconds for seconds, _, _ in told.laters} <= {1.0}
    assert all(tokens <= chunk for _, tokens, _ in told.laters)
    assert all(before < after for (*_, before), (*_, after) in pairwise(told.laters))
    assert told.answer == outcome.answer_tokens == 3
    assert told.judged == [(3, -(-3 // chunk))]  # the answer's request, and not the thought's


@pytest.mark.parametrize(
    ("gap", "spans"),
    [(1 / 64, [16, 16, 7]), (1 / 32, [8, 8, 8, 8, 7]), (0.5, [1] * 39)],
)
def test_a_span_has_16_tokens_or_a_quarter_of_a_second(gap: float, spans: list[int]) -> None:
    class Told(Pace):
        def later(self, seconds: float, tokens: int, now: float) -> None:
            told.append((seconds, tokens))

    told: list[tuple[float, int]] = []
    timing = Timing(Told(), 0.0, continues=False, answers=False)
    for token in range(40):
        timing.heard(1, token * gap, last=token == 39)
    assert told == [(tokens * gap, tokens) for tokens in spans]
    assert sum(spans) == 39  # the first token has no gap
    assert SPAN * (1 / 64) == SPAN_SECONDS


def test_an_answer_that_is_given_up_was_slow_too() -> None:
    pace = Pace()
    pace.later(1.0, 1, 0.0)
    for number in range(JUDGED):
        timing = Timing(pace, 0.0, continues=True, answers=True)
        timing.given_up(2, 6.0)
        timing.over(99, 0.0)  # the end that follows is none of its own
        assert len(pace._ratios) == number + 1
    assert pace.safety == 3.0


def test_an_answer_that_is_given_up_in_time_says_nothing() -> None:
    """Else refusals and clients that leave would lower the safety of all."""
    pace = Pace()
    pace.later(1.0, 1, 0.0)
    for seconds in (0.0, 1.0, 4.0):
        timing = Timing(pace, 0.0, continues=True, answers=True)
        timing.given_up(2, seconds)
        assert not pace._ratios
    timing.given_up(2, 4.5)
    assert list(pace._ratios) == [2.25]


def test_a_driver_judges_an_answer_that_its_client_gives_up() -> None:
    class Stalling(ScriptedEngine):
        async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
            if self.requests:
                stalls.set()
                await asyncio.Event().wait()
            async for chunk in super().generate(request):
                yield chunk

    class Told(Pace):
        def judge(self, foreseen: Foreseen, tokens: int, seconds: float) -> None:
            judged.append(tokens)

    judged: list[int] = []
    stalls = asyncio.Event()
    engine = Stalling(say("x" * 99, "42", vocabulary=SINGLE), SINGLE)

    async def live() -> None:
        task = asyncio.create_task(
            driving.Driver(thought(), engine, "r", lambda _: None, Told()).run()
        )
        await stalls.wait()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(live())
    assert judged == [0]


def test_what_is_not_known_teaches_nothing() -> None:
    pace = Pace()
    pace.first(0.25, 0.0)
    for _ in range(JUDGED):
        pace.judge(pace.foresee(0.0), 5, 9.0)
    assert pace.safety == UNJUDGED
    pace.later(0.5, 2, 0.0)
    assert pace.foresee(0.0) == Foreseen(0.25, 0.25)
    for count in range(1, LEAST_JUDGED + 1):
        assert pace.safety == UNJUDGED
        pace.judge(pace.foresee(0.0), 5, 2.5 * 1.5)
        assert len(pace._ratios) == count
    assert pace.safety == 2.5


def test_a_request_that_continues_a_thought_waits_as_such_did() -> None:
    pace = Pace()
    pace.first(2.0, 0.0)
    pace.later(0.5, 1, 0.0)
    assert pace.foresee(0.0, continues=True) == Foreseen(2.0, 0.5)  # none was measured
    pace.first(0.25, 0.0, continues=True)
    assert pace.foresee(0.0, continues=True) == Foreseen(0.25, 0.5)
    assert pace.foresee(0.0) == Foreseen(2.0, 0.5)
    assert pace.tokens(4.0, 0.0) == 4  # of a thought that has not begun


def test_no_old_wait_of_a_thought_that_was_continued_counts() -> None:
    """It came of an overload that is long over, while first tokens come fast."""
    pace = Pace()
    pace.first(8.0, 0.0, continues=True)
    pace.first(0.25, 7200.0)
    assert pace.foresee(7200.0, continues=True).first == 0.25
    pace.first(0.5, 7201.0, continues=True)
    assert pace.foresee(7201.0, continues=True).first == 0.5


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([1.0, 0.25]))
def test_one_answer_in_500_takes_longer_than_its_safety(dice: Random, spread: float) -> None:
    """Of answers in any order, as many exceed what the others say as the theorem allows."""
    ratios = [LEAST + 1 + spread * dice.random() for _ in range(JUDGED)]
    late = 0
    for left_out in range(0, JUDGED, 4):
        pace = Pace()
        for index, ratio in enumerate(ratios):
            if index != left_out:
                pace.judge(Foreseen(2.0, 0.5), 10, ratio * 7.0)
        late += ratios[left_out] > pace.safety
    assert late <= LATE_SHARE * JUDGED


@pytest.mark.parametrize(("answers", "rank"), [(499, 499), (500, 500), (999, 998), (1000, 999)])
def test_the_safety_is_the_rank_that_the_theorem_asks_for(answers: int, rank: int) -> None:
    pace = Pace()
    for number in range(1, answers + 1):
        pace.judge(Foreseen(0.5, 0.5), 1, 2 + number / 1000)
    assert pace.safety == pytest.approx(2 + rank / 1000)


@pytest.mark.parametrize(("ratio", "safety"), [(0.1, LEAST), (1.5, 1.5), (99.0, MOST)])
def test_the_safety_has_bounds_and_forgets(ratio: float, safety: float) -> None:
    pace = Pace()
    for each in (3.0, ratio):
        for _ in range(JUDGED):
            pace.judge(Foreseen(0.5, 0.5), 1, each)
    assert pace.safety == pytest.approx(safety)


def test_one_answer_out_of_the_way_does_not_count() -> None:
    pace = Pace()
    for each in (9.0, *[1.5] * (JUDGED - 1)):
        pace.judge(Foreseen(0.5, 0.5), 1, each)
    assert pace.safety == pytest.approx(1.5)
