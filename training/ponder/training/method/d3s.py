"""D³S: Dynamic Dual-level Down-Sampling (arXiv 2509.22115), for any advantage.

Rows: each group keeps the N rollouts whose advantages have the largest variance; the others teach
nothing. The kept advantages are always some of the smallest and some of the largest. Tokens: the
kept rows of all processes together keep the share K of the tokens with the largest |A|·H, where H
is the entropy of the sampling policy.

Both shares rise linearly over the first `until` steps, so that training begins with the strongest
signal and ends with all of it. The available text gives the rule without numbers: the shares and
`until` are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from .batch import Batch, Context, Node, Rollout
from .stages import Component, Place, Stage


class D3s(Component):
    """D³S: learn from the most informative rollouts and tokens (arXiv 2509.22115)."""

    rescores: ClassVar[bool] = True

    rows: float = Field(0.5, gt=0, le=1, description="rollouts of a group at step 0, as a share")
    rows_end: float = Field(1.0, gt=0, le=1, description="the same from step `until` on")
    tokens: float = Field(0.2, gt=0, le=1, description="tokens (K) at step 0, as a share")
    tokens_end: float = Field(1.0, gt=0, le=1, description="the same from step `until` on")
    until: int = Field(100, ge=1, le=1_000_000, description="steps over which both shares change")

    def stages(self) -> Sequence[Stage]:
        return (Rows(self), Tokens(self))

    def at_step(self, first: float, last: float, step: int) -> float:
        """The share at a step, on a line from `first` to `last`.

        >>> D3s(until=4).at_step(0.5, 1.0, 1)
        0.625
        """
        return first + (last - first) * min(step / self.until, 1.0)


@dataclass(frozen=True, slots=True)
class Rows:
    """Keeps the N ≥ 2 rollouts of each group whose advantages vary most."""

    config: D3s
    at: ClassVar[Place] = "weight"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage"})
    makes: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, batch: Batch, context: Context) -> Batch:
        share = self.config.at_step(self.config.rows, self.config.rows_end, context.step)
        mean_B = batch["advantage"].flatten(1).mean(1) if batch["advantage"].dim() > 1 else None
        advantage_B = batch["advantage"] if mean_B is None else mean_B
        rollouts = list(batch.rollouts)
        for low, high in batch.bounds:
            count = max(math.ceil(round(share * (high - low), 9)), min(2, high - low))
            kept = most_varied(advantage_B[low:high], count)
            for i in set(range(low, high)) - {low + k for k in kept}:
                rollouts[i] = muted(rollouts[i])
        return batch.with_rollouts(rollouts)


def most_varied(values_G: Tensor, count: int) -> list[int]:
    """The indices of the `count` values with the largest variance.

    >>> most_varied(torch.tensor([0.1, 1.0, 0.0, -1.0]), 2)
    [1, 3]
    """
    order = values_G.double().sort(stable=True).indices
    splits = [torch.cat([order[:k], order[len(order) - count + k :]]) for k in range(count + 1)]
    best = max(splits, key=lambda split: round(float(values_G[split].double().var(0, False)), 12))
    return sorted(best.tolist())


def muted(rollout: Rollout) -> Rollout:
    """The same rollout without learnt tokens."""
    return replace(
        rollout,
        nodes=tuple(
            replace(node, learnt=False, forced=len(node.ids) if node.after is not None else 0)
            for node in rollout.nodes
        ),
    )


@dataclass(frozen=True, slots=True)
class Tokens:
    """Keeps the tokens of the trunks with the largest |A|·H, and all tokens of branches."""

    config: D3s
    at: ClassVar[Place] = "weight"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage"})
    makes: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, batch: Batch, context: Context) -> Batch:
        share = self.config.at_step(self.config.tokens, self.config.tokens_end, context.step)
        scored = context.score([(*r.prompt.ids, *r.tokens) for r in batch.rollouts])
        weights = [
            torch.cat([*_weights(rollout, advantage, scores.entropies), torch.empty(0)])
            for rollout, advantage, scores in zip(
                batch.rollouts, batch["advantage"], scored, strict=True
            )
        ]
        everyone, _ = context.gather(torch.cat([*weights, torch.empty(0)]))
        least = kth_largest(everyone, share)
        pairs = zip(batch.rollouts, weights, strict=True)
        return batch.with_rollouts([_kept(rollout, it >= least) for rollout, it in pairs])


def kth_largest(values_N: Tensor, share: float) -> float:
    """The ⌈share·N⌉-th largest value, as a threshold that keeps ties.

    >>> kth_largest(torch.tensor([3.0, 1.0, 2.0, 2.0]), 0.5)
    2.0
    """
    if not len(values_N):
        return 0.0
    count = math.ceil(round(share * len(values_N), 9))
    return float(values_N.sort(descending=True).values[count - 1])


def _learnt(node: Node) -> Tensor:
    return torch.tensor(node.learnt).expand(len(node.ids))


def _weights(rollout: Rollout, advantage: Tensor, entropies_T: Tensor) -> list[Tensor]:
    """|A|·H of the learnt tokens of each node of the trunk, in their order."""
    found, begin = [], len(rollout.prompt.ids) - 1
    for node in rollout.trunk:
        entropies_N = entropies_T[begin : begin + len(node.ids)]
        begin += len(node.ids)
        found.append((advantage[node.place].abs() * entropies_N)[_learnt(node)])
    return found


def _kept(rollout: Rollout, kept_N: Tensor) -> Rollout:
    """The rollout in which only those of the trunk's N learnt tokens with `kept_N` stay learnt."""
    nodes: list[Node] = []
    kept = iter(kept_N.tolist())
    for node in rollout.nodes:
        if node.after is None:
            learnt = tuple(it and next(kept) for it in _learnt(node).tolist())
            nodes.append(replace(node, learnt=learnt))
        else:
            nodes.append(node)
    return replace(rollout, nodes=tuple(nodes))
