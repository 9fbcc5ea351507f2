from itertools import combinations
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.evaluation.intervals import (
    accuracy,
    all_pass,
    any_pass,
    mean,
    ratio,
    share,
    student_t,
    wilson,
)


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
        (0.0, 20, 0.0, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(share: float, n: int, low: float, high: float) -> None:
    interval = wilson(share, n)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_an_interval_needs_a_trial() -> None:
    with pytest.raises(ValueError, match="at least one"):
        wilson(0.5, 0)


def test_single_samples_are_independent_trials() -> None:
    correct = [[True]] * 81 + [[False]] * 182
    assert accuracy(correct).low == pytest.approx(wilson(81 / 263, 263).low, abs=1e-3)


def test_samples_that_always_agree_count_once() -> None:
    once = [[True]] * 30 + [[False]] * 20
    often = [[True] * 16] * 30 + [[False] * 16] * 20
    assert accuracy(often) == accuracy(once)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=40))
def test_an_accuracy_lies_in_its_interval(correct: list[list[bool]]) -> None:
    found = accuracy(correct)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_mean_of_problems() -> None:
    found = mean([[1.0, 3.0], [4.0], [6.0]])
    assert found.mean == pytest.approx(4.0)
    assert found.high - found.mean == pytest.approx(4.303 * (4 / 3) ** 0.5, rel=0.01)
    assert mean([[5.0]]).low == 5.0


@pytest.mark.parametrize("problems", [3, 5, 10])
def test_intervals_of_few_problems_cover(problems: int) -> None:
    """A normal quantile would cover 81, 88 and 92 %."""
    worlds = np.random.default_rng(0).normal(50, 9, (2000, 2, problems)).tolist()
    means = [mean([[length] for length in lengths]) for lengths, _ in worlds]
    ratios = [ratio(above, below) for above, below in worlds]
    assert fmean(found.low < 50 < found.high for found in means) > 0.93
    assert fmean(found.low < 1 < found.high for found in ratios) > 0.93


@pytest.mark.parametrize(
    ("level", "freedom", "quantile"),
    # Tables of Student's t.
    [(0.975, 2, 4.303), (0.975, 4, 2.776), (0.95, 4, 2.132), (0.975, 30, 2.042)],
)
def test_student_as_tabulated(level: float, freedom: float, quantile: float) -> None:
    assert student_t(level, freedom) == pytest.approx(quantile, rel=0.01)
    assert student_t(0.975, float("inf")) == pytest.approx(1.95996, abs=1e-5)


@given(st.integers(1, 12), st.data())
def test_pass_rates_are_those_of_all_draws(samples: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, samples))
    k = data.draw(st.integers(1, samples))
    answers = [i < correct for i in range(samples)]
    draws = list(combinations(answers, k))
    assert any_pass(samples, correct, k) == pytest.approx(fmean(map(any, draws)))
    assert all_pass(samples, correct, k) == pytest.approx(fmean(map(all, draws)))


def test_ratio_of_paired_lengths() -> None:
    below = [10.0, 20.0, 30.0, 40.0]
    exact = ratio([2 * b for b in below], below)
    assert (exact.low, exact.mean, exact.high) == (2.0, 2.0, 2.0)
    found = ratio([25.0, 35.0, 65.0, 75.0], below)
    # By hand: the residuals (a - 2 b) / 25 are 0.2, -0.2, 0.2, -0.2.
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(3.182 * 0.2 / 3**0.5, rel=0.01)
    assert ratio([3.0], [2.0]).low == 1.5


def test_shares_of_problems_count_as_accuracies_do() -> None:
    assert share([0.5, 1.0, 0.0], 6) == accuracy([[True, False], [True, True], [False, False]])
