"""DOT: Dynamic Outlier Truncation (arXiv 2601.03969), an editor of rollouts for any method.

In a group that is all correct, a response much longer than its siblings rambles. DOT cuts off its
tail beyond T = ⌊mean + α·std⌋ of the group's lengths, if the tail has `least` tokens or more, and
judges the rest again. Without its answer the response is wrong, and so the group has a signal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import ClassVar

from pydantic import Field

from .batch import Batch, Context
from .stages import Component, Place


class Dot(Component):
    """DOT: cuts the tails of outliers in all-correct groups (arXiv 2601.03969)."""

    at: ClassVar[Place] = "edit"
    reads: ClassVar[frozenset[str]] = frozenset({"correct"})

    alpha: float = Field(
        3.0, gt=0, le=100, description="standard deviations above the mean that a length may be (α)"
    )
    least: int = Field(32, ge=1, le=1_000_000, description="tokens of the shortest tail cut off")

    def __call__(self, batch: Batch, context: Context) -> Batch:
        rollouts = list(batch.rollouts)
        for low, high in batch.bounds:
            if not batch["correct"][low:high].all():
                continue
            lengths = [len(rollout.of("response")) for rollout in rollouts[low:high]]
            limit = self.limit(lengths)
            for i, length in enumerate(lengths, low):
                if length - limit >= self.least:
                    rollouts[i] = rollouts[i].cut("response", limit)
        return context.judge(batch.with_rollouts(rollouts))

    def limit(self, lengths: list[int]) -> int:
        """T = ⌊mean + α·std⌋, unbiased std.

        >>> Dot().limit([100] * 11 + [1000])
        954
        """
        spread = stdev(lengths) if len(lengths) > 1 else 0.0
        return math.floor(fmean(lengths) + self.alpha * spread)

    def notes(self, group_size: int) -> Iterator[str]:
        """A note where `alpha` is out of reach: no length of G is more than (G - 1)/√G standard
        deviations above their mean.
        """
        if (group_size - 1) / math.sqrt(group_size) <= self.alpha:
            enough = next(g for g in range(2, 20_000) if (g - 1) / math.sqrt(g) > self.alpha)
            yield (
                f"dot cuts nothing: of {group_size} lengths none is alpha = {self.alpha:g} "
                f"standard deviations above their mean; raise method.group_size to {enough}, or "
                "lower alpha"
            )
