"""The methods by name: each method's rollouts, its stages and its objective.

Defaults of the settings are the papers' own (HBPO arXiv 2507.15844, BRPO 2505.13438, HTPO
2605.08283; GRPO and the length penalty as HBPO's study ran them).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..rollout.kinds import HintedPlan, PlainPlan, RolloutPlan, TruncatedPlan
from .brpo import BrpoConfig, BudgetRelative, OneIfSummaryCorrect
from .components import conflict
from .dapo import DapoConfig, MixedGroups, OverlongCosts
from .grpo import GroupMean, GroupStd, GrpoConfig, OneIfCorrect
from .hbpo import BudgetReward, HbpoConfig, WithinAndAcross
from .htpo import HtpoConfig, TokenObjectives
from .kernel import Objective
from .length_penalty import CosineReward, LengthPenaltyConfig
from .settings import MethodSettings, Preset
from .stages import Stage, check, ordered
from .t1 import REFERENCE

PRESETS: dict[str, Preset] = {
    "grpo": Preset(GrpoConfig, PlainPlan, (OneIfCorrect, GroupMean, GroupStd)),
    "dapo": Preset(DapoConfig, PlainPlan, (OverlongCosts, MixedGroups, GroupMean, GroupStd)),
    "hbpo": Preset(HbpoConfig, HintedPlan, (BudgetReward, WithinAndAcross)),
    "length-penalty": Preset(LengthPenaltyConfig, PlainPlan, (CosineReward, GroupMean, GroupStd)),
    "brpo": Preset(
        BrpoConfig, TruncatedPlan, (OneIfSummaryCorrect, BudgetRelative), denominator="constant"
    ),
    "htpo": Preset(
        HtpoConfig, PlainPlan, (OverlongCosts, MixedGroups, GroupMean, GroupStd), TokenObjectives
    ),
}

if TYPE_CHECKING:
    MethodConfig = MethodSettings
else:
    MethodConfig = Annotated[
        reduce(or_, (preset.settings for preset in PRESETS.values())),
        Field(discriminator="method"),
    ]
"""The `method` section of a recipe: the settings of the preset that it names."""


ENGINE_MADE = frozenset({"entropy", REFERENCE})
"""Columns that an objective may read although no stage makes them."""


@dataclass(frozen=True, slots=True)
class Method:
    """A preset with its settings and the recipe's components, ready to run.

    `plan` rolls out; `stages` are in order; `ships` are the columns that rows carry for the
    objective; `notes` are sentences for the user at the start.
    """

    settings: MethodSettings
    preset: Preset
    plan: type[RolloutPlan]
    stages: tuple[Stage, ...]
    objective: Objective
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: MethodSettings) -> Method:
        """The method of these settings; raises `ValueError` for a component that does not fit."""
        preset = PRESETS[settings.method]
        if wrong := conflict(settings.method, [addition.name for addition in settings.add]):
            raise ValueError(f"method.add: {wrong}")
        added = [addition.component for addition in settings.add]
        stages = ordered(
            [
                *(stage(settings) for stage in preset.stages),
                *(stage for component in added for stage in component.stages()),
            ]
        )
        objective = reduce(
            lambda inner, component: component.around(inner), added, preset.objective(settings)
        )
        inside_out = sorted(added, key=lambda component: component.wraps)
        plan = reduce(lambda usual, component: component.plan(usual), inside_out, preset.plan)
        try:
            columns = check(stages, plan.makes, plan.ragged)
        except ValueError as error:
            raise ValueError(f"method.add: with {settings.method}, {error}") from error
        if missing := sorted(objective.reads - columns - ENGINE_MADE):
            raise ValueError(
                f"method.add: the objective reads {', '.join(missing)}, and {settings.method} has "
                f"entropy, {', '.join(sorted(columns))}"
            )
        notes = (note for component in added for note in component.notes(settings.group_size))
        return cls(settings, preset, plan, stages, objective, tuple(notes))

    @property
    def predicts(self) -> bool:
        return any(addition.component.predicts for addition in self.settings.add)

    @property
    def ships(self) -> frozenset[str]:
        return self.objective.reads - ENGINE_MADE

    @property
    def constant_tokens(self) -> int | None:
        """The fixed denominator of a row's loss; None for the mean over all learnt tokens."""
        return self.settings.longest if self.preset.denominator == "constant" else None
