from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ponder.training.run.changes import changed, field_paths, sentences
from ponder.training.run.recipe import PolicyRecipe, SftRecipe
from training.policy import raw_recipe

NAMES = st.text("abcdef_", min_size=1, max_size=4)
VALUES = st.none() | st.booleans() | st.integers() | st.text("abc, :") | st.lists(st.integers())


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES)), NAMES, NAMES, VALUES)
def test_one_field_is_replaced_and_no_other(
    raw: dict[str, Any], section: str, name: str, value: Any
) -> None:
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    before = yaml.safe_dump(raw)
    after = changed(raw, [f"{section}.{name}={text}"])
    assert after[section][name] == value
    assert yaml.safe_dump(raw) == before
    del after[section][name]
    left = {key: dict(inner) for key, inner in raw.items()}
    left.setdefault(section, {}).pop(name, None)
    assert after == left


@pytest.mark.parametrize(
    ("change", "said"),
    [("steps", "write key=value"), ("=3", "write key=value"), ("a.b={", "the value is not YAML")],
)
def test_what_is_no_change_is_said(change: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"--set {change}: .*{said}"):
        changed({}, [change])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "optimisation.step=3",
            "optimisation.step: no such field: did you mean optimisation.steps?",
        ),
        ("optimisation.steps=0", "optimisation.steps: must be greater than or equal to 1, not 0"),
        ("optimisation.steps=ten", "must be a valid integer, not 'ten'"),
        ("method.budget=[4]", "method.budget: no such field: did you mean method.budgets?"),
        ("optimisation=3", "optimisation: must be a section, with fields of its own"),
        ("lora.rank=0", "lora.rank: must be greater than or equal to 1, not 0"),
        ("lora.target_modules=[]", "lora.target_modules: must have at least 1 item"),
        ("rollouts.vllm_options=[--x]", "rollouts.vllm_options are for rollouts.engine = vllm"),
        (
            "optimisation.optimizer_options={lr: 1}",
            "optimizer_options: set optimisation.learning_rate instead of lr",
        ),
        (
            "optimisation.optimizer_options={weight_decay: 1}",
            "optimizer_options: set optimisation.weight_decay instead of weight_decay",
        ),
        ("validation.hints=[-5, 4]", "validation.hints.0: must be greater than or equal to 1"),
        ("optimisation.clip_norm=.inf", "clip_norm: must be a finite number, not inf"),
        ("method.beta=.nan", "method.beta: must be a finite number, not nan"),
        ("method.add=[{aspo: {k: .inf}}]", "aspo.k: Input should be a finite number"),
    ],
)
def test_what_does_not_hold_is_named(change: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PolicyRecipe.model_validate(changed(raw_recipe("hbpo"), [change]))
    assert said in sentences(caught.value, PolicyRecipe)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("method.longest=1", "method.longest: must be greater than or equal to 8, not 1"),
        (
            "method.subgroup_sizes=[1]",
            "method: subgroup_sizes must have one number for each of the 4 budgets",
        ),
    ],
)
def test_one_wrong_field_is_one_sentence(change: str, said: str) -> None:
    raw = raw_recipe("hbpo")
    del raw["method"]["budgets"]
    with pytest.raises(ValidationError) as caught:
        PolicyRecipe.model_validate(changed(raw, [change]))
    assert sentences(caught.value, PolicyRecipe) == said


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        SftRecipe.model_validate({"name": "x"})
    assert "traces: is missing" in sentences(caught.value, SftRecipe)


def test_every_method_has_its_fields_listed() -> None:
    paths = set(field_paths(PolicyRecipe))
    assert {"seed", "method.summaries", "method.ratio_cap", "lora.rank"} <= paths
