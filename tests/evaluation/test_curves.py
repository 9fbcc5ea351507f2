"""Curves out of measured problems, and the budget that `auto` is."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ponder.evaluation.curves import ENOUGH, EPSILON, Half, Measured, Row, auto, points, rows
from ponder.evaluation.intervals import Estimate, combined, paired
from ponder.thought.curve import Calibration, Curves

from .measured import PROBLEMS, Oracle, measure

BUDGETS = (0, 16, 64, -1)
SHARES = st.sampled_from([0.0, 0.5, 1.0])
HALVES = st.lists(st.tuples(*[SHARES] * len(BUDGETS)), min_size=2, max_size=40)


def half(*problems: tuple[float, ...], free: float = 110.0) -> Half:
    """Problems with these shares of right answers at the budgets; a budget costs 10 tokens more
    than itself, and no limit costs `free`.
    """
    return [
        Row(
            f"p{number}",
            dict(zip(BUDGETS, shares, strict=True)),
            {budget: free if budget < 0 else 10.0 + budget for budget in BUDGETS},
            seeds=2,
        )
        for number, shares in enumerate(problems)
    ]


def measured(*problems: tuple[float, ...]) -> Measured:
    return Measured(half(*problems), half(*problems), "c0de")


def right(*budgets: int) -> tuple[float, ...]:
    """A problem that is right at these budgets alone."""
    return tuple(float(budget in budgets) for budget in BUDGETS)


EASY, LATE, NEVER = right(*BUDGETS), right(64, -1), right()


@given(st.lists(HALVES, min_size=1, max_size=3), st.sampled_from([5.0, 74.0, 110.0]))
def test_auto_is_a_budget_that_nothing_refutes(
    tasks: list[list[tuple[float, ...]]], free: float
) -> None:
    halves = [half(*problems, free=free) for problems in tasks]
    given_tasks = [Measured(each, each, "c0de") for each in halves]
    found = auto(None, given_tasks)
    shares = {
        budget: fmean(fmean(row.shares[budget] for row in each.choosing) for each in given_tasks)
        for budget in BUDGETS
    }
    assert shares[found.best] == pytest.approx(max(shares.values()))
    assert found.tokens <= found.best_tokens
    if found.budget != found.best:
        assert found.difference_low >= -EPSILON - 1e-4  # here both halves are the same
    assert found.difference_low <= found.difference <= found.difference_high


@given(st.lists(HALVES, min_size=1, max_size=3))
def test_what_is_measured_is_a_curve_that_a_contract_takes(
    tasks: list[list[tuple[float, ...]]],
) -> None:
    of = {f"task {number}": measured(*problems) for number, problems in enumerate(tasks)}
    curve = points(None, [each.choosing for each in of.values()])
    chosen = [auto(None, list(of.values()))]
    for label, each in of.items():
        curve += points(label, [each.choosing])
        chosen.append(auto(label, [each]))
    calibration = Calibration(
        epsilon=EPSILON, auto=tuple(chosen), split=None, seeds=2, seed=0, temperature=1.0,
        versions={},
    )  # fmt: skip
    curves = Curves.of(curve, calibration)
    assert list(curves.tasks) == list(of)
    for found in chosen:
        assert curves.curve(found.task).auto == found.budget


def test_the_least_of_equally_good_budgets_is_the_best() -> None:
    found = auto("t", [measured(*[LATE] * 5, *[EASY] * 5)])
    assert (found.best, found.budget) == (64, 64)
    assert (found.accuracy, found.difference) == (1.0, 0.0)


def test_few_problems_prove_nothing_and_many_that_agree_a_point() -> None:
    """One problem in 600 loses at 64; all others are right from 64 on."""
    lost = right(-1)
    few, many = [LATE] * 19, [LATE] * 599
    assert auto("t", [measured(*few, lost)]).budget == -1
    found = auto("t", [measured(*many, lost)])
    assert (found.best, found.budget) == (-1, 64)


def test_auto_takes_the_fewest_tokens_where_a_budget_makes_thoughts_longer() -> None:
    """A hint can lengthen thoughts: no limit at 40 tokens a reply beats the budget 64 at 74."""
    longer = half(*[LATE] * 600, free=40.0)
    found = auto("t", [Measured(longer, longer, "c0de")])
    assert (found.best, found.budget) == (64, -1)
    assert (found.best_tokens, found.tokens) == (74.0, 40.0)


def test_enough_is_the_number_that_proves_a_point() -> None:
    assert paired([[0.0] * ENOUGH]).low >= -EPSILON > paired([[0.0] * (ENOUGH - 1)]).low


def test_a_budget_that_costs_two_points_is_not_auto() -> None:
    found = auto("t", [measured(*[LATE] * 980, *[right(-1)] * 20)])
    assert found.budget == found.best == -1


def test_tasks_have_the_same_weight_whatever_their_size() -> None:
    small, large = half(*[EASY] * 2), half(*[NEVER] * 38)
    at_64 = points(None, [small, large])[2]
    assert (at_64.budget, at_64.accuracy, at_64.n) == (64, 0.5, 40)


def test_the_report_is_of_the_other_half() -> None:
    each = Measured(half(*[LATE] * 4), half(*[NEVER] * 6), "c0de")
    found = auto("t", [each])
    assert (found.budget, found.accuracy, found.n) == (64, 0.0, 6)
    assert found.problems_sha256 == "c0de"
    assert len(auto(None, [each, each]).problems_sha256) == 64


def test_rows_are_means_over_the_seeds_of_a_problem() -> None:
    samples = measure(Oracle(), modes=["served"], budgets=(0, 20, -1))
    found = rows(samples)
    assert [row.problem for row in found] == [problem.id for problem in PROBLEMS]
    assert {row.seeds for row in found} == {2}
    easy = next(p.id for p in PROBLEMS if p.difficulty == 1)
    (row,) = (row for row in found if row.problem == easy)
    assert row.shares == {0: 0.0, 20: 1.0, -1: 1.0}


@example([[-1.0]] * 25)  # the fractions of 25 add up to more than 1
@given(st.lists(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1), min_size=1))
def test_a_paired_interval_holds_its_mean(groups: list[list[float]]) -> None:
    found = paired(groups)
    assert found.mean == pytest.approx(fmean(map(fmean, groups)))
    assert -1 <= found.low <= found.mean <= found.high <= 1


def test_a_paired_interval_is_bonett_and_prices() -> None:
    """10 of 100 gain, 4 lose: p12 = 11/102, p21 = 5/102."""
    found = paired([[1.0] * 10 + [-1.0] * 4 + [0.0] * 86])
    gains, losses = 11 / 102, 5 / 102
    half = 1.959964 * math.sqrt((gains + losses - (gains - losses) ** 2) / 102)
    assert found.mean == pytest.approx(0.06)
    assert (found.low, found.high) == pytest.approx(
        (gains - losses - half, gains - losses + half), abs=1e-6
    )


def test_the_mean_of_estimates_is_surer_than_each() -> None:
    one = Estimate(0.5, 0.4, 0.6)
    four = combined([one] * 4)
    assert (four.mean, four.low, four.high) == pytest.approx((0.5, 0.45, 0.55))
    assert combined([one]) == Estimate(0.5, pytest.approx(0.4), pytest.approx(0.6))
