import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from ponder.training.run.recipe import (
    PolicyRecipe,
    RecipeError,
    SftRecipe,
    find_recipe,
    load_recipe,
    shipped_recipes,
)
from ponder.training.run.recipe_hash import recipe_sha256


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_hold(name: str) -> None:
    assert load_recipe(find_recipe(name)).name == name


def test_an_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match="tiny-sft"):
        find_recipe("huge-sft")


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        ("optimisation.steps", 0, "optimisation.steps"),
        ("optimisation.muon_lr", "fast", "optimisation.muon_lr"),
        ("optimisation.clip_norm", math.inf, "optimisation.clip_norm: must be a finite number"),
        ("traces.hinted", 1.5, "traces.hinted"),
        ("traces.budgets", [], "traces.budgets"),
        ("traces.budgets", [0, 40], "traces.budgets"),
        ("traces.minimal", 0.9, "hinted and minimal"),
        ("model.kv_heads", 3, "kv_heads"),
        ("model.depth", 3, "model.depth"),
    ],
)
def test_errors_name_the_field(
    recipe: SftRecipe, tmp_path: Path, where: str, value: Any, named: str
) -> None:
    raw = recipe.model_dump(mode="json")
    section, field = where.split(".")
    raw[section][field] = value
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(RecipeError, match=named):
        load_recipe(path)


def test_what_is_not_yaml_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("{:")
    with pytest.raises(RecipeError, match="not YAML"):
        load_recipe(path)


def test_the_hash_follows_the_content(recipe: SftRecipe) -> None:
    assert recipe_sha256(recipe) == recipe_sha256(recipe.model_copy())
    assert recipe_sha256(recipe) != recipe_sha256(recipe.model_copy(update={"seed": 6}))


# What the recipes had before fields were added to them: records of runs are found by it.
RECORDED = {
    "tiny-brpo": "ffa3e26565762477e5331f815aa6029e2ac90a55a53203812d14e4f66c1fe85d",
    "reasoner-hbpo": "7547a5400b51d9cde6cb74280a9e185ca822a8be692b1c48bb6cae136d1b45c4",
}


@pytest.mark.parametrize("name", RECORDED)
def test_later_fields_at_their_defaults_leave_the_hash_of_earlier_records(name: str) -> None:
    shipped = load_recipe(find_recipe(name))
    assert isinstance(shipped, PolicyRecipe)
    at_the_token = shipped.method.model_copy(update={"grace": 0} if name == "tiny-brpo" else {})
    bare = shipped.model_copy(update={"method": at_the_token})
    assert recipe_sha256(bare) == RECORDED[name]
    said = load_recipe(
        find_recipe(name), ["rollouts.cache_gib=9", "optimisation.tokens_per_pass=9"]
    )
    assert recipe_sha256(said) not in RECORDED.values()
