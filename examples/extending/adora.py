"""ADORA's group weight, as a component of one's own: copy this file and change it.

method:
  method: grpo
  add:
    - adora:Adora: {weight: 0.1}
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ponder.training.method.batch import Batch, Context
from ponder.training.method.stages import Component, Place


class Adora(Component):
    """A group counts little unless thinking long pays in it.

    It counts whole where its longest correct answer is longer than its wrong ones are on average,
    or where it has no correct or no wrong answers to compare.
    """

    at: ClassVar[Place] = "weight"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage", "correct", "length"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage"})

    weight: float = Field(0.1, ge=0, le=1, description="of the other groups")

    def __call__(self, batch: Batch, context: Context) -> Batch:
        weight_B = batch.per_group(self.of_group, "correct", "length")
        return batch.with_columns(advantage=batch["advantage"] * weight_B)

    def of_group(self, correct_G: Tensor, length_G: Tensor) -> Tensor:
        """The weight of one group, for each of its rollouts; (G,)."""
        right, wrong = length_G[correct_G], length_G[~correct_G]
        whole = not len(right) or not len(wrong) or right.max() > wrong.float().mean()
        return torch.full((len(length_G),), 1.0 if whole else self.weight)
