"""A component of one's own that weighs hard prompts: copy this file and change it.

method:
  method: grpo
  add:
    - harder:Harder: {weight: 0.1}
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from ponder.training.method.batch import Batch, Context
from ponder.training.method.stages import Component, Place


class Harder(Component):
    """A group counts little unless most of its rollouts are wrong."""

    at: ClassVar[Place] = "weight"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage", "group_accuracy"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage"})

    weight: float = Field(0.1, ge=0, le=1, description="of groups that are half right or more")

    def __call__(self, batch: Batch, context: Context) -> Batch:
        weight_B = torch.where(batch["group_accuracy"] < 0.5, 1.0, self.weight)
        return batch.with_columns(advantage=batch["advantage"] * weight_B)
