"""`ponder train`: run a recipe and write a checkpoint that can be served."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import CliPositionalArg

from ponder.errors import TrainingError, VerifierError
from ponder.tasks.sources import SOURCES
from ponder.training.run.installed import require
from ponder.training.run.shipped import listed, shipped_recipes

ADVISED = "recipe.yaml"
"""The file in a run's directory with the recipe that was made for it, to read and to change."""

if TYPE_CHECKING:
    from ponder.training.run.recipe import PolicyRecipe, Recipe, SftRecipe


class Options(BaseModel):
    recipe: CliPositionalArg[str | None] = Field(
        default=None,
        description="a shipped recipe, the path of a YAML file, or a method, whose recipe Ponder "
        "makes by sampling --base on --tasks",
    )
    out: Path | None = Field(
        default=None, description="directory of the run (default: ./NAME of the recipe)"
    )
    base: str | None = Field(
        default=None, description="replaces the recipe's base checkpoint (not for a cold start)"
    )
    tasks: list[str] = Field(default=[], description=f"replaces the recipe's tasks: {SOURCES}")
    seed: int | None = Field(default=None, ge=0, description="replaces the recipe's seed")
    changes: list[str] = Field(
        default=[],
        alias="set",
        description="KEY=VALUE replaces any field, such as optimisation.steps=20; repeat for "
        "several (docs/recipes.md lists the fields)",
    )
    threads: int = Field(default=2, ge=1, description="CPU threads")
    resume: bool = Field(
        default=False, description="continue the run in --out from its last complete checkpoint"
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        alias="for",
        description="stop after so many seconds: a cold start is finished by then, another run "
        "writes a checkpoint from which --resume continues",
    )
    write: Path | None = Field(
        default=None, description="of a method: write its recipe to this file, and train nothing"
    )
    push: str | None = Field(
        default=None, description="OWNER/NAME on the Hugging Face hub: upload the trained model"
    )
    dry_run: bool = Field(
        default=False, description="print the plan and the memory and time that it needs"
    )
    list_recipes: bool = Field(default=False, alias="list", description="list the recipes")

    @field_validator("tasks", mode="before")
    @classmethod
    def _comma_separated(cls, names: list[str]) -> list[str]:
        return [name for part in names for name in part.split(",")]


Options.__doc__ = f"""Train a checkpoint from a recipe.

recipes:
{indent(listed(), "  ")}"""


def run(options: Options) -> int:
    """Train and export; 0 when the checkpoint is written, 1 when the run failed, 2 when the
    recipe is invalid.
    """
    began = time.monotonic()  # --for includes the time of loading torch
    if options.list_recipes:
        print(listed())
        return 0
    if options.recipe is None:
        print(f"ponder train: name a recipe, or a YAML file of yours:\n{listed()}", file=sys.stderr)
        return 2
    # Waiting threads must sleep: spinning ones slow a shared machine down tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # else downloads report us
    require("yaml", "torch", "transformers", "safetensors", "tqdm")

    from ponder.training.run.advised import is_method
    from ponder.training.run.push import check_push
    from ponder.training.run.recipe import RecipeError

    try:
        if options.resume and options.write is not None:
            raise RecipeError(
                "--write makes a recipe, and --resume continues a run, which has one: leave one "
                "of them out"
            )
        if is_method(options.recipe):
            recipe, text = _of_method(options.recipe, options)
        else:
            if options.write is not None:
                raise RecipeError("--write is for methods: a recipe is written down already")
            recipe, text = _recipe(options.recipe, options), None
        if options.push is not None:
            check_push(options.push)
        if options.write is not None:
            _write_recipe(options.write, text)
        if options.dry_run:
            from ponder.training.run.forecast import describe

            print(*filter(None, (text, describe(recipe, options.threads))), sep="\n")
        if options.dry_run or options.write is not None:
            return 0
        directory = options.out or Path(recipe.name)
        _check_out(directory)
        if options.resume:
            from ponder.training.run.directory import check_resumable

            check_resumable(directory)
        return _train(recipe, text, directory, options, _end(options, began))
    except RecipeError as error:
        print(f"ponder train: {error}", file=sys.stderr)
        return 2


def _recipe(name: str, options: Options) -> Recipe:
    """The recipe with the options' changes. Raises `RecipeError`."""
    from ponder.training.run.recipe import RecipeError, SftRecipe, find_recipe, load_recipe

    recipe = load_recipe(find_recipe(name), options.changes)
    if options.seed is not None:
        recipe = recipe.model_copy(update={"seed": options.seed})
    if isinstance(recipe, SftRecipe):
        if options.base is not None:
            raise RecipeError("--base is not for a cold start: leave it out here")
        return recipe
    if options.base is not None:
        recipe = recipe.model_copy(update={"base": options.base})
    if options.tasks:
        recipe = recipe.model_copy(update={"tasks": tuple(options.tasks)})
    _check_base(recipe.base)
    return recipe


def _of_method(method: str, options: Options) -> tuple[Recipe, str | None]:
    """A recipe made by sampling the base, and its text; of a resumed run, its recipe alone."""
    from ponder.training.run.advised import advised, as_yaml, told
    from ponder.training.run.directory import check_new
    from ponder.training.run.recipe import RecipeError, recipe_from

    if options.base is None or not options.tasks:
        raise RecipeError(
            f"{method} is a method: say what it is to train and on what (--base MODEL --tasks "
            "jsonl:my.jsonl), or name a recipe"
        )
    out = options.out or Path(f"{method}-{Path(options.base).name}")
    if options.resume:
        return _resumed(method, out, options), None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            f"{method}: only a single process can make a recipe: write it first (--write my.yaml), "
            "and start the processes with that file"
        )
    import torch

    torch.set_num_threads(options.threads)
    _check_base(options.base)
    if not (options.dry_run or options.write):
        _check_out(out)
        check_new(out)
    print(f"ponder train: looking at {options.base} …", file=sys.stderr)
    raw, seen, warnings = advised(
        method, options.base, options.tasks, options.seed or 0, options.changes
    )
    lines = list(told(seen))
    for line in lines:
        print(f"  {line}", file=sys.stderr)
    for warning in warnings:
        print(f"ponder train: warning: {warning}", file=sys.stderr)
    recipe = recipe_from(raw, method)
    return recipe, as_yaml(raw, lines, warnings)


def _resumed(method: str, out: Path, options: Options) -> Recipe:
    """The recipe of the run in `out` with what the options say: a run of another one is refused."""
    from ponder.training.run.directory import RECIPE, check_resumable, recorded
    from ponder.training.run.recipe import PolicyRecipe, RecipeError, recipe_from

    check_resumable(out)
    earlier = recorded(out / RECIPE, PolicyRecipe)
    if (trained := earlier.method.method) != method:
        raise RecipeError(
            f"{out} was started with {trained} and not {method}: resume it with `ponder train "
            f"{trained}`, or choose another --out"
        )
    raw = earlier.model_dump(mode="json") | {"base": options.base, "tasks": options.tasks}
    if options.seed is not None:
        raw["seed"] = options.seed
    return recipe_from(raw, str(out / RECIPE), options.changes)


def _write_recipe(path: Path, text: str | None) -> None:
    if text is None:  # a resumed run has the file
        return
    from ponder.training.run.recipe import RecipeError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path} cannot be written: {error}") from error
    print(f"ponder train: the recipe is in {path}", file=sys.stderr)


def _end(options: Options, began: float) -> float:
    """When to stop, on the monotonic clock."""
    return math.inf if options.seconds is None else began + options.seconds


def _train(recipe: Recipe, text: str | None, directory: Path, options: Options, end: float) -> int:
    from ponder.training.run.directory import is_full
    from ponder.training.run.recipe import SftRecipe

    try:
        if isinstance(recipe, SftRecipe):
            return _cold_start(recipe, directory, options, end)
        return _policy(recipe, text, directory, options, end)
    except Exception as error:
        if not is_full(error):
            raise
        print(
            f"\nponder train: cannot write to {directory} ({error}): is its disk full? Free some "
            "space",
            file=sys.stderr,
        )
        _say_how_to_go_on(directory, options)
        return 1


def _cold_start(recipe: SftRecipe, directory: Path, options: Options, end: float) -> int:
    import torch

    from ponder.training.coldstart.sft import train_sft
    from ponder.training.run.directory import last_checkpoint
    from ponder.training.run.export import cold_start_contract, export
    from ponder.training.run.recipe import RecipeError

    torch.set_num_threads(options.threads)
    start = last_checkpoint(directory, recipe, options.resume)
    if start is None and (directory / "ponder.json").exists():
        raise RecipeError(f"--out: {directory} holds a checkpoint of another run: choose another")
    try:
        result = train_sft(recipe, out=directory, start=start, end=end)
    except TrainingError as error:
        print(f"ponder train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _say_how_to_go_on(directory, options)
        raise
    export(directory, result.model, result.tokenizer, cold_start_contract(recipe))
    _say_what_came(directory, result.reached())
    return _push(directory, options)


def _check_base(base: str) -> None:
    """Refuse a base that a shipped recipe has yet to make, before anything asks the hub for it."""
    from ponder.training.run.recipe import RecipeError

    if base in shipped_recipes() and not Path(base).is_dir():
        raise RecipeError(
            f"base: there is no directory {base} here: run `ponder train {base}` first, or name "
            "another checkpoint with --base"
        )


def _check_out(directory: Path) -> None:
    """Refuse a directory that cannot be written, before anything is loaded."""
    from ponder.training.run.recipe import RecipeError

    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not there.is_dir():
        raise RecipeError(f"--out: {there} is not a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RecipeError(f"--out: {there} cannot be written")


def _policy(
    recipe: PolicyRecipe, text: str | None, directory: Path, options: Options, end: float
) -> int:
    """Train; `text` is that of the recipe, where Ponder made it for this run."""
    require("accelerate", "peft", "matplotlib")

    import torch

    from ponder.training.run.directory import check_new
    from ponder.training.run.recipe import RecipeError

    torch.set_num_threads(options.threads)
    if directory.resolve() == Path(recipe.base).resolve():
        raise RecipeError(f"--out: {directory} is the base, which would be lost: choose another")
    if (directory / "ponder.json").exists() and not (directory / "recipe.json").exists():
        raise RecipeError(f"--out: {directory} holds a checkpoint of another run: choose another")
    if text is not None:
        check_new(directory)
        _write_recipe(directory / ADVISED, text)
    try:
        from ponder.tasks.workers import VerifierPool
        from ponder.training.run.run import Run

        try:
            with VerifierPool(recipe.rollouts.verifiers) as pool:
                run = Run(recipe, directory, pool.judge, options.resume)
                if run.is_main:
                    for note in run.notes:
                        print(f"ponder train: note: {note}", file=sys.stderr)
                run.train(end=end)
        except (TrainingError, VerifierError) as error:
            print(f"ponder train: {error}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        _say_how_to_go_on(directory, options)
        raise
    if run.is_main:
        _say_what_came(directory, run.reached())
        return _push(directory, options)
    return 0


def _push(directory: Path, options: Options) -> int:
    """Upload if --push asks for it; the local files stay, whatever the hub answers."""
    if options.push is None:
        return 0
    from ponder.training.run.push import push

    try:
        print(f"pushed to {push(directory, options.push)}")
    except OSError as error:
        print(
            f"ponder train: --push: {error}; `hf upload {options.push} "
            f"{shlex.quote(str(directory))}` tries again",
            file=sys.stderr,
        )
        return 1
    return 0


def _say_what_came(directory: Path, reached: Iterable[str]) -> None:
    """Print the run's results, its directory, and the commands that serve and measure it."""
    for line in reached:
        print(line)
    there = shlex.quote(str(directory))
    print(f"in {directory}; to serve and to measure it:")
    print(f"  ponder serve {there}\n  ponder eval {there}")


def _say_how_to_go_on(directory: Path, options: Options) -> None:
    """After a run that stopped early: print the command that continues it."""
    from ponder.training.run.directory import checkpoints

    if found := checkpoints(directory):
        words = ["ponder", "train", str(options.recipe), "--out", str(directory)]
        words += ["--base", options.base] if options.base is not None else []
        words += ["--tasks", ",".join(options.tasks)] if options.tasks else []
        words += ["--seed", str(options.seed)] if options.seed is not None else []
        words += [word for change in options.changes for word in ("--set", change)]
        words += ["--threads", str(options.threads), "--resume"]
        words += ["--for", f"{options.seconds:g}"] if options.seconds is not None else []
        words += ["--push", options.push] if options.push is not None else []
        said = f"this continues from {found[-1].name}:\n  {shlex.join(words)}"
    else:
        said = f"{directory} has no checkpoint yet, so there is nothing to resume"
    print(f"\nponder train: stopped; {said}", file=sys.stderr)
