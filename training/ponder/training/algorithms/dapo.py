"""DAPO: Decoupled Clip and Dynamic Sampling Policy Optimization (arXiv 2503.14476).

GRPO with a higher upper clip, token mean, groups without variance dropped (§3.2) and a soft
penalty on overlong responses (§3.4).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .kernel import by_group
from .outcomes import Outcomes


class Sampling(Protocol):
    """Settings: groups, and the last `overlong_buffer` of `longest` tokens, which cost."""

    group_size: int
    longest: int
    dynamic_sampling: bool
    overlong_buffer: int
    overlong_factor: float


def overlong_penalty(length_B: Tensor, longest: int, buffer: int) -> Tensor:
    """min(-(n - (longest - buffer)) / buffer, 0): from 0 to -1 over the last `buffer` tokens."""
    return (-(length_B - (longest - buffer)) / buffer).clamp(max=0)


def reward(outcomes: Outcomes, config: Sampling) -> Tensor:
    """1 where correct, else 0, and the soft penalty on overlong responses; (B,)."""
    penalty_B = overlong_penalty(outcomes.length_B, config.longest, config.overlong_buffer)
    return outcomes.correct_B.float() + config.overlong_factor * penalty_B


def keep(outcomes: Outcomes, config: Sampling) -> Tensor:
    """Which groups teach something: neither all wrong nor all correct; (Q,) bool."""
    correct_QG = by_group(outcomes.correct_B, config.group_size)
    if not config.dynamic_sampling:
        return torch.ones_like(correct_QG[:, 0])
    return correct_QG.any(1) & ~correct_QG.all(1)
