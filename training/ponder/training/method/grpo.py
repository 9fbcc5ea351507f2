"""GRPO: Group Relative Policy Optimization (arXiv 2402.03300), as the baseline of later papers.

The mean of a prompt's rollouts is their baseline: A = (R - mean) / (std + 1e-6), R = 1 where
correct.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from .batch import Batch, Context
from .kernel import centred, over_std
from .settings import NAME, MethodSettings, WholeResponses
from .stages import Place


class GrpoConfig(WholeResponses):
    """GRPO: correct or not, against the group."""

    method: Literal["grpo"] = Field("grpo", description=NAME)


@dataclass(frozen=True, slots=True)
class OneIfCorrect:
    """R = 1 where correct, else 0; (B,)."""

    config: MethodSettings
    at: ClassVar[Place] = "reward"
    reads: ClassVar[frozenset[str]] = frozenset({"correct"})
    makes: ClassVar[frozenset[str]] = frozenset({"reward"})

    def __call__(self, batch: Batch, context: Context) -> Batch:
        return batch.with_columns(reward=batch["correct"].float())


@dataclass(frozen=True, slots=True)
class GroupMean:
    """R - mean of the group; (B,), in double precision."""

    config: MethodSettings
    at: ClassVar[Place] = "credit"
    reads: ClassVar[frozenset[str]] = frozenset({"reward"})
    makes: ClassVar[frozenset[str]] = frozenset({"centred"})

    def __call__(self, batch: Batch, context: Context) -> Batch:
        return batch.with_columns(centred=batch.per_group(centred, "reward"))


@dataclass(frozen=True, slots=True)
class GroupStd:
    """A = centred reward / (std of the group + 1e-6), unbiased std; (B,)."""

    config: MethodSettings
    at: ClassVar[Place] = "normalise"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "centred"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage"})

    def __call__(self, batch: Batch, context: Context) -> Batch:
        return batch.with_columns(advantage=batch.per_group(over_std, "centred", "reward"))
