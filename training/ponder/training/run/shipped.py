"""The recipes that come with Ponder, by name."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recipes"


def shipped_recipes() -> dict[str, str]:
    """What each recipe is for, by its name, sorted: the first line of its file."""
    return {path.stem: _purpose(path) for path in sorted(FOLDER.glob("*.yaml"))}


def listed() -> str:
    """A line for each recipe: its name and what it is for."""
    recipes = shipped_recipes()
    width = max(map(len, recipes))
    return "\n".join(f"{name:<{width}}  {purpose}" for name, purpose in recipes.items())


def _purpose(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# ").removesuffix(".")
