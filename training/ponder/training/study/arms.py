"""What the study runs: a table of arms, and the plan of runs that follows from it.

docs/protocol.md says why; a change here is a new version of the protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ponder.thought import format as thought_format

from ..recipe import PolicyRecipe, find_recipe, load_recipe, recipe_sha256

PROTOCOL_VERSION = 3
LEARNING_RATES = (1e-5, 3e-5, 1e-4)
TUNING_SEED = 100
TUNING_STEPS = 40

Kind = Literal["tuning", "main", "ablation"]


@dataclass(frozen=True, slots=True)
class Arm:
    """A shipped recipe, what differs from it, and the seeds it is run with.

    The protocol cuts without grace, as the papers do.

    `tuned` names the arm whose learning rate it takes: itself for the main arms, which are tuned.
    """

    name: str
    recipe: str
    seeds: tuple[int, ...]
    tuned: str
    method: Mapping[str, Any] = field(default_factory=dict)
    keep_checkpoints: bool = False

    @property
    def kind(self) -> Kind:
        return "main" if self.tuned == self.name else "ablation"


ARMS: tuple[Arm, ...] = (
    Arm("grpo", "tiny-grpo", (0, 1, 2, 3, 4), "grpo"),
    Arm("hbpo", "tiny-hbpo", (0, 1, 2, 3, 4), "hbpo"),
    Arm("brpo", "tiny-brpo", (0, 1, 2, 3, 4), "brpo", {"grace": 0}),
    Arm("length-penalty", "tiny-length-penalty", (0, 1, 2), "length-penalty", {}, True),
    Arm("dapo", "tiny-dapo", (0, 1, 2), "dapo"),
    Arm("htpo", "tiny-htpo", (0, 1, 2), "htpo"),
    Arm("hbpo-1-budget", "tiny-hbpo", (0,), "hbpo", {"budgets": (120,)}),
    Arm("hbpo-2-budgets", "tiny-hbpo", (0,), "hbpo", {"budgets": (40, 200)}),
    Arm(
        "hbpo-6-budgets",
        "tiny-hbpo",
        (0,),
        "hbpo",
        {"budgets": (40, 80, 120, 160, 200, 240), "subgroup_sizes": (2, 2, 4, 4, 2, 2)},
    ),
    Arm("hbpo-loss-on-hint", "tiny-hbpo", (0,), "hbpo", {"loss_on_hint": True}),
    Arm("brpo-base-prior", "tiny-brpo", (0,), "brpo", {"grace": 0, "prior": "base"}),
    Arm("brpo-linear-prior", "tiny-brpo", (0,), "brpo", {"grace": 0, "prior": "linear"}),
    Arm("brpo-v1", "tiny-brpo", (0,), "brpo", {"grace": 0, "variance_reduction": "v1"}),
    Arm("brpo-v2", "tiny-brpo", (0,), "brpo", {"grace": 0, "variance_reduction": "v2"}),
    Arm("brpo-no-baseline", "tiny-brpo", (0,), "brpo", {"grace": 0, "variance_reduction": "none"}),
    Arm("htpo-released-sign", "tiny-htpo", (0,), "htpo", {"sign": "released"}),
)


@dataclass(frozen=True, slots=True)
class Base:
    """The checkpoint that every run starts from: where it lies, and what it is."""

    path: Path
    sha256: str

    @classmethod
    def at(cls, path: Path) -> Base:
        """Raises `OSError` where there are no weights."""
        digest = hashlib.sha256()
        for name in ("model.safetensors", "tokenizer.json", "ponder.json"):
            digest.update((path / name).read_bytes())
        return cls(path, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of the study; `key` names its record, and changes with base, recipe and code."""

    arm: Arm
    kind: Kind
    recipe: PolicyRecipe
    base: Base

    @property
    def sha256(self) -> str:
        """Hash of the recipe, in which the base stands with what it is, not where it lies."""
        return recipe_sha256(self.recipe.model_copy(update={"base": self.base.sha256}))

    @property
    def label(self) -> str:
        rate = f"-lr{self.recipe.optimisation.learning_rate:g}" if self.kind == "tuning" else ""
        return f"{self.kind}-{self.arm.name}{rate}-s{self.recipe.seed}"

    @property
    def key(self) -> str:
        return f"{self.label}-{self.sha256[:8]}-{code_sha256()[:8]}"


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
        Planned(arm, arm.kind, _recipe(arm, base, rates[arm.tuned], seed), base)
        for kind in ("main", "ablation")
        for seed in seeds
        for arm in ARMS
        if arm.kind == kind and seed in arm.seeds and arm.tuned in rates
    ]


def _recipe(arm: Arm, base: Base, rate: float, seed: int, steps: int | None = None) -> PolicyRecipe:
    """The shipped recipe with what the arm and the run change; `steps` where it is cut short."""
    shipped = load_recipe(find_recipe(arm.recipe))
    assert isinstance(shipped, PolicyRecipe)
    said = shipped.model_dump(exclude_unset=True)
    said |= {"seed": seed, "base": str(base.path), "method": {**said["method"], **arm.method}}
    said["optimisation"] |= {"learning_rate": rate} | ({"steps": steps} if steps else {})
    if arm.keep_checkpoints:
        said["checkpoints"]["keep"] = said["optimisation"]["steps"]
    return PolicyRecipe.model_validate(said)


_ROOM = Path(__file__).parents[1]
_CODE: Sequence[str] = (
    "algorithms/*.py",
    "base.py",
    "engines/trl.py",
    "limits.py",
    "methods.py",
    "rl.py",
    "rollout/*.py",
    "study/measure.py",
    "study/variance.py",
    "tasks/*.py",
    "traces.py",
)


@cache
def code_sha256() -> str:
    """Hash of the code that a run's weights and measurements depend on, as this process found it.

    What is edited while a study runs ends it with the next run that starts.
    """
    digest = hashlib.sha256()
    served = Path(thought_format.__file__).parents[1]
    rooms = (*served.glob("thought/*.py"), *served.glob("checkpoint/*.py"))
    serving = (*rooms, served / "engine" / "tokenizer.py")
    training = (path for pattern in _CODE for path in _ROOM.glob(pattern))
    for path in sorted((*training, *serving), key=lambda path: path.as_posix()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
