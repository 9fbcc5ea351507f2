from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ponder.training.method.batch import Scores
from ponder.training.method.progrpo import ProGrpo, confidence
from training.method.scored import context, scored, written


def by_token(sequences: Sequence[Sequence[int]]) -> list[Scores]:
    """Log-probabilities that a token's number decides."""
    found = [torch.tensor([-((7 * i) % 11) / 4 for i in ids[1:]]) for ids in sequences]
    return [Scores(it, torch.zeros(len(it))) for it in found]


def test_the_worked_group() -> None:
    """Prompt tokens of p = 1 and e^-1 give c(q) = e^-1, of which a fifth is one token."""

    def score(sequences: Sequence[Sequence[int]]) -> list[Scores]:
        sure, unsure = [0.0, -1.0, *[-0.5] * 5], [0.0, -1.0, *[0.0] * 4, -2.0]
        return [Scores(torch.tensor(it), torch.zeros(7)) for it in (sure, unsure)]

    seen = written(scored([2], correct=[True, False], advantage=[0.7, -0.7]), [5, 5])
    found = ProGrpo(alpha=0.5)(seen, replace(context(), score=score))
    gains = [0.5 * (math.exp(-1) - math.exp(-0.5)), 0.5 * (math.exp(-1) - math.exp(-2))]
    assert found["advantage_confidence"].tolist() == pytest.approx(gains)
    assert found["advantage"].tolist() == pytest.approx([0.7 + gains[0], -0.7 + gains[1]])


def test_a_group_without_a_correct_response_is_left_alone() -> None:
    seen = written(scored([2, 1], correct=[0, 0, 1], advantage=[0.5, -0.5, 0.2]), [5, 3, 4])
    found = ProGrpo()(seen, replace(context(), score=by_token))["advantage"]
    assert found[:2].tolist() == [0.5, -0.5] and found[2].item() != pytest.approx(0.2)


@given(st.lists(st.floats(-20, 0), max_size=40), st.floats(0.01, 1))
def test_a_confidence_is_a_geometric_mean(log_probs: list[float], share: float) -> None:
    count = next((k for k in range(len(log_probs) + 1) if k >= share * len(log_probs) - 1e-9), 0)
    lowest = sorted(log_probs)[:count]
    expected = math.exp(sum(lowest) / count) if count else 1.0
    found = confidence(torch.tensor(log_probs, dtype=torch.double), share)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_every_segment_of_a_thought_gains_alike() -> None:
    seen = written(scored([2], correct=[1, 0], advantage=[[1.0, 2.0], [0.0, -1.0]]), [5, 3])
    found = ProGrpo()(seen, replace(context(), score=by_token))
    gain = found["advantage"] - seen["advantage"]
    assert torch.allclose(gain[:, 0], gain[:, 1]) and (gain != 0).any()
