"""GRPO: Group Relative Policy Optimization (arXiv 2402.03300), as the baseline of later papers.

A prompt's rollouts are each other's baseline: A = (R - mean) / (std + 1e-6), R = 1 where correct.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from .kernel import group_normalised
from .outcomes import Advantages, Outcomes


class Grouping(Protocol):
    """Settings of a method whose prompts have `group_size` rollouts each."""

    group_size: int


def reward(outcomes: Outcomes, config: Grouping) -> Tensor:
    """1 where correct, else 0; (B,)."""
    return outcomes.correct_B.float()


def advantage(rewards_B: Tensor, outcomes: Outcomes, config: Grouping) -> Advantages:
    """One advantage per rollout, normalised within its group."""
    return Advantages(group_normalised(rewards_B, config.group_size)[:, None])
