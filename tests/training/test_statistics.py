import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.training.statistics import accuracy, mean, wilson


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
    assert 0 <= found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high <= 1


def test_mean_of_problems() -> None:
    found = mean([[1.0, 3.0], [4.0], [6.0]])
    assert found.mean == pytest.approx(4.0)
    assert found.high - found.mean == pytest.approx(1.95996 * (4 / 3) ** 0.5, abs=1e-4)
    assert mean([[5.0]]).low == 5.0
