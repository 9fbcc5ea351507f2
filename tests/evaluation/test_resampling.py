import numpy as np
import pytest
from numpy.typing import NDArray

from ponder.evaluation.resampling import (
    Indices,
    bootstrap,
    paired_bootstrap,
    simultaneous_lower,
)

Floats = NDArray[np.float64]
TRUTH = 0.1
WORLDS = 300


def world(
    rng: np.random.Generator, seeds: int, seed_sd: float, problem_sd: float, noise: float
) -> tuple[Floats, Floats]:
    """Two arms on 60 problems: a is better by `TRUTH` on average, on some problems more."""
    size = (seeds, 60)
    problems = rng.normal(0, 1, (1, 60))
    effects = TRUTH + rng.normal(0, problem_sd, (1, 60))
    a = problems + effects + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, noise, size)
    b = problems + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, noise, size)
    return a, b


@pytest.mark.parametrize(
    ("seeds", "other", "seed_sd", "problem_sd", "noise"),
    [
        (5, 5, 0.1, 0.3, 0.2),
        (5, 5, 0.0, 0.5, 0.1),
        (5, 5, 0.2, 0.1, 0.1),
        (3, 3, 0.1, 0.4, 0.2),
        (5, 3, 0.1, 0.3, 0.2),
    ],
)
def test_intervals_cover_the_truth_as_often_as_they_say(
    seeds: int, other: int, seed_sd: float, problem_sd: float, noise: float
) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for number in range(WORLDS):
        a, b = world(rng, seeds, seed_sd, problem_sd, noise)
        found = paired_bootstrap(a, b[:other], n=300, seed=number)
        assert found.mean == pytest.approx(a.mean() - b[:other].mean())
        covered += found.low <= TRUTH <= found.high
    assert 0.91 <= covered / WORLDS <= 0.995


def test_changes_cover_the_truth_too() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for number in range(WORLDS):
        lengths = rng.gamma(4, 25, (1, 60))
        b = lengths * rng.normal(1, 0.05, (5, 1)) + rng.normal(0, 5, (5, 60))
        a = 0.5 * lengths * rng.normal(1, 0.05, (5, 1)) + rng.normal(0, 5, (5, 60))
        found = paired_bootstrap(a, b, n=300, seed=number, compare="change")
        covered += found.low <= -0.5 <= found.high
    assert 0.91 <= covered / WORLDS <= 0.995


def test_bounds_hold_at_every_budget_at_once() -> None:
    rng = np.random.default_rng(3)
    together = first = 0
    for number in range(WORLDS):
        worlds = [world(rng, 5, 0.1, 0.3, 0.2) for _ in range(4)]
        a_BSP = np.stack([a for a, _ in worlds])
        b_BSP = np.stack([b for _, b in worlds])
        bounds = simultaneous_lower(a_BSP, b_BSP, n=300, seed=number)
        together += all(bound <= TRUTH for bound in bounds)
        first += bounds[0] <= TRUTH
    assert 0.90 <= together / WORLDS <= 0.99
    assert together < first  # the price of all at once is paid at every budget


def test_pairing_by_problems_takes_their_difficulty_out() -> None:
    rng = np.random.default_rng(4)
    problems = rng.normal(0, 10, (1, 200))
    b = problems + rng.normal(0, 0.1, (5, 200))
    found = paired_bootstrap(b + 1.0, b)
    assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0))


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b = world(np.random.default_rng(5), 3, 0.1, 0.3, 0.2)
    assert paired_bootstrap(a, b, n=1500, seed=9) == paired_bootstrap(a, b, n=1500, seed=9)
    assert paired_bootstrap(a, b, n=1500, seed=9) != paired_bootstrap(a, b, n=1500, seed=8)


def test_one_seed_is_taken_as_given() -> None:
    rng = np.random.default_rng(6)
    a, b = world(rng, 1, 0.0, 0.3, 0.1)
    half = 1.96 * (a - b).std(ddof=1) / 60**0.5
    found = paired_bootstrap(a, b)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_a_budget_at_which_nothing_varies_is_its_own_bound() -> None:
    a, b = world(np.random.default_rng(7), 3, 0.1, 0.3, 0.2)
    flat = np.zeros_like(a)
    bounds = simultaneous_lower(np.stack([a, flat + 1]), np.stack([b, flat]))
    assert bounds[1] == pytest.approx(1.0)
    assert bounds[0] < (a - b).mean()


def test_arms_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="seeds, problems"):
        paired_bootstrap(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="seeds, problems"):
        paired_bootstrap(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="budgets first"):
        simultaneous_lower(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="by the difference"):
        paired_bootstrap(np.ones((2, 3)), np.zeros((2, 3)), compare="change")


def test_any_statistic_gets_the_interval_that_the_difference_has() -> None:
    rng = np.random.default_rng(3)
    a_SP = rng.normal(0.3, 1, (5, 60)) + rng.normal(0, 0.5, (5, 1))
    b_SP = rng.normal(0, 1, (3, 60)) + rng.normal(0, 0.5, (3, 1))

    def difference(seeds: Indices, others: Indices, problems: Indices) -> float:
        ours, theirs = a_SP[np.ix_(seeds, problems)], b_SP[np.ix_(others, problems)]
        return float(ours.mean() - theirs.mean())

    found = bootstrap(difference, 5, 3, 60, n=4000)
    known = paired_bootstrap(a_SP, b_SP)
    width = known.high - known.low
    assert found.mean == pytest.approx(known.mean)
    assert found.low == pytest.approx(known.low, abs=0.05 * width)
    assert found.high == pytest.approx(known.high, abs=0.05 * width)
