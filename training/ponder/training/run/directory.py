"""The directory of a run: its recipe, and the states from which it can be continued.

OUT/recipe.json                the recipe, with every default
OUT/checkpoints/checkpoint-N/  the state after step (or update) N, moved into place when complete
"""

from __future__ import annotations

import difflib
import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from .recipe import RecipeError

RECIPE = "recipe.json"
CHECKPOINTS = "checkpoints"
_STAGING = "staging"
_FULL = {errno.ENOSPC, errno.EDQUOT}
# What safetensors and torch.save, which does not know the cause, say of a failed write.
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "inline_container.cc")
Kind = TypeVar("Kind", bound=BaseModel)


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = (run / CHECKPOINTS).glob("checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def place_checkpoint(
    run: Path,
    number: int,
    keep: int,
    write: Callable[[Path], object],
    *,
    main: bool = True,
    wait: Callable[[], object] = lambda: None,
) -> None:
    """Let `write` fill a directory, then move it into place; the `keep` newest ones stay.

    Where several processes write parts of a checkpoint, the main process moves it, and `wait`
    returns when all processes have called it.
    """
    staged = run / _STAGING / f"checkpoint-{number}"
    if main:
        shutil.rmtree(staged.parent, ignore_errors=True)
        staged.mkdir(parents=True)
    wait()
    write(staged)
    wait()
    if not main:
        return
    final = run / CHECKPOINTS / staged.name
    final.parent.mkdir(exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    staged.rename(final)
    staged.parent.rmdir()
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old)


def last_checkpoint(run: Path, recipe: BaseModel, resume: bool) -> Path | None:
    """The checkpoint from which a run of `recipe` continues here; None where it starts anew.

    Raises `RecipeError` for checkpoints without `resume`, or of another recipe.
    """
    if not resume:
        check_new(run)
    if not (found := checkpoints(run)):
        return None
    _check_same(recipe, run / RECIPE)
    return found[-1]


def check_new(run: Path) -> None:
    """Refuse a directory with checkpoints, which only `--resume` may continue."""
    if checkpoints(run):
        raise RecipeError(
            f"{run} holds checkpoints of an earlier run: pass --resume to continue it, "
            "or another --out"
        )


def check_resumable(run: Path) -> None:
    """Refuse `--resume` without a checkpoint: a mistyped directory would cost a whole run."""
    if checkpoints(run):
        return
    where = "there is no such directory" if not run.exists() else "it holds no checkpoint"
    nearest = _nearest(run)
    remedy = f"did you mean --out {nearest}? Or leave" if nearest else "leave"
    raise RecipeError(f"--resume: no run in {run} ({where}): {remedy} --resume out to start anew")


def record(recipe: BaseModel, run: Path) -> None:
    """Write the run's recipe.json."""
    run.mkdir(parents=True, exist_ok=True)
    write_whole(run / RECIPE, recipe.model_dump_json(indent=2) + "\n")


def recorded(path: Path, kind: type[Kind]) -> Kind:
    """The recipe of the run to resume, in its recipe.json. Raises `RecipeError`."""
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} of the run to resume cannot be read: {error}") from error


def write_whole(path: Path, text: str) -> None:
    """Replace a file atomically: a reader finds the old text or the new, even after a kill."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def is_full(error: BaseException | None) -> bool:
    """Whether a write failed because the disk is full, or the error came of such a failure."""
    if error is None:
        return False
    told = isinstance(error, OSError) and error.errno in _FULL
    return told or any(text in str(error) for text in _FULL_TEXTS) or is_full(error.__context__)


def _nearest(run: Path) -> Path | None:
    """The run with the most similar name, of those beside `run`, here and in ./runs."""
    places = dict.fromkeys((run.parent, Path(), Path("runs")))
    runs = [path.parent for place in places for path in place.glob(f"*/{CHECKPOINTS}")]
    by_name = {str(path): path for path in runs if checkpoints(path)}
    close = difflib.get_close_matches(str(run), by_name, n=1, cutoff=0.0)
    return by_name[close[0]] if close else None


def _check_same(recipe: BaseModel, path: Path) -> None:
    """Raise `RecipeError` where a resumed run's recipe differs from the recorded one."""
    earlier = recorded(path, type(recipe))
    if changed := [
        k for k in type(recipe).model_fields if getattr(earlier, k) != getattr(recipe, k)
    ]:
        raise RecipeError(
            f"{path.parent} was started with another recipe ({', '.join(changed)} differ): resume "
            f"it with the settings in {path.name}, or choose another --out"
        )
