"""BRPO: Budget Relative Policy Optimization, of AnytimeReasoner (arXiv 2505.13438).

One thought is cut at budgets b_1 < … < b_m and summarised A times at each. Budget j has the reward
r_j, the mean of its summaries', and the weight P_j. The tokens between two budgets get credit for
all later budgets, R_s = Σ_{j≥s} P_j r_j, so a thought has a reward after every segment. Thought and
summaries have separate advantages and one loss. Segments and budgets are counted from 0: segment s
ends at budget s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from .batch import Batch, Context
from .kernel import mean_among_equals
from .settings import NAME, Budgets, ClipHigh, DualClip, MethodSettings, Tokens
from .stages import Place

Prior = Literal["base", "uniform", "linear"]
VarianceReduction = Literal["full", "v1", "v2", "none"]
SummaryAdvantage = Literal["decoupled", "last"]


class BrpoConfig(MethodSettings):
    """BRPO: thoughts cut at every budget and summarised, rewarded densely."""

    method: Literal["brpo"] = Field("brpo", description=NAME)
    group_size: int = Field(8, ge=2, le=1024, description="thoughts per prompt (G)")
    clip_high: ClipHigh = 0.2
    dual_clip: DualClip = None
    budgets: Budgets = Field(
        (2000, 4000, 6000, 8000), description="tokens at which thoughts are cut, rising"
    )
    grace: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="last tokens of a budget in which a cut waits for a clean end, as in serving; "
        "serving's own min(64, 10 %) unless given",
    )
    prior: Prior = Field(
        "uniform", description="weight of the budgets: base (the last one), uniform, linear"
    )
    decay: float = Field(0.5, gt=0, le=1, description="weight of earlier rewards in V1 (λ)")
    variance_reduction: VarianceReduction = Field(
        "full", description="baseline: full, the thought's past (v1), its group (v2), none"
    )
    summaries: int = Field(4, ge=1, le=1024, description="summaries per thought and budget (A)")
    summary_tokens: Tokens = Field(128, description="tokens of a summary, the close text included")
    summary_advantage: SummaryAdvantage = Field(
        "decoupled",
        description="decoupled: against the same cut's; last: GRPO on the last budget's alone",
    )

    @property
    def longest(self) -> int:
        """Tokens of the longest thought."""
        return self.budgets[-1]

    @property
    def branches(self) -> int:
        return len(self.budgets) * self.summaries

    @property
    def branch_tokens(self) -> int:
        return self.summary_tokens

    def promises(
        self, hint: str | None, budgets: tuple[int, ...]
    ) -> tuple[str | None, tuple[int, ...]]:
        """No hint: BRPO trains cuts, so that a hint of its budgets would be new to the model."""
        return None, self.budgets

    @model_validator(mode="after")
    def _summaries_compare(self) -> Self:
        if self.summaries == 1 and self.summary_advantage == "decoupled":
            raise ValueError(
                "summaries must be at least 2, as one is its own mean: raise it, or set "
                "summary_advantage to last"
            )
        return self


def prior_weights(prior: Prior, budgets: tuple[int, ...]) -> Tensor:
    """P_j: all on the last budget (`base`), equal, or in proportion to b_j; (m,), sums to 1."""
    budgets_m = torch.tensor(budgets, dtype=torch.float32)
    if prior == "uniform":
        return torch.full_like(budgets_m, 1 / len(budgets))
    if prior == "linear":
        return budgets_m / budgets_m.sum()
    return (budgets_m == budgets_m.max()).float()


def dense_return(budget_rewards_Bm: Tensor, weights_m: Tensor) -> Tensor:
    """R_s = Σ_{j≥s} P_j r_j; (B, m)."""
    return (budget_rewards_Bm * weights_m).flip(1).cumsum(1).flip(1)


def past_baseline(budget_rewards_Bm: Tensor, weights_m: Tensor, decay: float) -> Tensor:
    """V1: the thought's own earlier rewards, nearer ones with more weight; (B, m).

    V1_s = (Σ_{j<s} λ^{s-j} r_j / Σ_{j<s} λ^{s-j}) · Σ_{j≥s} P_j, and 0 for s = 0.
    """
    budgets = len(weights_m)
    step_m = torch.arange(budgets, device=weights_m.device)
    distance_mm = step_m[:, None] - step_m[None, :]
    decay_mm = torch.where(distance_mm > 0, decay ** distance_mm.float(), 0)
    share_mm = decay_mm / decay_mm.sum(1, keepdim=True).clamp(min=torch.finfo().tiny)
    remaining_m = weights_m.flip(0).cumsum(0).flip(0)
    return (budget_rewards_Bm @ share_mm.T) * remaining_m


def baseline(budget_rewards_Gm: Tensor, weights_m: Tensor, config: BrpoConfig) -> Tensor:
    """V_s = (s/m)·V1_s + ((m-s)/m)·V2_s of one group, or V1 or V2 alone, or 0; (G, m).

    V2 is the mean return of the group's thoughts, this one included.
    """
    if config.variance_reduction == "none":
        return torch.zeros_like(budget_rewards_Gm)
    past_Gm = past_baseline(budget_rewards_Gm, weights_m, config.decay)
    group_Gm = dense_return(budget_rewards_Gm, weights_m).mean(0).expand_as(past_Gm)
    if config.variance_reduction == "v1":
        return past_Gm
    if config.variance_reduction == "v2":
        return group_Gm
    trust_m = torch.arange(len(weights_m), device=weights_m.device) / len(weights_m)
    return trust_m * past_Gm + (1 - trust_m) * group_Gm


def decoupled_summaries(rewards_BmA: Tensor, cut_Bm: Tensor) -> Tensor:
    """r - mean over the summaries of the same thought and cut; (B, m, A).

    Budgets that share a cut, because the thought had ended before, share their mean. Every budget
    has the same weight.
    """
    mean_Bm = mean_among_equals(rewards_BmA.mean(2), cut_Bm)
    return rewards_BmA - mean_Bm[:, :, None]


def last_summaries(rewards_GmA: Tensor) -> Tensor:
    """GRPO on the last budget's summaries alone, normalised over all of the group's thoughts."""
    advantages_GmA = torch.zeros_like(rewards_GmA)
    advantages_GmA[:, -1] = rewards_GmA[:, -1] - rewards_GmA[:, -1].mean(1).mean(0)
    return advantages_GmA


@dataclass(frozen=True, slots=True)
class OneIfSummaryCorrect:
    """R = 1 for a correct summary in form, else 0; (B, m, A).

    In form: thought and summary have exactly one end marker, the text did not end inside the
    thought, and the summary ended within its tokens. The paper does not require the last; here half
    an answer does not count.
    """

    config: BrpoConfig
    at: ClassVar[Place] = "reward"
    reads: ClassVar[frozenset[str]] = frozenset({"summary_correct"})
    makes: ClassVar[frozenset[str]] = frozenset({"reward"})

    def __call__(self, batch: Batch, context: Context) -> Batch:
        return batch.with_columns(reward=batch["summary_correct"].float())


@dataclass(frozen=True, slots=True)
class BudgetRelative:
    """A_s = R_s - V_s for the tokens of each segment, without division by a std.

    Makes `advantage` (B, m) by segment and, separately, `branch_advantage` (B, m, A) by summary.
    Budgets with the same `cut` (B, m) share their summaries' mean. GRPO on the same rollouts is
    prior `base`, variance reduction `v2`, summaries `last`.
    """

    config: BrpoConfig
    at: ClassVar[Place] = "credit"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "cut"})
    makes: ClassVar[frozenset[str]] = frozenset(
        {"advantage", "branch_advantage", "advantage_return", "advantage_baseline"}
    )

    def __call__(self, batch: Batch, context: Context) -> Batch:
        config, rewards_BmA = self.config, batch["reward"]
        weights_m = prior_weights(config.prior, config.budgets).to(rewards_BmA.device)
        return_Bm = dense_return(rewards_BmA.mean(2), weights_m)
        baseline_Bm = batch.per_group(
            lambda rewards_GmA: baseline(rewards_GmA.mean(2), weights_m, config), "reward"
        )
        if config.summary_advantage == "last":
            summaries_BmA = batch.per_group(last_summaries, "reward")
        else:
            summaries_BmA = decoupled_summaries(rewards_BmA, batch["cut"])
        return batch.with_columns(
            advantage=return_Bm - baseline_Bm,
            branch_advantage=summaries_BmA,
            advantage_return=return_Bm,
            advantage_baseline=baseline_Bm,
        )
