"""The cosine ablation of HBPO (arXiv 2507.15844): shorter correct responses earn more, no hints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field

from .batch import Batch, Context
from .hbpo import cosine
from .settings import NAME, WholeResponses
from .stages import Place


class LengthPenaltyConfig(WholeResponses):
    """The cosine ablation of HBPO: shorter correct responses earn more, without hints."""

    method: Literal["length-penalty"] = Field("length-penalty", description=NAME)
    beta: float = Field(4.0, gt=0, le=1000, description="reward of a correct empty response (β)")


@dataclass(frozen=True, slots=True)
class CosineReward:
    """R = β·cos(πn / 2L) where correct and n ≤ L, else 0; (B,)."""

    config: LengthPenaltyConfig
    at: ClassVar[Place] = "reward"
    reads: ClassVar[frozenset[str]] = frozenset({"correct", "formatted", "length"})
    makes: ClassVar[frozenset[str]] = frozenset({"reward"})

    def __call__(self, batch: Batch, context: Context) -> Batch:
        length_B = batch["length"]
        earns_B = batch["correct"] & batch["formatted"] & (length_B <= self.config.longest)
        earned_B = torch.where(earns_B, cosine(length_B, self.config), 0)
        return batch.with_columns(reward=earned_B)
