"""`ponder train`: run a recipe and write a checkpoint that can be served."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from ponder.training.recipe import RecipeError, find_recipe, load_recipe


class Options(BaseModel):
    """Train a checkpoint from a recipe."""

    recipe: CliPositionalArg[str] = Field(
        description="a shipped recipe such as tiny-sft, or the path of a YAML file"
    )
    out: Path | None = Field(
        default=None, description="directory of the checkpoint (default: ./NAME of the recipe)"
    )
    seed: int | None = Field(default=None, ge=0, description="replaces the recipe's seed")
    threads: int = Field(default=2, ge=1, description="CPU threads")


def run(options: Options) -> int:
    """Train and export; 0 when the checkpoint is written, 2 when the recipe does not hold."""
    try:
        recipe = load_recipe(find_recipe(options.recipe))
    except RecipeError as error:
        print(f"ponder train: {error}", file=sys.stderr)
        return 2
    if options.seed is not None:
        recipe = recipe.model_copy(update={"seed": options.seed})
    # Waiting threads must sleep: spinning ones slow a shared machine down tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    import torch

    from ponder.training.export import export
    from ponder.training.sft import train_sft

    torch.set_num_threads(options.threads)
    directory = options.out or Path(recipe.name)
    result = train_sft(recipe)
    export(directory, result.model, result.tokenizer, recipe)
    print(
        f"{directory}: {result.tokens:,} tokens in {result.seconds:.0f} s, "
        f"loss {result.losses[-1]:.3f}"
    )
    return 0
