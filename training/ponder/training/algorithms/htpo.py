"""HTPO: Hierarchical Token-level Objective Control for Policy Optimization (arXiv 2605.08283).

DAPO, but the objective of a token follows its group: is the prompt hard, the response correct, the
policy's entropy at this token high? Groups 1 to 8 count those three in binary: 1 hard/correct/low,
2 hard/correct/high, 3 and 4 hard/wrong, 5 to 8 the same for easy prompts.

Where PPO's clip would silence a token, groups 2, 4 and 8 keep a gradient through
q = π / sg(π), whose value is 1: c·q·A. Groups 1 and 6 silence the extremes of entropy. The
published code adds the q-branches to the loss, the opposite sign of the paper's figure.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from .kernel import Clipping, Objective, Rows, clipped_surrogate, count_tokens, ratios

Sign = Literal["figure", "released"]


class Hierarchy(Clipping, Protocol):
    """Settings of HTPO."""

    sign: Sign
    hard_below: float
    high_entropy_share: float
    low_mask_share: float
    high_mask_share: float
    ratio_cap: float


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


def token_groups(rows: Rows, config: Hierarchy) -> Tensor:
    """The group, 1 to 8, of every token; 0 where the mask is 0; (B, T)."""
    entropies_BT, accuracy_B, correct_B = _required(rows)
    counted_BT = rows.mask_BT > 0
    high_BT = high_entropy(entropies_BT, counted_BT, config.high_entropy_share)
    group_B = 1 + 4 * (accuracy_B >= config.hard_below).long() + 2 * (~correct_B).long()
    return torch.where(counted_BT, group_B[:, None] + high_BT.long(), 0)


def silenced(entropies_BT: Tensor, groups_BT: Tensor, config: Hierarchy) -> tuple[Tensor, Tensor]:
    """Tokens without an objective: (the lowest entropies of group 1, the highest of group 6).

    Strictly below the k-th smallest of the sequence's low set, which spares all sets under
    2 / `low_mask_share` tokens; at or above the k-th largest of its high set, one at least.
    """
    counted_BT = groups_BT > 0
    high_BT = counted_BT & (groups_BT % 2 == 0)
    low_BT = counted_BT & ~high_BT
    floor_B1 = -kth_largest(-entropies_BT, low_BT, config.low_mask_share)
    ceiling_B1 = kth_largest(entropies_BT, high_BT, config.high_mask_share)
    return (
        (groups_BT == 1) & (entropies_BT < floor_B1),
        (groups_BT == 6) & (entropies_BT >= ceiling_B1),
    )


def objective(rows: Rows, config: Hierarchy) -> Objective:
    """The objective of every token's group; silenced tokens are 0 and stay in the mask.

    A q-branch is taken only with the sign of A it is meant for (group 2: A > 0; groups 4 and 8:
    A < 0), and 1/r in it is capped at `ratio_cap`: the published code does neither. Raises
    ValueError where `rows` lack entropies, group accuracy or correctness.
    """
    entropies_BT, _, _ = _required(rows)
    groups_BT = token_groups(rows, config)
    ratio_BT = ratios(rows)
    advantages_BT = rows.advantages_BT
    counted_BT = rows.mask_BT > 0
    # The dual clip is meant to come last; no q-branch reaches it, so it can come first.
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
    return Objective(per_token_BT, count_tokens(counted_BT, named))


def _required(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    if rows.entropies_BT is None or rows.group_accuracy_B is None or rows.correct_B is None:
        raise ValueError("HTPO needs rows with entropies_BT, group_accuracy_B and correct_B")
    return rows.entropies_BT, rows.group_accuracy_B, rows.correct_B
