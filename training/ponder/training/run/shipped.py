"""The recipes that come with Ponder, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recipes"


def shipped_recipes() -> dict[str, str]:
    """Each recipe's purpose, the first line of its file, by its name, sorted."""
    return {path.stem: _purpose(path) for path in sorted(FOLDER.glob("*.yaml"))}


def listed() -> str:
    """A line for each recipe and for each component: its name and its purpose."""
    from ..method.components import COMPONENTS

    components = {name: (it.__doc__ or "").partition("\n")[0] for name, it in COMPONENTS.items()}
    return f"{_lines(shipped_recipes())}\n\nComponents, for method.add:\n{_lines(components)}"


def _lines(purposes: Mapping[str, str]) -> str:
    width = max(map(len, purposes))
    return "\n".join(f"{name:<{width}}  {purpose}" for name, purpose in purposes.items())


def _purpose(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# ").removesuffix(".")
