import math
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ponder.training.method.brpo import BrpoConfig
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.kernel import (
    LossInputs,
    aggregate,
    clipped_objective,
    mean_among_equals,
    normalised,
)
from training.method.scored import scored

CONFIG = GrpoConfig(clip_low=0.2, clip_high=0.28, dual_clip=3.0)


def rows(ratios: list[float], advantages: list[float]) -> LossInputs:
    """One row with these ratios to the policy that sampled, ready for a gradient."""
    old_1T = torch.full((1, len(ratios)), -1.5, dtype=torch.float64)
    ratio_1T = torch.tensor([ratios], dtype=torch.float64)
    return LossInputs(
        log_probs_BT=(old_1T + ratio_1T.log()).requires_grad_(),
        old_log_probs_BT=old_1T,
        advantages_BT=torch.tensor([advantages], dtype=torch.float64),
        mask_BT=torch.ones_like(ratio_1T, dtype=torch.bool),
    )


def gradient(rows: LossInputs, config: GrpoConfig | BrpoConfig) -> list[float]:
    torch.autograd.backward(clipped_objective(rows, config).per_token_BT.sum())
    assert rows.log_probs_BT.grad is not None
    return rows.log_probs_BT.grad[0].tolist()


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.27, 1.0, 1.27, 1.27),
        (1.29, 1.0, 1.28, 0.0),
        (0.5, 1.0, 0.5, 0.5),
        (0.81, -1.0, -0.81, -0.81),
        (0.79, -1.0, -0.8, 0.0),
        (2.9, -1.0, -2.9, -2.9),
        (3.1, -2.0, -6.0, 0.0),
        (3.1, 0.0, 0.0, 0.0),
    ],
)
def test_each_end_of_each_clip(ratio: float, advantage: float, value: float, slope: float) -> None:
    one = rows([ratio], [advantage])
    assert clipped_objective(one, CONFIG).per_token_BT.item() == pytest.approx(value)
    assert gradient(one, CONFIG) == pytest.approx([slope])


def test_no_dual_clip_lets_bad_tokens_grow() -> None:
    assert gradient(rows([30.0], [-1.0]), BrpoConfig()) == pytest.approx([-30.0])


def brute_force(ratio: float, advantage: float) -> float:
    clipped = min(max(ratio, 0.8), 1.28)
    value = min(ratio * advantage, clipped * advantage)
    return max(value, 3.0 * advantage) if advantage < 0 else value


token = st.tuples(st.floats(0.05, 20), st.floats(-5, 5))


@given(st.lists(token, min_size=1, max_size=20))
def test_the_surrogate_is_the_formula(tokens: list[tuple[float, float]]) -> None:
    found = clipped_objective(rows([r for r, _ in tokens], [a for _, a in tokens]), CONFIG)
    assert found.per_token_BT[0].tolist() == pytest.approx(
        [brute_force(r, a) for r, a in tokens], rel=1e-9, abs=1e-12
    )


@given(st.lists(token, min_size=1, max_size=20))
def test_clipped_tokens_are_those_without_gradient(tokens: list[tuple[float, float]]) -> None:
    tokens = [(r, a) for r, a in tokens if abs(a) > 1e-6]
    several = rows([r for r, _ in tokens], [a for _, a in tokens])
    stats = clipped_objective(several, CONFIG).stats
    held = stats["clipped_low"] + stats["clipped_high"] + stats["dual_clipped"]
    assert held == sum(slope == 0 for slope in gradient(several, CONFIG))
    assert stats["tokens"] == len(tokens)


def test_what_the_mask_hides_does_not_matter() -> None:
    clean = rows([1.1, 0.9, 1.0], [1.0, -1.0, 2.0])
    mask_BT = torch.tensor([[1.0, 1.0, 0.0]])
    log_probs_BT = clean.log_probs_BT.detach().clone()
    log_probs_BT[0, 2] = -torch.inf
    nan_BT = clean.advantages_BT.clone()
    nan_BT[0, 2] = torch.nan
    old_BT = clean.old_log_probs_BT.clone()
    old_BT[0, 2] = -torch.inf
    dirty = LossInputs(log_probs_BT.requires_grad_(), old_BT, nan_BT, mask_BT)
    clean = replace(clean, mask_BT=mask_BT)
    assert gradient(dirty, CONFIG) == gradient(clean, CONFIG) == pytest.approx([1.1, -0.9, 0.0])
    assert clipped_objective(dirty, CONFIG).stats["tokens"] == 2


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_ratio_that_overflows_leaves_no_nan(advantage: float) -> None:
    far = rows([1.0], [advantage])
    far = replace(far, log_probs_BT=torch.full((1, 1), 900.0).requires_grad_())
    assert gradient(far, CONFIG) == [0.0]


def test_micro_batches_add_up() -> None:
    rng = Random(0)
    whole = rows([rng.uniform(0.5, 4) for _ in range(12)], [rng.gauss(0, 1) for _ in range(12)])
    mask_1T = torch.tensor([[rng.random() < 0.7 for _ in range(12)]])
    per_token_BT = clipped_objective(replace(whole, mask_BT=mask_1T), CONFIG).per_token_BT
    total = mask_1T.sum()
    parts = [
        aggregate(per_token_BT[:, i : i + 3], mask_1T[:, i : i + 3], total) for i in range(0, 12, 3)
    ]
    kept = [v for v, m in zip(per_token_BT[0].tolist(), mask_1T[0].tolist(), strict=True) if m]
    assert sum(parts).item() == pytest.approx(sum(kept) / len(kept))


def test_aggregation_weighs_by_the_mask() -> None:
    per_token_BT = torch.tensor([[2.0, torch.nan, 4.0]])
    assert aggregate(per_token_BT, torch.tensor([[0.5, 0.0, 1.0]]), 1.0) == 5.0


def by_hand(group: list[float]) -> list[float]:
    mean = sum(group) / len(group)
    std = math.sqrt(sum((r - mean) ** 2 for r in group) / (len(group) - 1))
    return [(r - mean) / (std + 1e-6) for r in group]


@given(st.lists(st.lists(st.floats(-4, 4), min_size=3, max_size=3), min_size=1, max_size=5))
def test_groups_are_normalised_each_by_itself(groups: list[list[float]]) -> None:
    rewards_B = torch.tensor(groups, dtype=torch.float64).flatten()
    found_B = scored([3] * len(groups), reward=rewards_B).per_group(normalised, "reward")
    expected = [a for group in groups for a in by_hand(group)]
    assert found_B.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.floats(-10, 10, width=32), st.integers(2, 16))
def test_equal_rewards_are_no_signal(reward: float, group_size: int) -> None:
    """In single precision their rounding noise over ε reaches a tenth."""
    assert normalised(torch.full((group_size,), reward)).abs().max() < 1e-6


def test_means_among_equal_keys_of_a_row() -> None:
    values_QN = torch.tensor([[1.0, 3.0, 5.0], [1.0, 3.0, 5.0]])
    keys_QN = torch.tensor([[7, 7, 8], [7, 8, 7]])
    assert mean_among_equals(values_QN, keys_QN).tolist() == [[2, 2, 5], [3, 3, 3]]
