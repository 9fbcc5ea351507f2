"""HBPO: Hierarchical Budget Policy Optimization (arXiv 2507.15844), and its cosine ablation.

A prompt's rollouts fall into subgroups, each promised another budget b by a hint. A correct
response of n tokens earns f2(b) within its budget and less with every token above it; it is
compared with the whole group (inter) and its subgroup with the best it could earn (intra).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from .kernel import by_group, group_normalised, mean_among_equals
from .outcomes import Advantages, Outcomes


class Pricing(Protocol):
    """What length costs: β·cos falls to 0 at `longest` tokens."""

    longest: int
    beta: float


class Hierarchy(Pricing, Protocol):
    """Settings of HBPO."""

    group_size: int
    alpha: float
    format_penalty: float
    skip_all_wrong: bool


def scaled_budgets(longest: int) -> tuple[int, int, int, int]:
    """The paper's four budgets, as shares of the longest response."""
    return longest // 8, longest // 4, longest // 2, longest * 5 // 8


def cosine(tokens_B: Tensor, config: Pricing) -> Tensor:
    """β·cos(πn / 2L); of a budget this is f2, the most that its subgroup can earn."""
    return config.beta * torch.cos(tokens_B * (math.pi / (2 * config.longest)))


def above_budget(length_B: Tensor, budget_B: Tensor, config: Hierarchy) -> Tensor:
    """f1: β·cos(πn / 2L) - α·|n - b|."""
    return cosine(length_B, config) - config.alpha * (length_B - budget_B).abs()


def reward(outcomes: Outcomes, config: Hierarchy) -> Tensor:
    """f2(b) for a correct response within its budget, f1(n, b) up to L, 0 otherwise; (B,).

    A response without form earns `format_penalty`: 0 in the paper, -1 in the published code.
    """
    length_B, budget_B = outcomes.length_B, outcomes.budget_B
    earned_B = torch.where(
        length_B <= budget_B, cosine(budget_B, config), above_budget(length_B, budget_B, config)
    )
    earns_B = outcomes.correct_B & (length_B <= config.longest)
    earned_B = torch.where(earns_B, earned_B, 0)
    return torch.where(outcomes.formatted_B, earned_B, config.format_penalty)


def advantage(rewards_B: Tensor, outcomes: Outcomes, config: Hierarchy) -> Advantages:
    """inter = (R - mean) / (std + 1e-6) of the group, intra = subgroup's mean - f2(b) ≤ 0.

    Their sum, once (the published code adds intra twice). A question that nobody solved has
    inter = 0 and is pushed down by intra alone; `skip_all_wrong` leaves it out.
    """
    rewards_QG = by_group(rewards_B, config.group_size)
    budget_QG = by_group(outcomes.budget_B, config.group_size)
    inter_B = group_normalised(rewards_B, config.group_size)
    intra_B = (mean_among_equals(rewards_QG, budget_QG) - cosine(budget_QG, config)).flatten()
    if config.skip_all_wrong:
        correct_QG = by_group(outcomes.correct_B, config.group_size)
        solved_B = correct_QG.any(1).repeat_interleave(config.group_size)
        inter_B, intra_B = inter_B * solved_B, intra_B * solved_B
    return Advantages((inter_B + intra_B)[:, None], parts={"inter": inter_B, "intra": intra_B})


def length_penalty(outcomes: Outcomes, config: Pricing) -> Tensor:
    """The cosine ablation, without hints: β·cos(πn / 2L) where correct, else 0; (B,)."""
    earns_B = outcomes.correct_B & outcomes.formatted_B & (outcomes.length_B <= config.longest)
    return torch.where(earns_B, cosine(outcomes.length_B, config), 0)
