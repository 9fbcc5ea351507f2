"""ProGRPO's Advantage Re-weighting Mechanism, ARM (arXiv 2602.05281).

A + α·(c(q) - c(o)) in groups with a correct response, A in the others. The confidence c in the
prompt q or the response o is exp(mean log-probability of its least likely fifth of tokens) under
the sampling policy. So an answer of which the policy is sure gains less, and an unlikely answer
gains more.

The available text gives no α: 0.3 is ours.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from .batch import Batch, Context
from .stages import Component, Place


class ProGrpo(Component):
    """ProGRPO: responses of which the policy is sure gain less (arXiv 2602.05281)."""

    at: ClassVar[Place] = "weight"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage", "correct"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage", "advantage_confidence"})
    rescores: ClassVar[bool] = True

    alpha: float = Field(0.3, ge=0, le=100, description="weight of the confidences (α); ours")
    share: float = Field(
        0.2, gt=0, le=1, description="share of the tokens in a confidence, the least likely"
    )

    def __call__(self, batch: Batch, context: Context) -> Batch:
        scores = context.score([(*r.prompt.ids, *r.tokens) for r in batch.rollouts])
        gains = []
        for rollout, scored in zip(batch.rollouts, scores, strict=True):
            asked = len(rollout.prompt.ids) - 1
            prompt, response = scored.log_probs[:asked], scored.log_probs[asked:]
            gains.append(confidence(prompt, self.share) - confidence(response, self.share))
        solved_B = batch.per_group(lambda it_G: it_G.any().expand(len(it_G)), "correct")
        advantage = batch["advantage"]
        gain_B = self.alpha * torch.tensor(gains, dtype=torch.double) * solved_B
        gain = gain_B.to(advantage.dtype).view(-1, *(1,) * (advantage.dim() - 1))
        return batch.with_columns(
            advantage=advantage + gain, advantage_confidence=gain.expand_as(advantage)
        )


def confidence(log_probs_T: Tensor, share: float) -> float:
    """exp(mean of the lowest ⌈share·T⌉ log-probabilities); 1 without tokens.

    >>> round(confidence(torch.tensor([0.5, 0.25, 1.0, 1.0, 1.0]).log(), 0.4), 4)
    0.3536
    """
    if not len(log_probs_T):
        return 1.0
    count = math.ceil(round(share * len(log_probs_T), 9))
    return float(log_probs_T.double().sort().values[:count].mean().exp())
