"""Recipes: training runs as data, with bounds on every number.

A recipe is a YAML file, shipped in `recipes/` and called by name, or the user's own, called by
path.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .methods import Budgets, MethodConfig

SHIPPED = Path(__file__).with_name("recipes")

Share = Annotated[float, Field(ge=0, le=1)]


class RecipeError(ValueError):
    """A recipe that does not exist or does not hold; the message names the field and the remedy."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelShape(_Section):
    """Dimensions of the Qwen3-architecture model."""

    vocabulary: int = Field(ge=280, le=4096, description="entries of the tokenizer, at most")
    hidden: int = Field(ge=16, le=512)
    layers: int = Field(ge=1, le=12)
    heads: int = Field(ge=1, le=16)
    kv_heads: int = Field(ge=1, le=16)
    head_dim: int = Field(ge=8, le=128)
    intermediate: int = Field(ge=16, le=2048)
    positions: int = Field(ge=512, le=32768, description="longest sequence, in tokens")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        return self


class TraceMix(_Section):
    """Which thoughts the model sees, as shares of the examples."""

    budgets: Budgets = Field(description="tokens a hint may promise, rising")
    hinted: Share = Field(description="examples that carry a budget hint")
    minimal: Share = Field(description="examples that ask for minimal tokens")
    cut: Share = Field(description="examples whose thought is cut at a random token")
    cut_at_zero: Share = Field(description="cut examples that have no thought at all")
    longest: int = Field(ge=32, le=4096, description="tokens; longer thoughts lose re-checks")
    terse_until: Share = Field(description="share of the steps that see mostly terse thoughts")

    @model_validator(mode="after")
    def _shares_fit(self) -> TraceMix:
        if self.hinted + self.minimal > 1:
            raise ValueError(
                "hinted and minimal are shares of the same examples: at most 1 together"
            )
        return self


class Optimisation(_Section):
    """Muon for the matrices, AdamW for the rest; linear warm-up, cosine decay to a fiftieth."""

    steps: int = Field(ge=1, le=1_000_000)
    tokens_per_step: int = Field(ge=256, le=1_000_000, description="padding included")
    muon_lr: float = Field(gt=0, le=1)
    adamw_lr: float = Field(gt=0, le=1)
    warmup_steps: int = Field(ge=0)
    clip_norm: float = Field(gt=0)
    validate_every: int = Field(ge=0, description="steps between validation losses; 0 for never")


class SftRecipe(_Section):
    """Supervised cold start of a tiny reasoner from scratch."""

    name: str = Field(min_length=1)
    seed: int = Field(ge=0)
    model: ModelShape
    traces: TraceMix
    optimisation: Optimisation


class LessonOptimisation(_Section):
    """Muon for the matrices, AdamW for the rest; linear warm-up, cosine decay to a fiftieth."""

    steps: int = Field(ge=1, le=1_000_000, description="optimizer updates")
    tokens_per_step: int = Field(ge=256, le=1_000_000, description="of openings, with padding")
    rehearsed_per_step: int = Field(ge=256, le=1_000_000, description="tokens of the tiny tasks")
    muon_lr: float = Field(gt=0, le=1, description="learning rate of the matrices")
    adamw_lr: float = Field(gt=0, le=1, description="learning rate of embedding and norms")
    warmup_steps: int = Field(ge=0, description="steps until the whole learning rate")
    clip_norm: float = Field(gt=0, description="longest gradient; longer ones are shortened")


class LessonRecipe(_Section):
    """What people type first, taught to a trained tiny reasoner that keeps what it knew."""

    name: str = Field(min_length=1)
    seed: int = Field(ge=0)
    base: str = Field(min_length=1, description="directory of a tiny checkpoint")
    vocabulary: int = Field(
        ge=280, le=4096, description="entries of the tokenizer, with the new words, at most"
    )
    temperature: float = Field(
        gt=0, le=2, description="what the checkpoint recommends where a request does not say"
    )
    keep: float = Field(gt=0, le=1000, description="weight of the tiny tasks beside the openings")
    traces: TraceMix
    optimisation: LessonOptimisation


class Rollouts(_Section):
    """What is sampled for a step."""

    prompts: int = Field(ge=1, le=65536, description="problems per step")
    temperature: float = Field(1.0, gt=0, le=10)
    engine: Literal["transformers", "vllm"] = Field(
        "transformers", description="who samples; vllm is colocated and needs a GPU"
    )
    verifiers: int = Field(2, ge=1, le=64, description="workers that judge untrusted answers")
    longest_prompt: int | None = Field(
        None, ge=1, description="tokens; problems with longer prompts are left out"
    )


class PolicyOptimisation(_Section):
    """AdamW with linear warm-up, then a constant learning rate; counts are optimizer updates."""

    steps: int = Field(ge=1, le=1_000_000, description="rollout steps")
    updates: int = Field(ge=1, le=64, description="optimizer updates per step")
    micro_batches: int = Field(
        1, ge=1, le=4096, description="passes each update is split into; more save memory"
    )
    learning_rate: float = Field(gt=0, le=1)
    warmup_updates: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0, le=1)
    clip_norm: float = Field(1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the arithmetic")
    gradient_checkpointing: bool = False


class Validation(_Section):
    """How the run is watched: natural thinking on problems that training never sees."""

    every: int = Field(ge=1, description="steps between validations")
    problems: int = Field(ge=1, le=100_000)
    samples: int = Field(1, ge=1, le=1024, description="responses per problem")


class Checkpoints(_Section):
    """States that a killed run can resume from."""

    every: int = Field(ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=1, description="checkpoints kept, the newest ones")


class Lora(_Section):
    """Train low-rank adapters (PEFT) instead of all weights; the export merges them."""

    rank: int = Field(16, ge=1, le=1024)
    alpha: int = Field(32, ge=1, le=4096)
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class PolicyRecipe(_Section):
    """Reinforcement learning from a checkpoint, by the method that `method` names."""

    name: str = Field(min_length=1)
    seed: int = Field(ge=0)
    base: str = Field(
        min_length=1,
        description="directory or hub name of a checkpoint with ponder.json, or of a known family",
    )
    close_text: str | None = Field(
        None, description="closes a thought, the end marker in it; the base's unless given"
    )
    answer_prefix: str | None = Field(
        None, description="begins the answer after a close; the base's unless given"
    )
    tasks: tuple[str, ...] = Field(min_length=1, description="where the problems come from")
    method: MethodConfig
    rollouts: Rollouts
    optimisation: PolicyOptimisation
    validation: Validation
    checkpoints: Checkpoints
    lora: Lora | None = None
    report_to: tuple[str, ...] = Field((), description="trackers besides metrics.jsonl: wandb, …")

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        prompts, updates = self.rollouts.prompts, self.optimisation.updates
        if prompts % updates:
            raise ValueError(
                f"rollouts.prompts = {prompts} must be a multiple of optimisation.updates = "
                f"{updates}: every update learns from whole groups"
            )
        rows = prompts // updates * self.method.group_size
        if self.optimisation.micro_batches > rows:
            raise ValueError(
                f"optimisation.micro_batches = {self.optimisation.micro_batches} must be at most "
                f"the {rows} rows of an update"
            )
        return self


Recipe = SftRecipe | LessonRecipe | PolicyRecipe


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Ponder, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find_recipe(name_or_path: str) -> Path:
    """The file of a shipped name or a YAML path; `RecipeError` lists the names otherwise."""
    if name_or_path in shipped_recipes():
        return SHIPPED / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    raise RecipeError(
        f"no recipe {name_or_path!r}: name one of {', '.join(shipped_recipes())}, "
        "or give the path of a YAML file"
    )


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe; `RecipeError` names every field that is wrong."""
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    try:
        return _kind(raw).model_validate(raw)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'recipe'}: {e['msg']}"
            for e in error.errors()
        )
        raise RecipeError(f"{path}: {wrong}") from error


def _kind(raw: object) -> type[Recipe]:
    if not isinstance(raw, dict) or "traces" not in raw:
        return PolicyRecipe
    return LessonRecipe if "base" in raw else SftRecipe


def recipe_sha256(recipe: Recipe) -> str:
    """Hash of what the recipe says, whatever its YAML looks like."""
    return hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()
