"""What a recipe adds to a method: found, checked, written back."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError

from ponder.training.method.aspo import Aspo
from ponder.training.method.batch import Batch, Context
from ponder.training.method.components import COMPONENTS, CONFLICTS
from ponder.training.method.kernel import LossInputs, Objective, PerToken
from ponder.training.method.presets import PRESETS, Method, MethodConfig
from ponder.training.method.stages import Component, Place
from ponder.training.run.recipe import (
    RecipeError,
    find_recipe,
    load_recipe,
)
from ponder.training.run.recipe_hash import recipe_sha256
from training.method.scored import after, scored

CONFIG: TypeAdapter[Any] = TypeAdapter(MethodConfig)


class Halve(Component):
    """Halves every advantage."""

    at: ClassVar[Place] = "weight"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage"})

    def __call__(self, batch: Batch, context: Context) -> Batch:
        return batch.with_columns(advantage=batch["advantage"] / 2)


class Misplaced(Halve):
    at: ClassVar[Any] = "afterwards"


class Fewer(Halve):
    at: ClassVar[Place] = "allocate"


class Loud(Component):
    """Objectives, doubled, that read a column."""

    def around(self, objective: Objective) -> Objective:
        class Doubled:
            reads = objective.reads | {"truncated"}

            def __call__(self, rows: LossInputs) -> PerToken:
                found = objective(rows)
                return PerToken(found.per_token_BT * 2, found.stats)

        return Doubled()


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own")
    vars(module).update(Halve=Halve, Misplaced=Misplaced, Fewer=Fewer, Loud=Loud, nothing=1)
    monkeypatch.setitem(sys.modules, "own", module)


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_added_survives_a_round_trip(name: str) -> None:
    raw = {"method": name, "add": [{"aspo": {"k": 0.5}}, {"own:Halve": None}]}
    config = CONFIG.validate_python(raw)
    assert [addition.name for addition in config.add] == ["aspo", "own:Halve"]
    assert CONFIG.validate_json(config.model_dump_json()) == config
    assert list(config.model_dump()["add"]) == [
        {"aspo": {"delta": -2.0, "k": 0.5}},
        {"own:Halve": {}},
    ]
    plain = CONFIG.validate_python({"method": name})
    assert "add" not in plain.model_dump() and plain != config


def test_components_of_one_place_run_in_the_order_of_the_recipe() -> None:
    seen = scored([2], correct=[True, False], thinking=[10, 30], length=[20, 40])
    halved = {"own:Halve": {}}
    for add in ([{"aspo": {"k": 0.1}}, halved], [halved, {"aspo": {"k": 0.1}}]):
        config = CONFIG.validate_python({"method": "grpo", "add": add})
        stages = [type(stage).__name__ for stage in Method.of(config).stages]
        assert stages[-2:] == ["Aspo", "Halve"][:: 1 if "aspo" in add[0] else -1]
        assert after(config, seen)["advantage"][0].item() == pytest.approx(2**-0.5 * 1.1 / 2, 1e-5)


def test_a_component_may_stand_around_the_objective() -> None:
    method = Method.of(CONFIG.validate_python({"method": "grpo", "add": [{"own:Loud": {}}]}))
    assert method.ships == {"truncated"}
    ones = torch.ones(1, 1)
    assert method.objective(LossInputs(ones, ones, ones, ones)).per_token_BT.item() == 2


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"asp": {}}, "did you mean aspo.* aspo, .*dot.*, and your own as package.module:Name"),
        ({"brpo": {}}, "no component 'brpo'.*here are .*aspo.*, dot"),
        ({"aspo": {"k": 1}}, "aspo.k: .*less than 1 .aspo has delta, k"),
        ({"aspo": {"gamma": 1}}, "aspo.gamma: .* .aspo has delta, k"),
        ({"aspo": {}, "dot": {}}, "one component with its settings"),
        ("aspo", "one component with its settings"),
        ({"no.such:Thing": {}}, "no.such:Thing: No module .* importable where the run starts"),
        ({"own:Missing": {}}, "own:Missing: .*no attribute"),
        ({"own:nothing": {}}, "own:nothing is no component: derive it"),
        ({"own:Misplaced": {}}, "at = 'afterwards': it must be one of allocate, edit, reward"),
    ],
)
def test_what_is_no_component_is_refused(added: object, said: str) -> None:
    with pytest.raises(ValidationError, match=rf"(?s)add.*{said}"):
        CONFIG.validate_python({"method": "grpo", "add": [added]})


@pytest.mark.parametrize(
    ("method", "added", "said"),
    [
        ("brpo", {"dot": {}}, r"with brpo, Dot \(at edit\) reads correct.*there are accuracy"),
        ("hbpo", {"own:Fewer": {}}, "with hbpo, Fewer allocates rollouts.*number is fixed"),
    ],
)
def test_what_does_not_fit_a_method_is_refused_before_a_model_is_loaded(
    method: str, added: object, said: str
) -> None:
    with pytest.raises(RecipeError, match=f"method.add: {said}"):
        load_recipe(find_recipe(f"tiny-{method}"), [f"method.add=[{added}]"])


@pytest.mark.parametrize(
    ("method", "added", "said"),
    [
        ("hbpo", ["lite_ppo"], "lite_ppo does not go with hbpo: .*use it with another method"),
        ("grpo", ["riskpo", "lite_ppo"], "lite_ppo does not go with riskpo: .*remove one of them"),
        ("grpo", ["aspo", "dot", "aspo"], "aspo is listed twice: list it once"),
    ],
)
def test_what_contradicts_each_other_is_refused_by_name(
    method: str, added: list[str], said: str
) -> None:
    names = ",".join(f"{{{name}: {{}}}}" for name in added)
    with pytest.raises(RecipeError, match=f"method.add: {said}"):
        load_recipe(find_recipe(f"tiny-{method}"), [f"method.add=[{names}]"])


def test_every_conflict_is_of_things_that_there_are() -> None:
    for pair, remedy in CONFLICTS.items():
        assert set(pair) <= set(COMPONENTS) | set(PRESETS) and remedy


def test_a_component_in_the_wrong_section_is_told_its_place(tmp_path: Path) -> None:
    raw = yaml.safe_load(find_recipe("tiny-grpo").read_text())
    path = tmp_path / "own.yaml"
    for wrong in ({**raw, "add": [{"aspo": {}}]}, {**raw, "method": {**raw["method"], "dot": {}}}):
        path.write_text(yaml.safe_dump(wrong))
        with pytest.raises(RecipeError, match=r"no such field: .* method\.add"):
            load_recipe(path)


def test_the_hash_of_a_recipe_knows_what_is_added() -> None:
    plain = load_recipe(find_recipe("tiny-grpo"))
    added = load_recipe(find_recipe("tiny-grpo"), ["method.add=[{aspo: {}}]"])
    other = load_recipe(find_recipe("tiny-grpo"), ["method.add=[{aspo: {k: 0.6}}]"])
    assert len({recipe_sha256(r) for r in (plain, added, other)}) == 3


@pytest.mark.parametrize("component", COMPONENTS.values())
def test_every_setting_is_described_and_bounded(component: type[Component]) -> None:
    assert component.__doc__ and "arXiv" in component.__doc__
    for name, field in component.model_json_schema()["properties"].items():
        assert field["description"], name
        kind = field.get("items", field)
        if kind["type"] in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & set(kind), name
            assert {"maximum", "exclusiveMaximum"} & set(kind), name


def test_the_defaults_are_the_published_settings() -> None:
    assert Aspo().model_dump() == {"delta": -2, "k": 0.7}
    assert COMPONENTS["dot"]().model_dump() == {"alpha": 3, "least": 32}
    published: dict[str, dict[str, Any]] = {
        "adora": {"weight": 0.1, "favour": "longer"},
        "a2fm": {"power": 2},
        "progrpo": {"share": 0.2},
        "riskpo": {"bundle": 5, "low": 0.2, "high": 0.8, "mix": 1.5, "rate": 0.1},
        "treepo": {"segment": 512, "fork": 2},
    }
    for name, settings in published.items():
        given = COMPONENTS[name]().model_dump()
        assert {setting: given[setting] for setting in settings} == settings


def test_the_page_names_every_method_and_component() -> None:
    page = (Path(__file__).parents[3] / "docs" / "methods.md").read_text()
    assert [name for name in (*PRESETS, *COMPONENTS) if f"| `{name}`" not in page] == []
