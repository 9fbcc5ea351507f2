"""The training engines by their names in recipes; each is imported at its first use.

A new engine is a module with a class like `protocol.EngineKind` and a row here. A recipe names an
engine of your own by its place, as package.module:Name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from ..run.recipe import RecipeError
from .protocol import EngineKind

ENGINES: Mapping[str, str] = {
    "accelerate": "ponder.training.engines.accelerate:AccelerateEngine",
    "verl": "ponder.training.engines.verl:VerlEngine",
}


def engine_of(name: str) -> EngineKind:
    """The class behind `optimisation.engine`. Raises `RecipeError`.

    >>> engine_of("accelerate").__name__
    'AccelerateEngine'
    """
    module, colon, attribute = ENGINES.get(name, name).rpartition(":")
    if not colon:
        known = ", ".join(ENGINES)
        raise RecipeError(
            f"optimisation.engine: no engine {name!r}: name one of {known}, or package.module:Name"
        )
    try:
        kind: EngineKind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"optimisation.engine: {error}") from error
    return kind
