"""ADORA's group weights (arXiv 2602.10019, and the authors' `weight_func` for GRPO).

A group counts whole where thinking long paid: where its longest correct response is longer than the
mean of its wrong ones, without those that reached the limit. Otherwise it counts λ = 0.1. A group
without a correct response counts whole, a group without a wrong response λ: under GRPO neither has
a signal.

`favour: shorter` is the mirrored rule and ours, not the authors': a group counts whole where
thinking briefly paid, where its shortest correct response is shorter than the mean of its wrong
ones.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from .batch import Batch, Context
from .stages import Component, Place


class Adora(Component):
    """ADORA: a group counts little unless thinking long paid in it (arXiv 2602.10019).

    The mirrored rule is ours.
    """

    at: ClassVar[Place] = "weight"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage", "correct", "length", "truncated"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage"})

    weight: float = Field(0.1, ge=0, le=10, description="weight of the other groups (λ)")
    favour: Literal["longer", "shorter"] = Field(
        "longer", description="the groups that count whole; `shorter`, the mirrored rule, is ours"
    )

    def __call__(self, batch: Batch, context: Context) -> Batch:
        weight_B = batch.per_group(self.of_group, "correct", "length", "truncated")
        advantage = batch["advantage"]
        shaped = weight_B.to(advantage.dtype).view(-1, *(1,) * (advantage.dim() - 1))
        return batch.with_columns(advantage=advantage * shaped)

    def of_group(self, correct_G: Tensor, length_G: Tensor, truncated_G: Tensor) -> Tensor:
        """The weight of one group, for each of its rollouts; (G,).

        >>> right, long = torch.tensor([True, False, False]), torch.tensor([9.0, 5.0, 50.0])
        >>> Adora().of_group(right, long, torch.tensor([False, False, True]))
        tensor([1., 1., 1.])
        >>> Adora(favour="shorter").of_group(right, long, torch.tensor([False, False, True]))
        tensor([0.1000, 0.1000, 0.1000])
        """
        right, wrong = length_G[correct_G].double(), length_G[~correct_G & ~truncated_G].double()
        if not len(right):
            whole = True
        elif not len(wrong):
            whole = False
        elif self.favour == "longer":
            whole = bool(right.max() > wrong.mean())
        else:
            whole = bool(right.min() < wrong.mean())
        return torch.full((len(length_G),), 1.0 if whole else self.weight)
