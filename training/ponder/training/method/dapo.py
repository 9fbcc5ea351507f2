"""DAPO: Decoupled Clip and Dynamic Sampling Policy Optimization (arXiv 2503.14476).

GRPO with a higher upper clip, token mean, groups without variance dropped (§3.2) and a soft
penalty on overlong responses (§3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from .batch import Batch, Context
from .settings import NAME, DualClip, Longest, Tokens, WholeResponses
from .stages import Place


class DynamicSampling(WholeResponses):
    """DAPO's additions to GRPO, which HTPO shares."""

    longest: Longest = 20480
    dual_clip: DualClip = 10.0
    dynamic_sampling: bool = Field(
        True, description="replace groups that are all correct or all wrong by others"
    )
    generation_batches: int = Field(
        10, ge=1, le=1000, description="batches to roll out for one step, at most"
    )
    overlong_buffer: Tokens = Field(
        default_factory=lambda data: data["longest"] // 5,
        description="last tokens before longest, which cost; a fifth of it unless given",
    )
    overlong_factor: float = Field(
        1.0, ge=0, le=100, description="cost of the whole overlong buffer; 0 for none"
    )

    @property
    def attempts(self) -> int:
        return self.generation_batches if self.dynamic_sampling else 1

    @model_validator(mode="after")
    def _buffer_fits(self) -> Self:
        if self.overlong_buffer > self.longest:
            raise ValueError(f"overlong_buffer must be at most longest = {self.longest}: lower it")
        return self


class DapoConfig(DynamicSampling):
    """DAPO: GRPO with dynamic sampling and a soft overlong penalty."""

    method: Literal["dapo"] = Field("dapo", description=NAME)


def overlong_penalty(length_B: Tensor, longest: int, buffer: int) -> Tensor:
    """min(-(n - (longest - buffer)) / buffer, 0): from 0 to -1 over the last `buffer` tokens."""
    return (-(length_B - (longest - buffer)) / buffer).clamp(max=0)


@dataclass(frozen=True, slots=True)
class OverlongCosts:
    """R = 1 where correct, else 0, and the soft penalty on overlong responses; (B,)."""

    config: DynamicSampling
    at: ClassVar[Place] = "reward"
    reads: ClassVar[frozenset[str]] = frozenset({"correct", "length"})
    makes: ClassVar[frozenset[str]] = frozenset({"reward"})

    def __call__(self, batch: Batch, context: Context) -> Batch:
        config = self.config
        penalty_B = overlong_penalty(batch["length"], config.longest, config.overlong_buffer)
        earned_B = batch["correct"].float() + config.overlong_factor * penalty_B
        return batch.with_columns(reward=earned_B)


@dataclass(frozen=True, slots=True)
class MixedGroups:
    """Keep the groups that teach something: neither all wrong nor all correct."""

    config: DynamicSampling
    at: ClassVar[Place] = "select"
    reads: ClassVar[frozenset[str]] = frozenset({"correct"})
    makes: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, batch: Batch, context: Context) -> Batch:
        if not self.config.dynamic_sampling:
            return batch
        return batch.keep(batch.per_group(_mixed, "correct"))


def _mixed(correct_G: Tensor) -> Tensor:
    return (correct_G.any() & ~correct_G.all()).expand(len(correct_G))
