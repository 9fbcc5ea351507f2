"""A²FM's forced modes with the reward of its Adaptive Policy Optimization, APO (arXiv 2510.12838).

Some of a prompt's rollouts are forced to answer at once, some to think; the rest choose. The share
p of right answers among the immediate ones measures how easy the prompt is. A prompt with p ≥ τ is
easy, and a response to it that thinks earns its reward times 1 - p^α, α = 2: the more reliable the
cheap mode, the less a thought earns. On other prompts rewards stay unchanged.

The paper has a third mode, with tools, which is not rolled out here. The available text gives the
rule and α. Ours are τ, the numbers of forced rollouts, the text that forces a thought, and the same
price for a forced thought as for a free one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from .batch import Batch, Context
from .stages import Component, Place

if TYPE_CHECKING:
    from ..rollout.kinds import RolloutPlan


class A2fm(Component):
    """A²FM: forced modes, and thinking that earns less where it is not needed (arXiv 2510.12838).

    It needs a method that rolls out plain responses.
    """

    at: ClassVar[Place] = "reward"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "correct", "forced", "thought"})
    makes: ClassVar[frozenset[str]] = frozenset({"reward"})

    instant: int = Field(3, ge=1, le=1024, description="rollouts forced to answer at once")
    thinking: int = Field(3, ge=0, le=1024, description="rollouts forced to think")
    opening: str = Field(
        "Let me think.", min_length=1, description="text that begins a forced thought"
    )
    easy: float = Field(
        0.75, gt=0, le=1, description="least share of right immediate answers of an easy prompt (τ)"
    )
    power: float = Field(2.0, gt=0, le=100, description="power of p in the price of a thought (α)")

    def plan(self, usual: type[RolloutPlan]) -> type[RolloutPlan]:
        from ..rollout.modes import ModesPlan

        class Forced(ModesPlan):
            instant = self.instant
            thinking = self.thinking
            opening = self.opening

        return Forced

    def __call__(self, batch: Batch, context: Context) -> Batch:
        share_B = batch.per_group(self.share, "correct", "forced", "thought").float()
        return batch.with_columns(reward=batch["reward"] * share_B)

    def share(self, correct_G: Tensor, forced_G: Tensor, thought_G: Tensor) -> Tensor:
        """The share that remains of each reward of one group; (G,), in double precision.

        >>> right = torch.tensor([True, True, True, False, True, True])
        >>> forced = torch.tensor([True, True, True, True, True, False])
        >>> thought = torch.tensor([False, False, False, False, True, True])
        >>> A2fm().share(right, forced, thought).tolist()
        [1.0, 1.0, 1.0, 1.0, 0.4375, 0.4375]
        """
        at_once_G = correct_G[forced_G & ~thought_G].double()
        chance = float(at_once_G.mean()) if len(at_once_G) else 0.0
        price = 1 - chance**self.power if chance >= self.easy else 1.0
        return torch.where(thought_G, price, torch.ones(len(correct_G), dtype=torch.double))

    def notes(self, group_size: int) -> Iterator[str]:
        forced = self.instant + self.thinking
        told = (
            f"{self.instant} + {self.thinking} of {group_size} are forced; lower a2fm.instant or "
            "a2fm.thinking, or raise method.group_size"
        )
        if forced > group_size:
            raise ValueError(f"method.add: a2fm does not fit its group: {told}")
        if forced == group_size:
            yield f"a2fm leaves no rollout free to choose: {told}"
