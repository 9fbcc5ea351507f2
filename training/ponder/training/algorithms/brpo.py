"""BRPO: Budget Relative Policy Optimization, of AnytimeReasoner (arXiv 2505.13438).

One thought is cut at budgets b_1 < … < b_m and summarised A times at each. Budget j earns r_j, the
mean of its summaries, and weighs P_j. The tokens between two budgets answer for all budgets after
them, R_s = Σ_{j≥s} P_j r_j, so a thought has a reward after every segment. Thought and summaries
have advantages of their own, and one loss. Segments and budgets are counted from 0: segment s ends
at budget s.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from .kernel import by_group, mean_among_equals
from .outcomes import Advantages, AnytimeOutcomes

Prior = Literal["base", "uniform", "linear"]
VarianceReduction = Literal["full", "v1", "v2", "none"]
SummaryAdvantage = Literal["decoupled", "last"]


class Anytime(Protocol):
    """Settings of BRPO."""

    group_size: int
    budgets: tuple[int, ...]
    prior: Prior
    decay: float
    variance_reduction: VarianceReduction
    summary_advantage: SummaryAdvantage


def prior_weights(prior: Prior, budgets: tuple[int, ...]) -> Tensor:
    """P_j: all on the last budget (`base`), equal, or in proportion to b_j; (m,), sums to 1."""
    budgets_m = torch.tensor(budgets, dtype=torch.float32)
    if prior == "uniform":
        return torch.full_like(budgets_m, 1 / len(budgets))
    if prior == "linear":
        return budgets_m / budgets_m.sum()
    return (budgets_m == budgets_m.max()).float()


def reward(outcomes: AnytimeOutcomes, config: Anytime) -> Tensor:
    """1 for a correct summary in form, else 0; (B, m, A)."""
    return (outcomes.correct_BmA & outcomes.formatted_BmA).float()


def dense_return(budget_rewards_Bm: Tensor, weights_m: Tensor) -> Tensor:
    """R_s = Σ_{j≥s} P_j r_j; (B, m)."""
    return (budget_rewards_Bm * weights_m).flip(1).cumsum(1).flip(1)


def past_baseline(budget_rewards_Bm: Tensor, weights_m: Tensor, decay: float) -> Tensor:
    """V1: the thought's own rewards so far, near ones weighing more; (B, m).

    V1_s = (Σ_{j<s} λ^{s-j} r_j / Σ_{j<s} λ^{s-j}) · Σ_{j≥s} P_j, and 0 for s = 0.
    """
    budgets = len(weights_m)
    step_m = torch.arange(budgets, device=weights_m.device)
    distance_mm = step_m[:, None] - step_m[None, :]
    decay_mm = torch.where(distance_mm > 0, decay ** distance_mm.float(), 0)
    share_mm = decay_mm / decay_mm.sum(1, keepdim=True).clamp(min=torch.finfo().tiny)
    remaining_m = weights_m.flip(0).cumsum(0).flip(0)
    return (budget_rewards_Bm @ share_mm.T) * remaining_m


def group_baseline(return_Bm: Tensor, group_size: int) -> Tensor:
    """V2: the mean return of the group's thoughts, this one included; (B, m)."""
    return_QGm = return_Bm.reshape(-1, group_size, return_Bm.shape[1])
    return return_QGm.mean(1, keepdim=True).expand_as(return_QGm).flatten(0, 1)


def baseline(budget_rewards_Bm: Tensor, weights_m: Tensor, config: Anytime) -> Tensor:
    """V_s = (s/m)·V1_s + ((m-s)/m)·V2_s, or one of them alone, or nothing; (B, m)."""
    if config.variance_reduction == "none":
        return torch.zeros_like(budget_rewards_Bm)
    past_Bm = past_baseline(budget_rewards_Bm, weights_m, config.decay)
    group_Bm = group_baseline(dense_return(budget_rewards_Bm, weights_m), config.group_size)
    if config.variance_reduction == "v1":
        return past_Bm
    if config.variance_reduction == "v2":
        return group_Bm
    trust_m = torch.arange(len(weights_m), device=weights_m.device) / len(weights_m)
    return trust_m * past_Bm + (1 - trust_m) * group_Bm


def decoupled_summaries(rewards_BmA: Tensor, cut_Bm: Tensor) -> Tensor:
    """r - mean over the summaries of the same thought and cut; (B, m, A).

    Budgets that share a cut, because the thought had ended, share their mean. The weight is the
    same for every budget.
    """
    mean_Bm = mean_among_equals(rewards_BmA.mean(2), cut_Bm)
    return rewards_BmA - mean_Bm[:, :, None]


def last_summaries(rewards_BmA: Tensor, group_size: int) -> Tensor:
    """GRPO's reading: the last budget's summaries alone, against those of the group's thoughts."""
    mean_Q = rewards_BmA[:, -1].mean(1).reshape(-1, group_size).mean(1)
    advantages_BmA = torch.zeros_like(rewards_BmA)
    advantages_BmA[:, -1] = rewards_BmA[:, -1] - mean_Q.repeat_interleave(group_size)[:, None]
    return advantages_BmA


def advantage(rewards_BmA: Tensor, outcomes: AnytimeOutcomes, config: Anytime) -> Advantages:
    """R_s - V_s for the tokens of each segment, without division by a std; summaries apart.

    GRPO on the same rollouts is prior `base`, variance reduction `v2`, summaries `last`.
    """
    by_group(outcomes.length_B, config.group_size)
    weights_m = prior_weights(config.prior, config.budgets).to(rewards_BmA.device)
    budget_rewards_Bm = rewards_BmA.mean(2)
    return_Bm = dense_return(budget_rewards_Bm, weights_m)
    baseline_Bm = baseline(budget_rewards_Bm, weights_m, config)
    if config.summary_advantage == "last":
        summaries_BmA = last_summaries(rewards_BmA, config.group_size)
    else:
        budgets_m = torch.tensor(config.budgets, device=rewards_BmA.device)
        cut_Bm = torch.minimum(outcomes.length_B[:, None], budgets_m)
        summaries_BmA = decoupled_summaries(rewards_BmA, cut_Bm)
    return Advantages(
        return_Bm - baseline_Bm,
        starts=(0, *config.budgets[:-1]),
        summaries_BmA=summaries_BmA,
        parts={"return": return_Bm, "baseline": baseline_Bm},
    )
