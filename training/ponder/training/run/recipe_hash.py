"""A hash that identifies a recipe in old and new records."""

from __future__ import annotations

import hashlib
from typing import Any

from .recipe import PolicyRecipe, Recipe

# Fields that older recorded recipes lack.
_LATER = (
    "method.centre_intra",
    "method.unhinted",
    "system_prompt",
    "instruction",
    "rollouts.vllm_options",
    "rollouts.servers",
    "rollouts.transfer",
    "rollouts.steps_ahead",
    "rollouts.sampler_cap",
    "rollouts.cache_gib",
    "optimisation.engine",
    "optimisation.workers",
    "optimisation.tokens_per_pass",
    "optimisation.optimizer",
    "optimisation.optimizer_options",
    "optimisation.schedule",
    "optimisation.weights",
    "optimisation.attention",
    "validation.longest",
    "validation.greedy",
    "validation.also",
    "validation.hints",
    "validation.budgets",
    "validation.answer_tokens",
)


def recipe_sha256(recipe: Recipe) -> str:
    """Hash of the recipe's values, whatever its YAML looks like.

    A recipe that leaves a later field at its default, or cuts without grace, has the same hash as a
    recipe recorded before that field existed.
    """
    unsaid: dict[str, Any] = {}
    for place in _LATER if isinstance(recipe, PolicyRecipe) else ():
        *sections, name = place.split(".")
        holder, inside = recipe, unsaid
        for section in sections:
            holder, inside = getattr(holder, section), inside.setdefault(section, {})
        field = type(holder).model_fields.get(name)
        if field is not None and getattr(holder, name) == field.default:
            inside[name] = True
    if getattr(getattr(recipe, "method", None), "grace", None) == 0:
        unsaid.setdefault("method", {})["grace"] = True
    return hashlib.sha256(recipe.model_dump_json(exclude=unsaid).encode()).hexdigest()
