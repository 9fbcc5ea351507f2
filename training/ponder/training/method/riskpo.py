"""RiskPO's bundles and mixed value at risk (arXiv 2510.00911, and the authors' code).

Five questions are a bundle; the n-th rollouts of all five are a paper, whose score S is the sum of
their rewards. With the quantiles F_α and F_β of scores at α = .2 and β = .8, a paper is worth

  A = [(S - F_α)⁺ - (S - F_β)⁺] / (β - α)              between the quantiles
  C = -(F_α - S)⁺ / α                                  in the lower tail
  (ω·C + A) / (ω + 1), over the std of the bundle's papers

with ω = 1.5, which is the advantage of its rollouts. The quantiles are tracked over steps:
F ← F + η·(level - share of scores below F), η = 0.1, after the advantages of a step.

From the published script: `credit: sum_mean` splits a paper's worth among its rollouts by r - mean
of the question, and `natural_baseline` (off in the script) adds F_α - F_β to A. Ours: a hash of the
problems makes the bundles, so that all processes agree; the quantiles start at those of the first
step, where the published code starts at 0; a last bundle of fewer questions is scaled up to five.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from .batch import Batch, Context
from .stages import Component, Place

_STATE = "riskpo"


class RiskPo(Component):
    """RiskPO: bundles of questions, weighed by mixed value at risk (arXiv 2510.00911).

    Its advantage replaces the method's own.
    """

    at: ClassVar[Place] = "normalise"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "correct"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage"})

    bundle: int = Field(5, ge=1, le=1024, description="questions of a bundle")
    low: float = Field(0.2, gt=0, lt=1, description="level of the lower quantile (α)")
    high: float = Field(0.8, gt=0, lt=1, description="level of the upper quantile (β)")
    mix: float = Field(1.5, ge=0, le=1000, description="weight of the lower tail (ω)")
    rate: float = Field(0.1, ge=0, le=100, description="learning rate of the tracked quantiles (η)")
    natural_baseline: bool = Field(False, description="add F_α - F_β, which is never positive")
    credit: Literal["uniform", "sum_mean"] = Field(
        "uniform", description="a rollout gets its paper's whole worth, or its part of it"
    )
    epsilon: float = Field(1e-6, gt=0, le=1, description="added to every denominator (ε)")

    @model_validator(mode="after")
    def _levels_rise(self) -> RiskPo:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}: swap them")
        return self

    def __call__(self, batch: Batch, context: Context) -> Batch:
        names = torch.tensor([_hashed(prompt.key) for prompt in batch.prompts], dtype=torch.double)
        names_Q, _ = context.gather(names)
        sizes_Q, _ = context.gather(torch.tensor(batch.sizes, dtype=torch.double))
        rewards_B, mine = context.gather(batch["reward"])
        rows = torch.split(torch.arange(len(rewards_B)), sizes_Q.long().tolist())
        order = sorted(range(len(rows)), key=lambda q: float(names_Q[q]))
        bundles = [order[i : i + self.bundle] for i in range(0, len(order), self.bundle)]
        papers = [self.scores([rewards_B[rows[q]] for q in bundle]) for bundle in bundles]
        low, high = self._quantiles(torch.cat([*papers, torch.empty(0)]).double(), context.state)
        advantage_B = torch.zeros_like(rewards_B)
        for bundle, scores in zip(bundles, papers, strict=True):
            worth_P = self.worth(scores, low, high)
            groups = [rewards_B[rows[q]] for q in bundle]
            for q, split in zip(bundle, self.split(worth_P, groups), strict=True):
                advantage_B[rows[q][: len(worth_P)]] = split
        return batch.with_columns(advantage=advantage_B[mine].to(batch["reward"].dtype))

    def scores(self, groups: Sequence[Tensor]) -> Tensor:
        """S of each paper; the smallest group's size is the number of papers; (P,)."""
        papers = min(len(group) for group in groups)
        total_P = torch.stack([group[:papers] for group in groups]).sum(0)
        return total_P * (self.bundle / len(groups))

    def worth(self, scores_P: Tensor, low: float, high: float) -> Tensor:
        """The worth of each paper of a bundle; (P,).

        >>> scores = torch.tensor([0.0, 2.0, 3.0, 5.0])
        >>> RiskPo().worth(scores, low=1.0, high=4.0)
        tensor([-1.4411,  0.3203,  0.6405,  0.9608])
        """
        between_P = (scores_P - low).clamp(min=0) - (scores_P - high).clamp(min=0)
        if self.natural_baseline:
            between_P = between_P + low - high
        between_P = between_P / (self.high - self.low + self.epsilon)
        tail_P = -(low - scores_P).clamp(min=0) / (self.low + self.epsilon)
        mixed_P = (self.mix * tail_P + between_P) / (self.mix + 1)
        spread = scores_P.std() if len(scores_P) > 1 else scores_P.new_ones(())
        return mixed_P / (spread + self.epsilon)

    def split(self, worth_P: Tensor, groups: Sequence[Tensor]) -> list[Tensor]:
        """Each question's part of every paper's worth; (P,) each."""
        if self.credit == "uniform":
            return [worth_P for _ in groups]
        parts_NP = torch.stack([(group - group.mean())[: len(worth_P)] for group in groups])
        total_P = parts_NP.sum(0)
        divided_NP = worth_P * parts_NP / torch.where(total_P.abs() > 1e-6, total_P, 1)
        return list(torch.where(total_P.abs() > 1e-6, divided_NP, worth_P / len(groups)))

    def _quantiles(self, scores: Tensor, state: dict[str, Any]) -> tuple[float, float]:
        """F_α and F_β for this step; stores the next step's in `state`."""
        levels = (self.low, self.high)
        if not len(scores):
            return 0.0, 0.0
        found = state.get(_STATE) or [float(scores.quantile(level)) for level in levels]
        state[_STATE] = [
            value + self.rate * (level - float((scores < value).double().mean()))
            for value, level in zip(found, levels, strict=True)
        ]
        return found[0], found[1]


def _hashed(key: str) -> int:
    """48 bits, which a double holds exactly."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")
