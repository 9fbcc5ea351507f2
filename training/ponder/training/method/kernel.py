"""Functions that methods share: group statistics, the clipped surrogate, the sum over tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

# exp(±20) is outside every clip; larger ratios would overflow into NaN gradients.
_LARGEST_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class LossInputs:
    """The tokens of B completions, padded to T.

    `mask_BT` (bool, or float weights) says which tokens count in the loss; values at other places
    do not matter. Log-probabilities are natural and of the sampled tokens, under the current policy
    (with gradient) and under the sampling policy. `columns` has the columns that the objective
    reads: `entropy` (B, T) is the current policy's in nats, at the sampling temperature, without
    gradient; any other name is a column of the batch (B,).
    """

    log_probs_BT: Tensor
    old_log_probs_BT: Tensor
    advantages_BT: Tensor
    mask_BT: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    def column(self, name: str) -> Tensor:
        if name not in self.columns:
            there = ", ".join(self.columns) or "no column"
            raise ValueError(f"the objective has {there}, not {name}: name it in `reads`")
        return self.columns[name]


@dataclass(frozen=True, slots=True)
class PerToken:
    """A per-token objective to maximise, 0 where the mask is, and sums for the logs.

    `stats` are scalars without gradient that add up over micro-batches; `tokens` among them is the
    denominator of the others' shares.
    """

    per_token_BT: Tensor
    stats: dict[str, Tensor]


class Objective(Protocol):
    """The function that an update maximises; `reads` names the columns that it needs.

    A token with an advantage of 0 must add nothing and have no gradient, unless the objective reads
    `t1.REFERENCE`: engines leave out rows that have only such tokens. The trainer divides the sum
    over an update by the method's denominator. Example:
    `ClippedObjective(config)(LossInputs(log_probs_BT, old_BT, advantages_BT, mask_BT))`.
    """

    @property
    def reads(self) -> frozenset[str]: ...

    def __call__(self, rows: LossInputs) -> PerToken: ...


class Clipping(Protocol):
    """Settings of the clipped surrogate, which holds the ratio in [1 - clip_low, 1 + clip_high]."""

    clip_low: float
    clip_high: float
    dual_clip: float | None


class Surrogate(NamedTuple):
    """The clipped objective, and the tokens that each clip holds (which have no gradient)."""

    objective_BT: Tensor
    clipped_low_BT: Tensor
    clipped_high_BT: Tensor
    dual_clipped_BT: Tensor


def clipped_surrogate(ratio_BT: Tensor, advantages_BT: Tensor, config: Clipping) -> Surrogate:
    """min(rA, clip(r)A), and for A < 0 no less than `dual_clip`·A where that is set.

    PPO (arXiv 1707.06347, eq. 7) with the two ends apart (DAPO, arXiv 2503.14476, §3.1) and the
    dual clip (arXiv 1912.09729, eq. 6). A ratio exactly on an end is inside.
    """
    lowest, highest = 1 - config.clip_low, 1 + config.clip_high
    low_BT = (advantages_BT < 0) & (ratio_BT < lowest)
    high_BT = (advantages_BT > 0) & (ratio_BT > highest)
    objective_BT = ratio_BT * advantages_BT
    objective_BT = torch.where(low_BT, lowest * advantages_BT, objective_BT)
    objective_BT = torch.where(high_BT, highest * advantages_BT, objective_BT)
    if config.dual_clip is None:
        return Surrogate(objective_BT, low_BT, high_BT, torch.zeros_like(low_BT))
    dual_BT = (advantages_BT < 0) & (ratio_BT > config.dual_clip)
    objective_BT = torch.where(dual_BT, config.dual_clip * advantages_BT, objective_BT)
    return Surrogate(objective_BT, low_BT, high_BT, dual_BT)


def ratios(rows: LossInputs) -> Tensor:
    """π/π_old of every token (B, T), with gradient; 1 where the mask is 0."""
    log_ratio_BT = rows.log_probs_BT - rows.old_log_probs_BT
    log_ratio_BT = torch.where(rows.mask_BT > 0, log_ratio_BT, 0)
    return log_ratio_BT.clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp()


def clipped_objective(rows: LossInputs, config: Clipping) -> PerToken:
    """The clipped surrogate of every token."""
    surrogate = clipped_surrogate(ratios(rows), rows.advantages_BT, config)
    counted_BT = rows.mask_BT > 0
    named = {
        "clipped_low": surrogate.clipped_low_BT,
        "clipped_high": surrogate.clipped_high_BT,
        "dual_clipped": surrogate.dual_clipped_BT,
    }
    return PerToken(
        torch.where(counted_BT, surrogate.objective_BT, 0), count_tokens(counted_BT, named)
    )


@dataclass(frozen=True, slots=True)
class ClippedObjective:
    """The clipped surrogate of every token: the objective of all methods but HTPO."""

    config: Clipping
    reads: frozenset[str] = frozenset()

    def __call__(self, rows: LossInputs) -> PerToken:
        return clipped_objective(rows, self.config)


def count_tokens(counted_BT: Tensor, named: dict[str, Tensor]) -> dict[str, Tensor]:
    """The number of counted tokens (`tokens`), and of those in each mask of `named`."""
    counts = {name: (members_BT & counted_BT).sum() for name, members_BT in named.items()}
    return {"tokens": counted_BT.sum(), **counts}


# The divisor of a sum over tokens: the number of learnt tokens, or a constant, rows times the
# longest response (Dr. GRPO, arXiv 2503.20783, §3.2).
Denominator = Literal["token_mean", "constant"]


def aggregate(per_token_BT: Tensor, mask_BT: Tensor, denominator: float | Tensor) -> Tensor:
    """Σ of the masked objective / `denominator`, a scalar; the micro-batches' results add up."""
    return torch.where(mask_BT > 0, per_token_BT * mask_BT, 0).sum() / denominator


def centred(rewards_G: Tensor) -> Tensor:
    """R - mean of one group; (G,), in double precision.

    In single precision, rounding noise among equal rewards over a small std would look like a
    signal.
    """
    rewards_G = rewards_G.double()
    return rewards_G - rewards_G.mean()


def over_std(centred_G: Tensor, rewards_G: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Centred rewards / (unbiased std of the rewards + ε); 0 for a group of one rollout; (G,)."""
    if len(rewards_G) == 1:
        return torch.zeros_like(rewards_G)
    spread = rewards_G.double().std(correction=1)
    return (centred_G / (spread + epsilon)).to(rewards_G.dtype)


def normalised(rewards_G: Tensor) -> Tensor:
    """(R - mean) / (std + ε) of one group; (G,)."""
    return over_std(centred(rewards_G), rewards_G)


def mean_among_equals(values_QN: Tensor, keys_QN: Tensor) -> Tensor:
    """For each entry the mean of the entries in its row that have the same key; (Q, N)."""
    equal_QNN = (keys_QN[:, :, None] == keys_QN[:, None, :]).to(values_QN.dtype)
    return (equal_QNN @ values_QN[:, :, None]).squeeze(2) / equal_QNN.sum(2)
