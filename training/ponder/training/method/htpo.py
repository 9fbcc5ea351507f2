"""HTPO: Hierarchical Token-level Objective Control for Policy Optimization (arXiv 2605.08283).

DAPO, but a token's group decides its objective: is the prompt hard, is the response correct, is the
policy's entropy at this token high? Groups 1 to 8 number the answers: 1 is hard/correct/low, 2
hard/correct/high, 3 and 4 are hard/wrong, 5 to 8 the same for easy prompts.

Where PPO's clip would remove a token's gradient, groups 2, 4 and 8 keep one through q = π / sg(π),
whose value is 1: c·q·A. Groups 1 and 6 mask the extremes of entropy. The published code adds the
q-branches to the loss, which is the opposite sign of the paper's figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from .dapo import DynamicSampling
from .kernel import LossInputs, PerToken, clipped_surrogate, count_tokens, ratios
from .settings import NAME, Share

Sign = Literal["figure", "released"]


class HtpoConfig(DynamicSampling):
    """HTPO: DAPO with an objective for each of eight groups of tokens.

    It differs from DAPO beyond the clip, so it needs several updates per rollout, 4 in the paper.
    """

    method: Literal["htpo"] = Field("htpo", description=NAME)
    sign: Sign = Field(
        "figure", description="of the q-branches: the paper's figure's, or the released code's"
    )
    hard_below: Share = Field(0.6, description="group accuracy below which a prompt is hard")
    high_entropy_share: Share = Field(0.2, description="tokens of a response with high entropy")
    low_mask_share: Share = Field(0.006, description="low-entropy tokens silenced in group 1")
    high_mask_share: Share = Field(0.02, description="high-entropy tokens silenced in group 6")
    ratio_cap: float = Field(10.0, ge=1, le=1000, description="largest 1/ratio in group 2")


def kth_largest(values_BT: Tensor, members_BT: Tensor, share: float) -> Tensor:
    """Per row the k-th largest of its n members, k = max(int(share·n), 1); (B, 1).

    -inf where a row has no members.
    """
    # Doubles round as Python's int(share * n) does.
    k_B = (members_BT.sum(1).double() * share).long().clamp(min=1)
    sorted_BT = values_BT.masked_fill(~members_BT, -torch.inf).sort(1, descending=True).values
    return sorted_BT.gather(1, k_B[:, None] - 1)


def high_entropy(entropies_BT: Tensor, counted_BT: Tensor, share: float) -> Tensor:
    """The top `share` of every sequence, ties included; (B, T) bool."""
    return counted_BT & (entropies_BT >= kth_largest(entropies_BT, counted_BT, share))


def token_groups(rows: LossInputs, config: HtpoConfig) -> Tensor:
    """The group, 1 to 8, of every token; 0 where the mask is 0; (B, T)."""
    entropies_BT, correct_B = rows.column("entropy"), rows.column("correct")
    accuracy_B = rows.column("group_accuracy")
    counted_BT = rows.mask_BT > 0
    high_BT = high_entropy(entropies_BT, counted_BT, config.high_entropy_share)
    group_B = 1 + 4 * (accuracy_B >= config.hard_below).long() + 2 * (~correct_B).long()
    return torch.where(counted_BT, group_B[:, None] + high_BT.long(), 0)


def silenced(entropies_BT: Tensor, groups_BT: Tensor, config: HtpoConfig) -> tuple[Tensor, Tensor]:
    """Tokens without an objective: (the lowest entropies of group 1, the highest of group 6).

    The former are strictly below the k-th smallest entropy of the sequence's low set, so that a set
    under 2 / `low_mask_share` tokens has none. The latter are at or above the k-th largest of its
    high set, at least one token unless `high_mask_share` is 0.
    """
    counted_BT = groups_BT > 0
    high_BT = counted_BT & (groups_BT % 2 == 0)
    low_BT = counted_BT & ~high_BT
    floor_B1 = -kth_largest(-entropies_BT, low_BT, config.low_mask_share)
    ceiling_B1 = kth_largest(entropies_BT, high_BT, config.high_mask_share)
    masked_high_BT = (groups_BT == 6) & (entropies_BT >= ceiling_B1) & (config.high_mask_share > 0)
    return (groups_BT == 1) & (entropies_BT < floor_B1), masked_high_BT


def objective(rows: LossInputs, config: HtpoConfig) -> PerToken:
    """The objective of every token's group; silenced tokens are 0 and stay in the mask.

    A q-branch applies only for its intended sign of A (group 2: A > 0; groups 4 and 8: A < 0), and
    its 1/r is capped at `ratio_cap`; the published code does neither. Raises `ValueError` where
    `rows` lack entropies, group accuracy or correctness.
    """
    entropies_BT = rows.column("entropy")
    groups_BT = token_groups(rows, config)
    ratio_BT = ratios(rows)
    advantages_BT = rows.advantages_BT
    counted_BT = rows.mask_BT > 0
    # The dual clip should come last; it can come first, because it never meets a q-branch.
    surrogate = clipped_surrogate(ratio_BT, advantages_BT, config)

    below_BT = ratio_BT < 1 - config.clip_low
    explore_BT = (groups_BT == 2) & (advantages_BT > 0)
    rise_BT = explore_BT & surrogate.clipped_high_BT
    fall_BT = explore_BT & below_BT
    recover_BT = ((groups_BT == 4) | (groups_BT == 8)) & (advantages_BT < 0) & below_BT

    boost_BT = (1 / ratio_BT.detach()).clamp(max=config.ratio_cap)
    weight_BT = torch.where(fall_BT, boost_BT, 1 + config.clip_high)
    weight_BT = torch.where(recover_BT, 1 - config.clip_low, weight_BT)
    sign = 1 if config.sign == "figure" else -1
    log_probs_BT = torch.where(counted_BT, rows.log_probs_BT, 0)
    q_BT = (log_probs_BT - log_probs_BT.detach()).exp()
    branch_BT = rise_BT | fall_BT | recover_BT
    per_token_BT = torch.where(
        branch_BT, sign * weight_BT * q_BT * advantages_BT, surrogate.objective_BT
    )
    masked_low_BT, masked_high_BT = silenced(entropies_BT, groups_BT, config)
    per_token_BT = torch.where(counted_BT & ~masked_low_BT & ~masked_high_BT, per_token_BT, 0)
    named = {
        "clipped_low": surrogate.clipped_low_BT & ~branch_BT,
        "clipped_high": surrogate.clipped_high_BT & ~branch_BT,
        "dual_clipped": surrogate.dual_clipped_BT,
        "q_rise": rise_BT,
        "q_fall": fall_BT,
        "q_recover": recover_BT,
        "masked_low": masked_low_BT,
        "masked_high": masked_high_BT,
        **{f"group_{i}": groups_BT == i for i in range(1, 9)},
    }
    return PerToken(per_token_BT, count_tokens(counted_BT, named))


@dataclass(frozen=True, slots=True)
class TokenObjectives:
    """`objective` with the settings of a run."""

    config: HtpoConfig
    reads: ClassVar[frozenset[str]] = frozenset({"entropy", "group_accuracy", "correct"})

    def __call__(self, rows: LossInputs) -> PerToken:
        return objective(rows, self.config)
