"""ASPO's bounded length advantage (arXiv 2508.19201), for any method.

A + clip(δ·(p - p̄)/L̄, ±k·|A|): of two rollouts of a group the one that thinks less gains. The gain
is at most the share k of the reward's advantage, so it never changes the advantage's sign. A group
that is all correct under a 0/1 reward has A = 0 and stays so; a cost of length inside the reward
would set its members against each other.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from .batch import Batch, Context
from .stages import Component, Place


class Aspo(Component):
    """ASPO: shorter thoughts gain, by a bounded share of the advantage (arXiv 2508.19201)."""

    at: ClassVar[Place] = "weight"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage", "thinking", "length"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage", "advantage_length"})

    delta: float = Field(
        -2.0,
        ge=-100,
        le=100,
        description="gain of a thought that exceeds its group's mean by the mean response (δ)",
    )
    k: float = Field(
        0.7, ge=0, lt=1, description="largest gain or loss, as a share of the advantage"
    )

    def __call__(self, batch: Batch, context: Context) -> Batch:
        gain_B = batch.per_group(self.gain, "thinking", "length")
        advantage = batch["advantage"]
        gain = gain_B.to(advantage.dtype).view(-1, *(1,) * (advantage.dim() - 1))
        bound = self.k * advantage.abs()
        gain = gain.clamp(-bound, bound)
        return batch.with_columns(advantage=advantage + gain, advantage_length=gain)

    def gain(self, thinking_G: Tensor, length_G: Tensor) -> Tensor:
        """δ·(p - p̄)/L̄ of one group: p tokens of thought, L of the response; (G,).

        >>> import torch
        >>> Aspo().gain(torch.tensor([100, 300]), torch.tensor([150, 350])).tolist()
        [0.8, -0.8]
        """
        thinking_G = thinking_G.double()
        mean_length = length_G.double().mean().clamp(min=1)
        return self.delta * (thinking_G - thinking_G.mean()) / mean_length
