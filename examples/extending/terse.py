"""A reward of one's own: longer correct answers earn less. Copy this file and change it.

method:
  method: grpo
  add:
    - terse:Terse: {words: 12, cost: 0.02}
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from ponder.training.method.batch import Batch, Context
from ponder.training.method.stages import Component, Place


class Terse(Component):
    """Takes `cost` from the reward for every word of the answer beyond `words`."""

    at: ClassVar[Place] = "reward"  # after the method's own reward
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "correct"})
    makes: ClassVar[frozenset[str]] = frozenset({"reward"})

    words: int = Field(12, ge=0, description="words of an answer that cost nothing")
    cost: float = Field(0.02, ge=0, le=1, description="of each word beyond them")

    def __call__(self, batch: Batch, context: Context) -> Batch:
        said = [(rollout.answers or ())[0].text for rollout in batch.rollouts]
        beyond_B = torch.tensor([max(0, len(text.split()) - self.words) for text in said])
        cost_B = self.cost * beyond_B * batch["correct"]
        return batch.with_columns(reward=batch["reward"] - cost_B)
