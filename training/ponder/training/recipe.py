"""Recipes: training runs as data, with bounds on every number.

A recipe is a YAML file, shipped in `recipes/` and called by name, or the user's own, called by
path.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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

    budgets: tuple[int, ...] = Field(min_length=1, description="tokens a hint may promise")
    hinted: Share = Field(description="examples that carry a budget hint")
    minimal: Share = Field(description="examples that ask for minimal tokens")
    cut: Share = Field(description="examples whose thought is cut at a random token")
    cut_at_zero: Share = Field(description="cut examples that have no thought at all")
    longest: int = Field(ge=32, le=4096, description="tokens; longer thoughts lose re-checks")
    terse_until: Share = Field(description="share of the steps that see mostly terse thoughts")


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


def load_recipe(path: Path) -> SftRecipe:
    """Read and check a recipe; `RecipeError` names every field that is wrong."""
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    try:
        return SftRecipe.model_validate(raw)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'recipe'}: {e['msg']}"
            for e in error.errors()
        )
        raise RecipeError(f"{path}: {wrong}") from error


def recipe_sha256(recipe: SftRecipe) -> str:
    """Hash of what the recipe says, whatever its YAML looks like."""
    return hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()
