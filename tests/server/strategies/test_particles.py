"""Systematic resampling draws each in proportion to its weight, to within one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.server.strategies.particles import systematic, weigh
from ponder.server.strategies.protocol import Answer

pytestmark = pytest.mark.quick
WEIGHTS = st.lists(st.floats(0, 1e6) | st.just(0.0), min_size=1, max_size=64)


@given(WEIGHTS, st.floats(0, 1, exclude_max=True))
def test_each_is_drawn_in_proportion(weights: list[float], start: float) -> None:
    counts = systematic(weights, start)
    size, total = len(weights), sum(weights)
    assert sum(counts) == size
    if not total:
        assert counts == [1] * size
        return
    for count, weight in zip(counts, weights, strict=True):
        share = size * weight / total
        assert math.floor(share - 1e-6) <= count <= math.ceil(share + 1e-6)


@pytest.mark.parametrize("scored", [True, False], ids=["scores", "votes"])
def test_a_thought_of_which_nothing_is_known_is_neither_copied_nor_dropped(scored: bool) -> None:
    """The engine may fail a probe, and a verifier an answer: that says nothing of the thought."""
    failed = Answer("", "", failed=True)
    right, wrong = (Answer(text, text, votes=n, score=n / 2) for text, n in (("3", 2), ("4", 0)))
    for start in (0.0, 0.5, 0.99):
        assert systematic(weigh([right, failed, wrong], scored=scored), start)[1] == 1
        assert systematic(weigh([failed, failed], scored=scored), start) == [1, 1]
    unscored = Answer("5", "5", votes=1)
    assert weigh([right, wrong, unscored], scored=True) == [1.0, 0.0, 0.5]


def test_starts_are_spread_over_the_draws() -> None:
    """Of two that weigh 3 to 1, in two draws, the lighter is drawn for half of the starts."""
    drawn = [systematic([3.0, 1.0], step / 100) for step in range(100)]
    assert sum(counts == [1, 1] for counts in drawn) == 50
    assert sum(counts == [2, 0] for counts in drawn) == 50
