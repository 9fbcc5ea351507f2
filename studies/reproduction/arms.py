"""The study's runs: a table of arms, and the plan of runs that follows from the table.

docs/protocol.md says why; a change here is a new version of the protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ponder.training.run.recipe import PolicyRecipe, find_recipe, load_recipe
from ponder.training.run.recipe_hash import recipe_sha256

from .behaviour import Behaviour, behaviour

PROTOCOL_VERSION = 4
LEARNING_RATES = (1e-5, 3e-5, 1e-4)
TUNING_SEED = 100
TUNING_STEPS = 30

Kind = Literal["tuning", "main", "ablation"]

STAGES = (("hbpo", "grpo", "length-penalty"), ("brpo",), ("dapo", "htpo"))
"""Main arms by the order in which they are tuned and run; ablations follow their main arm."""


@dataclass(frozen=True, slots=True)
class StudyArm:
    """A shipped recipe, the arm's changes to it, and the arm's seeds.

    The protocol cuts without grace, as the papers do.

    `tuned` names the arm whose learning rate this arm takes; a main arm, which is tuned, names
    itself. `rate` replaces that learning rate in an exploratory arm.
    """

    name: str
    recipe: str
    seeds: tuple[int, ...]
    tuned: str
    method: Mapping[str, Any] = field(default_factory=dict)
    keep_checkpoints: bool = False
    rate: float | None = None

    @property
    def kind(self) -> Kind:
        return "main" if self.tuned == self.name else "ablation"

    @property
    def stage(self) -> int:
        return next(i for i, arms in enumerate(STAGES) if self.tuned in arms)


ARMS: tuple[StudyArm, ...] = (
    StudyArm("hbpo", "reasoner-hbpo", (0, 1, 2, 3, 4), "hbpo"),
    StudyArm("grpo", "reasoner-grpo", (0, 1, 2, 3, 4), "grpo"),
    StudyArm(
        "length-penalty",
        "reasoner-length-penalty",
        (0, 1, 2, 3, 4),
        "length-penalty",
        keep_checkpoints=True,
    ),
    StudyArm("brpo", "reasoner-brpo", (0, 1, 2), "brpo", {"grace": 0}),
    StudyArm("dapo", "reasoner-dapo", (0, 1, 2), "dapo"),
    StudyArm("htpo", "reasoner-htpo", (0, 1, 2), "htpo"),
    StudyArm("hbpo-1-budget", "reasoner-hbpo", (0,), "hbpo", {"budgets": (72,)}),
    StudyArm("hbpo-2-budgets", "reasoner-hbpo", (0,), "hbpo", {"budgets": (24, 120)}),
    StudyArm(
        "hbpo-6-budgets",
        "reasoner-hbpo",
        (0,),
        "hbpo",
        {"budgets": (24, 48, 72, 96, 120, 144), "subgroup_sizes": (2, 2, 4, 4, 2, 2)},
    ),
    StudyArm("hbpo-loss-on-hint", "reasoner-hbpo", (0,), "hbpo", {"loss_on_hint": True}),
    StudyArm("hbpo-skip-all-wrong", "reasoner-hbpo", (0,), "hbpo", {"skip_all_wrong": True}),
    StudyArm("hbpo-centred-intra", "reasoner-hbpo", (0,), "hbpo", {"centre_intra": True}),
    StudyArm("hbpo-hint-dropout", "reasoner-hbpo", (0,), "hbpo", {"unhinted": (1, 1, 1, 1)}),
    StudyArm("hbpo-natural-rollouts", "reasoner-hbpo", (0,), "hbpo", {"unhinted": (0, 0, 0, 4)}),
    StudyArm("exploratory-hbpo-slower", "reasoner-hbpo", (0,), "hbpo", rate=3e-5),
    StudyArm("exploratory-hbpo-aspo", "reasoner-hbpo", (0,), "hbpo", {"add": ({"aspo": {}},)}),
    StudyArm("exploratory-hbpo-dot", "reasoner-hbpo", (0,), "hbpo", {"add": ({"dot": {}},)}),
    StudyArm(
        "exploratory-hbpo-adora",
        "reasoner-hbpo",
        (0,),
        "hbpo",
        {"add": ({"adora": {"favour": "shorter"}},)},
    ),
    StudyArm("brpo-base-prior", "reasoner-brpo", (0,), "brpo", {"grace": 0, "prior": "base"}),
    StudyArm("brpo-linear-prior", "reasoner-brpo", (0,), "brpo", {"grace": 0, "prior": "linear"}),
    StudyArm("brpo-v1", "reasoner-brpo", (0,), "brpo", {"grace": 0, "variance_reduction": "v1"}),
    StudyArm("brpo-v2", "reasoner-brpo", (0,), "brpo", {"grace": 0, "variance_reduction": "v2"}),
    StudyArm(
        "brpo-no-baseline",
        "reasoner-brpo",
        (0,),
        "brpo",
        {"grace": 0, "variance_reduction": "none"},
    ),
    StudyArm("htpo-released-sign", "reasoner-htpo", (0,), "htpo", {"sign": "released"}),
)


@dataclass(frozen=True, slots=True)
class Base:
    """The start of every run: a checkpoint's place, its hash, and the code's behaviour."""

    path: Path
    sha256: str
    behaviour: Behaviour

    @classmethod
    def at(cls, path: Path) -> Base:
        """Raises `OSError` where there are no weights."""
        digest = hashlib.sha256()
        for name in ("model.safetensors", "tokenizer.json", "ponder.json"):
            digest.update((path / name).read_bytes())
        return cls(path, digest.hexdigest(), behaviour())

    def made(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is of these weights and of code that behaves alike."""
        of_same_weights = record["base_sha256"] == self.sha256
        return of_same_weights and Behaviour.recorded(record).alike(self.behaviour)


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of the study; `key` names its record, and changes with base, recipe and code."""

    arm: StudyArm
    kind: Kind
    recipe: PolicyRecipe
    base: Base

    @property
    def sha256(self) -> str:
        """Hash of the recipe, with the base's hash in the place of its path."""
        return recipe_sha256(self.recipe.model_copy(update={"base": self.base.sha256}))

    @property
    def label(self) -> str:
        rate = f"-lr{self.recipe.optimisation.learning_rate:g}" if self.kind == "tuning" else ""
        return f"{self.kind}-{self.arm.name}{rate}-s{self.recipe.seed}"

    @property
    def key(self) -> str:
        return f"{self.label}-{self.sha256[:8]}-{self.base.behaviour.label}"


def plan(base: Base, rates: Mapping[str, float]) -> list[Planned]:
    """All runs stage by stage, the trials of a stage before its scored runs. `rates` are the tuned
    learning rates by arm; an arm without a rate has no scored runs yet.
    """
    runs = [*tuning_runs(base), *scored_runs(base, rates)]
    return sorted(runs, key=lambda run: run.arm.stage)


def tuning_runs(base: Base) -> list[Planned]:
    """The same number of trials for every main arm: one per learning rate, one seed."""
    return [
        Planned(arm, "tuning", _recipe(arm, base, rate, TUNING_SEED, TUNING_STEPS), base)
        for rate in LEARNING_RATES
        for arm in ARMS
        if arm.kind == "main"
    ]


def scored_runs(base: Base, rates: Mapping[str, float]) -> list[Planned]:
    """Main arms first, seed by seed, then the ablations; `rates` are the tuned learning rates."""
    seeds = sorted({seed for arm in ARMS for seed in arm.seeds})
    return [
        Planned(arm, arm.kind, _recipe(arm, base, arm.rate or rates[arm.tuned], seed), base)
        for kind in ("main", "ablation")
        for seed in seeds
        for arm in ARMS
        if arm.kind == kind and seed in arm.seeds and arm.tuned in rates
    ]


def _recipe(
    arm: StudyArm, base: Base, rate: float, seed: int, steps: int | None = None
) -> PolicyRecipe:
    """The shipped recipe with the arm's and the run's changes; `steps` shortens it to a trial."""
    shipped = load_recipe(find_recipe(arm.recipe))
    assert isinstance(shipped, PolicyRecipe)
    said = shipped.model_dump(exclude_unset=True)
    said |= {"seed": seed, "base": str(base.path), "method": {**said["method"], **arm.method}}
    said["optimisation"] |= {"learning_rate": rate} | ({"steps": steps} if steps else {})
    if arm.keep_checkpoints:
        said["checkpoints"]["keep"] = said["optimisation"]["steps"]
    return PolicyRecipe.model_validate(said)
