"""The estimator against its definition, and against simulated experiments whose truth is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.experiment.moments import MIN_CONVERSATIONS, Moments, compare

REPETITIONS = 2000
Array = np.ndarray[Any, Any]
ROWS = st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1e4)), min_size=2, max_size=40)


def moments(rows: list[tuple[int, float]]) -> Moments:
    return sum((Moments.of(count, total) for count, total in rows), start=Moments())


@given(ROWS)
def test_the_mean_and_variance_are_those_of_their_definition(rows: list[tuple[int, float]]) -> None:
    counts, totals = np.array(rows).T
    arm = moments(rows)
    mean = totals.sum() / counts.sum()
    residuals = totals - mean * counts
    expected = residuals.var(ddof=1) * len(rows) / counts.sum() ** 2
    assert arm.mean == pytest.approx(mean)
    assert arm.variance == pytest.approx(expected, rel=1e-6, abs=1e-9 * (1 + mean * mean))


@given(ROWS)
def test_one_request_each_is_the_textbook_mean(rows: list[tuple[int, float]]) -> None:
    totals = np.array([total for _, total in rows])
    arm = moments([(1, total) for _, total in rows])
    expected = totals.var(ddof=1) / len(totals)
    assert arm.variance == pytest.approx(expected, rel=1e-6, abs=1e-9 * (1 + arm.mean**2))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1000)), max_size=40))
def test_sums_grow_with_the_requests_in_any_order(requests: list[tuple[int, int]]) -> None:
    seen: dict[int, tuple[int, int]] = {}
    grown = Moments()
    for conversation, tokens in requests:
        count, total = seen.get(conversation, (0, 0))
        grown += Moments.of(count + 1, total + tokens) - Moments.of(count, total)
        seen[conversation] = (count + 1, total + tokens)
    assert grown == moments([(count, total) for count, total in seen.values()])


def test_too_few_conversations_are_insufficient_data() -> None:
    many = moments([(2, 100.0)] * 3800)
    few = moments([(2, 300.0)] * (MIN_CONVERSATIONS - 1))
    found = compare(many, few, 0.05)
    assert (found.status, found.difference, found.ratio) == ("insufficient data", None, None)
    assert found.more_needed == 2 / 0.05  # one more conversation of two requests, drawn 1 in 20
    enough = compare(many, few + Moments.of(2, 300.0), 0.05)
    assert (enough.status, enough.more_needed) == ("measured", 0)
    assert enough.difference is not None and enough.difference.value == -100
    assert enough.ratio is not None and enough.ratio.value == pytest.approx(1 / 3)


def test_nothing_seen_needs_the_minimum_in_both_arms() -> None:
    assert compare(Moments(), Moments(), 0.05).more_needed == 4000
    assert compare(Moments(), Moments(), 0.0).more_needed is None
    assert compare(Moments(), Moments(), 0.05).means == {"policy": None, "holdout": None}


def test_a_ratio_to_nothing_is_none() -> None:
    some, none = moments([(1, 1.0)] * 200), moments([(1, 0.0)] * 200)
    assert compare(some, none, 0.5).ratio is None
    assert compare(some, none, 0.5).difference is not None


def test_an_arm_without_a_rare_event_is_no_proof_that_it_has_none() -> None:
    """The interval of 0 in 500 leaves room for the one event in 1,000 that the other arm saw."""
    seen, unseen = [(1, 1.0)] * 10 + [(1, 0.0)] * 9490, [(1, 0.0)] * 500
    found = compare(moments(seen), moments(unseen), 0.05)
    assert found.difference is not None and found.means["holdout"] is not None
    assert found.difference.low < 0 < found.difference.value < found.difference.high
    assert 0.001 < found.means["holdout"].high < 0.005
    nothing = compare(moments(unseen), moments(unseen), 0.5)
    assert nothing.difference is not None and nothing.difference.high == 0


def test_rare_events_that_differ_by_chance_are_rarely_called_an_effect() -> None:
    """20,000 experiments with an event in 1,000 requests in both arms."""
    rng = np.random.default_rng(3)
    drawn = zip(rng.binomial(9500, 0.001, 20_000), rng.binomial(500, 0.001, 20_000), strict=True)
    called = 0
    for policy, holdout in drawn:
        found = compare(counted(9500, policy), counted(500, holdout), 0.05).difference
        assert found is not None
        called += not found.low <= 0 <= found.high
    assert called / 20_000 < 0.05


def counted(requests: int, events: int) -> Moments:
    """Conversations of one request each, of which `events` had a value of 1."""
    n, y = float(requests), float(events)
    return Moments(n, n, y, y, y, n)


@dataclass(frozen=True)
class World:
    """Conversations that are alike within and not between, in closed form.

    Conversation i has a weight w_i ~ Gamma of mean 1 and variance `spread`² and asks
    q_i = 1 + Poisson(w_i) questions. A wrong answer is asked for once more. Each request spends
    Gamma tokens with mean m w_i, so that long conversations are the expensive ones. An arm has a
    mean m and an accuracy p: tokens per request are m E[q w] / E[q], with E[q w] = 2 + `spread`²
    and E[q] = 2, and the accuracy per request is p.
    """

    tokens: dict[str, float]
    accuracy: dict[str, float]
    spread: float = 0.5
    shape: float = 2.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(20))

    def truth(self, arm: str) -> float:
        return self.tokens[arm] * (2 + self.spread**2) / 2

    def run(self, arm: str, conversations: int) -> tuple[list[Moments], list[Moments], list[float]]:
        """Tokens and correct answers, and the variance that takes requests for independent."""
        shape = (REPETITIONS, conversations)
        weight = self.rng.gamma(self.spread**-2, self.spread**2, shape)
        questions = 1 + self.rng.poisson(weight)
        first = self.rng.binomial(questions, self.accuracy[arm])
        again = questions - first
        second = self.rng.binomial(again, self.accuracy[arm])
        counts = questions + again
        totals = self.rng.gamma(self.shape * counts, self.tokens[arm] * weight / self.shape)
        spent = sums(counts, totals)
        within = (totals**2 / counts).sum(1) / counts.sum(1) - np.array(
            [m.mean for m in spent]
        ) ** 2
        return spent, sums(counts, first + second), list(within / counts.sum(1))


def sums(counts: Array, totals: Array) -> list[Moments]:
    products = (counts, totals, totals**2, totals * counts, counts**2)
    rows = np.stack([np.full(len(counts), counts.shape[1]), *(p.sum(1) for p in products)], axis=1)
    return [Moments(*map(float, row)) for row in rows]


SAME = {"policy": 0.8, "holdout": 0.8}
WORSE = {"policy": 0.6, "holdout": 0.9}


@pytest.mark.parametrize(
    ("tokens", "accuracy", "held_out"),
    [
        ({"policy": 300.0, "holdout": 300.0}, SAME, MIN_CONVERSATIONS),
        ({"policy": 120.0, "holdout": 400.0}, SAME, MIN_CONVERSATIONS),
        ({"policy": 120.0, "holdout": 400.0}, WORSE, MIN_CONVERSATIONS),
        ({"policy": 250.0, "holdout": 300.0}, WORSE, 400),
    ],
    ids=["no effect", "fewer tokens", "fewer tokens, worse answers", "small effect"],
)
def test_intervals_cover_the_truth_and_nothing_is_biased(
    tokens: dict[str, float], accuracy: dict[str, float], held_out: int
) -> None:
    """2,000 experiments: 95 % intervals cover in 93-97 %, also where a policy worsens answers."""
    world = World(tokens, accuracy)
    policy_spent, policy_right, _ = world.run("policy", 1000)
    holdout_spent, holdout_right, _ = world.run("holdout", held_out)
    share = held_out / (1000 + held_out)
    spent = [compare(p, h, share) for p, h in zip(policy_spent, holdout_spent, strict=True)]
    right = [compare(p, h, share) for p, h in zip(policy_right, holdout_right, strict=True)]
    truth = world.truth("policy") - world.truth("holdout")
    check(truth, [c.difference for c in spent], relative_to=world.truth("holdout"))
    check(tokens["policy"] / tokens["holdout"], [c.ratio for c in spent], relative_to=1)
    check(accuracy["policy"] - accuracy["holdout"], [c.difference for c in right], relative_to=1)


def check(truth: float, found: list[Any], relative_to: float) -> None:
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in found])
    assert 0.93 <= covered <= 0.97
    bias = np.mean([estimate.value for estimate in found]) - truth
    assert abs(bias) <= 0.01 * relative_to


def test_taking_requests_for_independent_would_not_cover() -> None:
    """The reason for the sums over conversations: repeated conversations are no new evidence."""
    world = World({"policy": 300.0, "holdout": 300.0}, SAME)
    arms = [world.run(arm, 400) for arm in ("policy", "holdout")]
    missed = 0
    for policy, holdout, v_policy, v_holdout in zip(
        arms[0][0], arms[1][0], arms[0][2], arms[1][2], strict=True
    ):
        missed += abs(policy.mean - holdout.mean) > 1.96 * math.sqrt(v_policy + v_holdout)
    assert missed / REPETITIONS > 0.1
