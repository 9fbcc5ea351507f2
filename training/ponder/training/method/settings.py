"""Settings that every method has: groups, the clip, added components, and a run's questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from .components import Added
from .kernel import ClippedObjective, Denominator, Objective
from .stages import Stage

if TYPE_CHECKING:
    from ..rollout.kinds import RolloutPlan

NAME = "which method it is"

Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
Longest = Annotated[
    int, Field(ge=8, le=1_000_000, description="tokens of the longest response (L_max)")
]
Share = Annotated[float, Field(ge=0, le=1)]
ClipHigh = Annotated[float, Field(gt=0, le=10, description="the ratio counts up to 1 + clip_high")]
DualClip = Annotated[
    float | None,
    Field(gt=1, le=1000, description="largest ratio that counts where A < 0; null for none"),
]


def _rising(budgets: tuple[int, ...]) -> tuple[int, ...]:
    if any(low >= high for low, high in pairwise(budgets)):
        raise ValueError(f"{budgets} must rise strictly: sort them, each once")
    return budgets


Rising = Annotated[tuple[Tokens, ...], Field(max_length=64), AfterValidator(_rising)]
Budgets = Annotated[Rising, Field(min_length=1)]


class MethodSettings(BaseModel):
    """Groups and the clipped surrogate; a run reads the properties of any method."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    if TYPE_CHECKING:

        @property
        def method(self) -> str:
            """The preset's name; every method has it as a literal."""

        @property
        def longest(self) -> int:
            """Tokens of the longest response, or of the longest thought where thoughts are cut."""

    group_size: int = Field(16, ge=2, le=1024, description="rollouts per prompt (G)")
    clip_low: float = Field(0.2, gt=0, lt=1, description="the ratio counts down to 1 - clip_low")
    clip_high: ClipHigh = 0.28
    dual_clip: DualClip = 3.0
    add: tuple[Added, ...] = Field(
        (),
        exclude_if=lambda added: not added,
        description="components on top of the method, each `{name: {its settings}}`",
    )

    @property
    def hints(self) -> tuple[str, ...]:
        """The hints that may open a thought."""
        return ()

    @property
    def attempts(self) -> int:
        """Batches to roll out for one step, at most."""
        return 1

    @property
    def anchor(self) -> float | None:
        """Decay of the anchor, an average of the weights in training; None without an anchor."""
        asked = (addition.component.anchor for addition in self.add)
        return next((decay for decay in asked if decay is not None), None)

    @property
    def probe_tokens(self) -> int:
        """Most tokens of a probe's answer behind a response; 0 without probes."""
        return max((addition.component.probe_tokens for addition in self.add), default=0)

    @property
    def branches(self) -> int:
        """Answers that branch off a rollout, each of at most `branch_tokens` tokens."""
        return 0

    @property
    def branch_tokens(self) -> int:
        return 0

    def promises(
        self, hint: str | None, budgets: tuple[int, ...]
    ) -> tuple[str | None, tuple[int, ...]]:
        """The contract's budget hint and trained budgets after training, given those before."""
        return hint, budgets

    @model_validator(mode="after")
    def _clips_nest(self) -> Self:
        if self.dual_clip is not None and self.dual_clip <= 1 + self.clip_high:
            raise ValueError(
                f"dual_clip must be above 1 + clip_high = {1 + self.clip_high:g}: raise it, "
                "or set it to null"
            )
        return self


class WholeResponses(MethodSettings):
    """Responses rolled out whole, none longer than `longest`."""

    longest: Longest = 4096


@dataclass(frozen=True, slots=True)
class Preset:
    """A method: its settings, its rollouts, and its stages and objective.

    `stages` and `objective` are made from the settings. The trainer divides the objective's sum
    over an update by `denominator`.
    """

    settings: type[MethodSettings]
    plan: type[RolloutPlan]
    stages: tuple[Callable[[Any], Stage], ...]
    objective: Callable[[Any], Objective] = ClippedObjective
    denominator: Denominator = "token_mean"
