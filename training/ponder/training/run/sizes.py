"""Bytes of a run: what its optimizer holds, its checkpoints, and its directory on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from .recipe import PolicyRecipe

WEIGHT = 4  # bytes of a float32 parameter, or of an optimizer's average of one
_EXPORTED = 2  # bytes of a bfloat16 parameter
_EXPORTS = 3  # the best and the last weights, and one that is being written
_GIB = 1 << 30


def state_bytes(recipe: PolicyRecipe, trained: int) -> dict[str, int]:
    """Bytes beside weights and gradients: the optimizer's, as of AdamW unless SGD, an anchor's."""
    plan = recipe.optimisation
    name = plan.optimizer.rpartition(":")[2]
    averages = 2 if name != "SGD" else bool(plan.optimizer_options.get("momentum"))
    held = {name: averages * WEIGHT * trained}
    return held if recipe.method.anchor is None else {**held, "anchor": WEIGHT * trained}


def checkpoint_bytes(recipe: PolicyRecipe, trained: int) -> int:
    """Bytes of a checkpoint with `trained` parameters."""
    return WEIGHT * trained + sum(state_bytes(recipe, trained).values())


def checkpoints_made(recipe: PolicyRecipe) -> int:
    """Checkpoints of a whole run: the last step has one, too."""
    return -(-recipe.optimisation.steps // recipe.checkpoints.every)


def run_bytes(recipe: PolicyRecipe, parameters: int, trained: int) -> int:
    """The most bytes in a run's directory: one checkpoint more than it keeps, and the exports."""
    held = min(checkpoints_made(recipe), recipe.checkpoints.keep + 1)
    return held * checkpoint_bytes(recipe, trained) + _EXPORTS * _EXPORTED * parameters


def shortage(recipe: PolicyRecipe, parameters: int, trained: int, out: Path) -> str | None:
    """A sentence for the user where the disk of `out` lacks room; None where it has it.

    What an earlier part of the run wrote there is no longer needed.
    """
    written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    needed = run_bytes(recipe, parameters, trained) - written
    absolute = out.absolute()
    place = next(folder for folder in (absolute, *absolute.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed <= free:
        return None
    return (
        f"checkpoints and exports take up to {size(needed)}, and the disk of {out} has "
        f"{size(free)} left: free some space, choose another --out, or lower checkpoints.keep"
    )


def size(value: float) -> str:
    """
    >>> size(3 << 29)
    '1.5 GiB'
    """
    if value >= _GIB / 10:
        return f"{value / _GIB:,.1f} GiB"
    return f"{value / (1 << 20):,.1f} MiB"
