"""Which budget an effort is, by a calibrated curve."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curves import EPSILON, curves, points
from ponder.thought.budget import EFFORT_TOKENS
from ponder.thought.curve import EFFORT_GAINS, Curve, free_last

BUDGETS = (0, 16, 64, 256, 1024, -1)
shares = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
accuracies = st.lists(shares, min_size=1, max_size=len(BUDGETS))


def curve(*accuracies: float) -> Curve:
    """A curve with these accuracies at the first of the budgets, no limit last."""
    budgets = [*BUDGETS[: len(accuracies) - 1], BUDGETS[-1]] if len(accuracies) > 1 else [0]
    return curves({"sums": dict(zip(budgets, accuracies, strict=True))}).tasks["sums"]


def at(curve: Curve, budget: int) -> float:
    return next(point.accuracy for point in curve.points if point.budget == budget)


@given(accuracies)
def test_efforts_ascend_whatever_the_curve(accuracies: list[float]) -> None:
    efforts = list(curve(*accuracies).efforts.values())
    assert efforts == sorted(efforts, key=free_last)
    assert efforts[0] == 0


@given(accuracies, st.sampled_from(sorted(EFFORT_GAINS)))
def test_an_effort_is_the_least_budget_that_reaches_its_share(
    accuracies: list[float], level: str
) -> None:
    of = curve(*accuracies)
    without, best = accuracies[0], max(accuracies)
    wanted = min(without + EFFORT_GAINS[level] * (best - without), best - EPSILON)
    budget = of.effort(level)
    assert at(of, budget) >= wanted - 1e-6
    smaller = [p for p in of.points if free_last(p.budget) < free_last(budget)]
    assert all(point.accuracy < wanted + 1e-6 for point in smaller)


@given(accuracies)
def test_max_is_within_a_point_of_the_best(accuracies: list[float]) -> None:
    of = curve(*accuracies)
    assert at(of, of.effort("max")) >= max(accuracies) - EPSILON - 1e-6


def test_the_levels_of_a_curve() -> None:
    of = curve(0.1, 0.2, 0.4, 0.75, 0.9, 0.905)
    assert of.efforts == {
        "none": 0, "minimal": 16, "low": 64, "medium": 256, "high": 256, "xhigh": 1024,
        "max": 1024,
    }  # fmt: skip
    assert list(of.efforts) == list(EFFORT_TOKENS)


def test_a_thought_that_gains_nothing_is_no_thought() -> None:
    for flat in (curve(0.5), curve(0.5, 0.5, 0.5), curve(0.5, 0.505, 0.5), curve(0.9, 0.2, 0.1)):
        assert set(flat.efforts.values()) == {0}


def test_of_equal_budgets_the_least_is_taken() -> None:
    assert curve(0.0, 0.9, 0.9, 0.9, 0.9).effort("max") == 16


def test_a_curve_that_falls_again_is_not_followed_down() -> None:
    falling = curve(0.0, 0.3, 0.9, 0.5, 0.2)
    assert (falling.effort("max"), falling.effort("minimal")) == (64, 16)


def test_a_task_that_was_not_calibrated_has_the_curve_of_all() -> None:
    found = curves({"sums": {0: 0.1, 64: 0.9}, "roots": {0: 0.9, 64: 0.9}})
    assert found.curve("sums").auto == 64
    assert found.curve("roots").auto == 0
    assert found.curve("poems") is found.curve(None) is found.pooled
    assert [point.accuracy for point in found.pooled.points] == pytest.approx([0.5, 0.9])


def test_the_points_of_all_tasks_come_first() -> None:
    tasks = [point.task for point in points({"sums": {0: 0.1, 64: 0.9}})]
    assert tasks == [None, None, "sums", "sums"]
