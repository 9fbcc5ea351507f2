"""TreePO: segment rollouts and the subtree advantage (arXiv 2508.17445, §3; the authors' code).

A prompt's responses are sampled in segments of 512 tokens. Before each segment every unfinished
response forks in two, until there are G responses. The responses that share a segment are the
leaves of its subtree. The advantage of a response is its reward less its subtree's mean reward,
averaged over the depths J at which the subtree has other responses; depth 0 is the whole group:

  A = 1/|J| · Σ_{j ∈ J} (R - mean of the subtree at depth j)

`weighting: size` weighs each depth by the subtree's leaves, which is the published function's
default. The authors then normalise over the batch (REINFORCE++): add `lite_ppo` for that; without
it the method's own std divides. The authors force an answer when 256 tokens are left, and may end
branches at repetitions. Neither is done here, where a response that does not end is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from .batch import Batch, Context
from .stages import Component, Place

if TYPE_CHECKING:
    from ..rollout.kinds import RolloutPlan


class TreePo(Component):
    """TreePO: responses that fork by segments, compared within subtrees (arXiv 2508.17445)."""

    at: ClassVar[Place] = "credit"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "centred", "subtree"})
    makes: ClassVar[frozenset[str]] = frozenset({"centred"})

    segment: int = Field(512, ge=1, le=1_000_000, description="tokens between forks")
    fork: int = Field(2, ge=2, le=1024, description="branches of an unfinished response")
    weighting: Literal["mean", "size"] = Field(
        "mean", description="weight of a depth: all equal, or the subtree's leaves"
    )

    def plan(self, usual: type[RolloutPlan]) -> type[RolloutPlan]:
        from ..rollout.tree import TreePlan

        class Grown(TreePlan):
            segment = self.segment
            fork = self.fork

        return Grown

    def __call__(self, batch: Batch, context: Context) -> Batch:
        return batch.with_columns(centred=batch.per_group(self.credit, "reward", "subtree"))

    def credit(self, rewards_G: Tensor, subtree_GD: Tensor) -> Tensor:
        """A of one group; (G,), in double precision.

        >>> subtree = torch.tensor([[0, 2], [0, 3], [1, 4], [1, 5]])
        >>> TreePo().credit(torch.tensor([1.0, 0.0, 0.0, 0.0]), subtree).tolist()
        [0.625, -0.375, -0.125, -0.125]
        """
        rewards_G = rewards_G.double()
        groups_GD = torch.cat([torch.zeros_like(subtree_GD[:, :1]), subtree_GD], dim=1)
        same_DGG = (groups_GD.T[:, :, None] == groups_GD.T[:, None, :]) & (
            groups_GD.T[:, :, None] >= 0
        )
        leaves_DG = same_DGG.sum(2)
        means_DG = (same_DGG * rewards_G).sum(2) / leaves_DG.clamp(min=1)
        counted_DG = leaves_DG > 1
        counted_DG[0] = True
        weights_DG = counted_DG * (leaves_DG if self.weighting == "size" else 1)
        return (weights_DG * (rewards_G - means_DG)).sum(0) / weights_DG.sum(0)
