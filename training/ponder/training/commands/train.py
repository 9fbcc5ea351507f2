"""`ponder train`: run a recipe and write a checkpoint that can be served."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

if TYPE_CHECKING:
    from ponder.training.recipe import LessonRecipe, PolicyRecipe, SftRecipe


class Options(BaseModel):
    """Train a checkpoint from a recipe."""

    recipe: CliPositionalArg[str] = Field(
        description="a shipped recipe such as tiny-sft, or the path of a YAML file"
    )
    out: Path | None = Field(
        default=None, description="directory of the checkpoint (default: ./NAME of the recipe)"
    )
    base: str | None = Field(
        default=None, description="replaces the recipe's base checkpoint (not for a cold start)"
    )
    seed: int | None = Field(default=None, ge=0, description="replaces the recipe's seed")
    threads: int = Field(default=2, ge=1, description="CPU threads")
    resume: bool = Field(default=False, description="continue from the last complete checkpoint")
    dry_run: bool = Field(default=False, description="print the plan and the memory it needs")


def run(options: Options) -> int:
    """Train and export; 0 when the checkpoint is written, 1 when the run failed, 2 when the
    recipe does not hold.
    """
    # Waiting threads must sleep: spinning ones slow a shared machine down tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL reports its use otherwise

    from ponder.training.recipe import (
        LessonRecipe,
        RecipeError,
        SftRecipe,
        find_recipe,
        load_recipe,
    )

    try:
        recipe = load_recipe(find_recipe(options.recipe))
        if options.seed is not None:
            recipe = recipe.model_copy(update={"seed": options.seed})
        if isinstance(recipe, SftRecipe):
            for given in ("base", "resume", "dry_run"):
                if getattr(options, given):
                    flag = "--" + given.replace("_", "-")
                    raise RecipeError(f"{flag} is for reinforcement learning: leave it out here")
            return _cold_start(recipe, options)
        if options.base is not None:
            recipe = recipe.model_copy(update={"base": options.base})
        if isinstance(recipe, LessonRecipe):
            for given in ("resume", "dry_run"):
                if getattr(options, given):
                    flag = "--" + given.replace("_", "-")
                    raise RecipeError(f"{flag} is for reinforcement learning: leave it out here")
            return _lesson(recipe, options)
        if options.dry_run:
            from ponder.training.plan import describe

            print(describe(recipe))
            return 0
        return _policy(recipe, options)
    except RecipeError as error:
        print(f"ponder train: {error}", file=sys.stderr)
        return 2


def _cold_start(recipe: SftRecipe, options: Options) -> int:
    import torch

    from ponder.training.export import cold_start_contract, export
    from ponder.training.recipe import RecipeError
    from ponder.training.sft import NotFinite, train_sft

    torch.set_num_threads(options.threads)
    directory = options.out or Path(recipe.name)
    _check_out(directory)
    if (directory / "ponder.json").exists() or (directory / "recipe.json").exists():
        raise RecipeError(f"--out: {directory} holds a checkpoint or a run: choose another")
    try:
        result = train_sft(recipe)
    except NotFinite as error:
        print(f"ponder train: {error}", file=sys.stderr)
        return 1
    export(directory, result.model, result.tokenizer, cold_start_contract(recipe))
    print(
        f"{directory}: {result.tokens:,} tokens in {result.seconds:.0f} s, "
        f"loss {result.losses[-1]:.3f}"
    )
    return 0


def _lesson(recipe: LessonRecipe, options: Options) -> int:
    import torch

    from ponder.training.lesson import run_lesson
    from ponder.training.recipe import RecipeError
    from ponder.training.sft import NotFinite

    torch.set_num_threads(options.threads)
    directory = options.out or Path(recipe.name)
    _check_out(directory)
    if (directory / "ponder.json").exists() or (directory / "recipe.json").exists():
        raise RecipeError(f"--out: {directory} holds a checkpoint or a run: choose another")
    try:
        result = run_lesson(recipe, directory)
    except NotFinite as error:
        print(f"ponder train: {error}", file=sys.stderr)
        return 1
    print(
        f"{directory}: {result.tokens:,} tokens in {result.seconds:.0f} s, "
        f"loss {result.losses[-1]:.3f}"
    )
    return 0


def _check_out(directory: Path) -> None:
    """Before anything is loaded: what cannot be written should not be trained."""
    from ponder.training.recipe import RecipeError

    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not there.is_dir():
        raise RecipeError(f"--out: {there} is not a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RecipeError(f"--out: {there} cannot be written")


def _policy(recipe: PolicyRecipe, options: Options) -> int:
    import torch

    from ponder.training.engines.trl import Diverged, checkpoints
    from ponder.training.recipe import RecipeError
    from ponder.training.rl import Run
    from ponder.training.tasks.workers import VerifierError, VerifierPool

    torch.set_num_threads(options.threads)
    directory = options.out or Path(recipe.name)
    _check_out(directory)
    if directory.resolve() == Path(recipe.base).resolve():
        raise RecipeError(f"--out: {directory} is the base, which would be lost: choose another")
    if (directory / "ponder.json").exists() and not (directory / "recipe.json").exists():
        raise RecipeError(f"--out: {directory} holds a checkpoint of another run: choose another")
    if options.resume and not checkpoints(directory):
        print(f"ponder train: {directory} holds no checkpoint: starting anew", file=sys.stderr)
    try:
        with VerifierPool(recipe.rollouts.verifiers) as pool:
            Run(recipe, directory, pool.judge, options.resume).train()
    except (Diverged, VerifierError) as error:
        print(f"ponder train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"ponder train: stopped; --resume continues {directory}", file=sys.stderr)
        raise
    print(f"{directory}: {recipe.method.method}, {recipe.optimisation.steps} steps")
    return 0
