"""Lite PPO's normaliser (arXiv 2508.08221): the group's mean, the batch's standard deviation.

A = (R - mean of the group) / (std of the rewards of the whole step + ε), unbiased, over the
rollouts of all processes. In a group that is nearly all correct, a small std would give the one
exception too large an advantage; the step's std does not.

The rest of Lite PPO is this repository's GRPO, token mean without KL, with `dual_clip: null`:

method:
  method: grpo
  dual_clip: null
  add:
    - lite_ppo: {}
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from .batch import Batch, Context
from .stages import Component, Place


class LitePpo(Component):
    """Lite PPO's normaliser: group mean over batch std (arXiv 2508.08221).

    The batch's std replaces the group's.
    """

    at: ClassVar[Place] = "normalise"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "centred"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage"})

    epsilon: float = Field(1e-6, gt=0, le=1, description="added to the standard deviation (ε)")

    def __call__(self, batch: Batch, context: Context) -> Batch:
        spread = std(batch["reward"], context)
        advantage = batch["centred"] / (spread + self.epsilon)
        return batch.with_columns(advantage=advantage.to(batch["reward"].dtype))


def std(values: Tensor, context: Context) -> Tensor:
    """The unbiased standard deviation over all processes, in double precision; 0 of one value.

    >>> import torch
    >>> from random import Random
    >>> alone = Context(0, Random(0), lambda batch: batch, lambda sums: sums, {})
    >>> std(torch.tensor([0.0, 0.0, 1.0, 1.0]), alone)
    tensor(0.5774, dtype=torch.float64)
    """
    values = values.double()
    count, total = context.reduce(torch.stack([values.new_tensor(values.numel()), values.sum()]))
    around = context.reduce((values - total / count.clamp(min=1)).square().sum())
    return torch.sqrt(around / (count - 1).clamp(min=1))
