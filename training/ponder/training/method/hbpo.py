"""HBPO: Hierarchical Budget Policy Optimization (arXiv 2507.15844).

A prompt's rollouts fall into subgroups, each with a hint of another budget b. A correct response of
n tokens earns f2(b) within its budget and less with every token above it. Its advantage compares it
with the whole group (inter), and its subgroup with the highest possible reward (intra).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from .batch import Batch, Context
from .kernel import mean_among_equals, normalised
from .settings import NAME, Budgets, WholeResponses
from .stages import Place


def scaled_budgets(longest: int) -> tuple[int, int, int, int]:
    """The paper's four budgets, as shares of the longest response."""
    return longest // 8, longest // 4, longest // 2, longest * 5 // 8


class HbpoConfig(WholeResponses):
    """HBPO: subgroups hinted with budgets, compared within and across."""

    method: Literal["hbpo"] = Field("hbpo", description=NAME)
    budgets: Budgets = Field(
        default_factory=lambda data: scaled_budgets(data["longest"]),
        description="tokens that hints promise, rising; L/8, L/4, L/2 and 5L/8 unless given",
    )
    subgroup_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default_factory=lambda data: (
            (data["group_size"] // len(data["budgets"]),) * len(data["budgets"])
        ),
        description="rollouts per budget, in the order of budgets; equal unless given",
    )
    alpha: float = Field(
        default_factory=lambda data: 1 / data["longest"],
        ge=0,
        le=1,
        description="reward lost with every token above the budget (α); 1/L unless given",
    )
    beta: float = Field(4.0, gt=0, le=1000, description="reward of a correct empty response (β)")
    hint: str = Field(
        "I will answer the question within {budget} tokens",
        description="text after the start of the thought; {budget} stands for the tokens",
    )
    loss_on_hint: bool = Field(True, description="learn to write the hint, too")
    count_hint: bool = Field(True, description="count the hint's tokens as the response's")
    format_penalty: float = Field(
        0.0,
        ge=-100,
        le=0,
        description="reward of a response that is not in form; published code: -1",
    )
    skip_all_wrong: bool = Field(
        False, description="learn nothing from questions that no rollout answered"
    )
    centre_intra: bool = Field(
        False, description="ours: subtract the group's mean from the intra term, which is never > 0"
    )
    unhinted: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (),
        description="ours: rollouts of each subgroup that get no hint and are judged by its "
        "budget; none unless given",
    )

    @property
    def row_budgets(self) -> tuple[int, ...]:
        """The budget promised to each of a prompt's G rollouts, in their order."""
        plan = zip(self.budgets, self.subgroup_sizes, strict=True)
        return tuple(budget for budget, size in plan for _ in range(size))

    @property
    def row_hints(self) -> tuple[bool, ...]:
        """Whether each of a prompt's G rollouts gets the hint of its budget."""
        unhinted = self.unhinted or (0,) * len(self.budgets)
        plan = zip(self.subgroup_sizes, unhinted, strict=True)
        return tuple(i < size - without for size, without in plan for i in range(size))

    @property
    def hints(self) -> tuple[str, ...]:
        return tuple(self.hint.format(budget=budget) for budget in self.budgets)

    def promises(
        self, hint: str | None, budgets: tuple[int, ...]
    ) -> tuple[str | None, tuple[int, ...]]:
        return self.hint, self.budgets

    @model_validator(mode="after")
    def _plan_holds(self) -> Self:
        if self.budgets[-1] >= self.longest:
            raise ValueError(
                f"budgets must stay below longest = {self.longest}: lower {self.budgets[-1]}, or "
                "raise longest"
            )
        if len(self.subgroup_sizes) != len(self.budgets):
            raise ValueError(
                f"subgroup_sizes must have one number for each of the {len(self.budgets)} budgets"
            )
        if self.unhinted and (
            len(self.unhinted) != len(self.budgets)
            or any(n > size for n, size in zip(self.unhinted, self.subgroup_sizes, strict=True))
        ):
            raise ValueError(
                f"unhinted must have one number for each of the {len(self.budgets)} budgets, at "
                f"most the subgroup's size in {self.subgroup_sizes}"
            )
        if sum(self.subgroup_sizes) != self.group_size:
            raise ValueError(
                f"subgroup_sizes {self.subgroup_sizes} must add up to group_size = "
                f"{self.group_size}: give uneven ones such as 2,2,4,4,2,2, or make group_size a "
                "multiple of the number of budgets"
            )
        if self.hint.count("{budget}") != 1 or set("{}") & set(self.hint.replace("{budget}", "")):
            raise ValueError("hint must hold {budget} once, and no other braces")
        return self


class Pricing(Protocol):
    """Settings of the price of length: β·cos falls to 0 at `longest` tokens."""

    @property
    def longest(self) -> int: ...
    @property
    def beta(self) -> float: ...


def cosine(tokens_B: Tensor, config: Pricing) -> Tensor:
    """β·cos(πn / 2L). For a budget this is f2, its subgroup's highest reward.

    Computed as a sine, which is exactly 0 at n = L.
    """
    return config.beta * torch.sin((config.longest - tokens_B) * (math.pi / (2 * config.longest)))


def above_budget(length_B: Tensor, budget_B: Tensor, config: HbpoConfig) -> Tensor:
    """f1: β·cos(πn / 2L) - α·|n - b|."""
    return cosine(length_B, config) - config.alpha * (length_B - budget_B).abs()


@dataclass(frozen=True, slots=True)
class BudgetReward:
    """R = f2(b) for a correct response within its budget, f1(n, b) up to L, 0 otherwise; (B,).

    A response that is not in form earns `format_penalty`: 0 in the paper, -1 in the published code.
    """

    config: HbpoConfig
    at: ClassVar[Place] = "reward"
    reads: ClassVar[frozenset[str]] = frozenset({"correct", "formatted", "length", "budget"})
    makes: ClassVar[frozenset[str]] = frozenset({"reward"})

    def __call__(self, batch: Batch, context: Context) -> Batch:
        config, length_B, budget_B = self.config, batch["length"], batch["budget"]
        earned_B = torch.where(
            length_B <= budget_B, cosine(budget_B, config), above_budget(length_B, budget_B, config)
        )
        earns_B = batch["correct"] & (length_B <= config.longest)
        earned_B = torch.where(earns_B, earned_B, 0)
        earned_B = torch.where(batch["formatted"], earned_B, config.format_penalty)
        return batch.with_columns(reward=earned_B)


@dataclass(frozen=True, slots=True)
class WithinAndAcross:
    """A = inter + intra: inter = (R - mean) / (std + 1e-6), intra = subgroup's mean - f2(b) ≤ 0.

    The published code adds intra twice, this adds it once. A question that no rollout solved has
    inter = 0, and intra alone lowers its rollouts' probability; `skip_all_wrong` leaves it out, and
    `centre_intra` keeps only what tells a subgroup from the others.
    """

    config: HbpoConfig
    at: ClassVar[Place] = "credit"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "budget", "correct"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage", "advantage_inter", "advantage_intra"})

    def __call__(self, batch: Batch, context: Context) -> Batch:
        inter_B = batch.per_group(normalised, "reward")
        intra_B = batch.per_group(self._intra, "reward", "budget")
        if self.config.skip_all_wrong:
            solved_B = batch.per_group(_solved, "correct")
            inter_B, intra_B = inter_B * solved_B, intra_B * solved_B
        return batch.with_columns(
            advantage=inter_B + intra_B, advantage_inter=inter_B, advantage_intra=intra_B
        )

    def _intra(self, rewards_G: Tensor, budget_G: Tensor) -> Tensor:
        mean_G = mean_among_equals(rewards_G[None], budget_G[None])[0]
        intra_G = mean_G - cosine(budget_G, self.config)
        return intra_G - intra_G.mean() if self.config.centre_intra else intra_G


def _solved(correct_G: Tensor) -> Tensor:
    return correct_G.any().expand(len(correct_G))
