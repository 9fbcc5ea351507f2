"""The checkpoint a run starts from: with its contract, or recognised by its template."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from curves import calibrate
from ponder.thought.contract import Contract, ContractError, tokenizer_sha256
from ponder.thought.families import of_contract, recognise
from ponder.training.base import Base
from ponder.training.run.recipe import RecipeError
from training.policy import TINY, recipe


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The bundled checkpoint without its contract, its template made one of Qwen3's family."""
    bare = Path(shutil.copytree(TINY, tmp_path / "bare", ignore=lambda *_: ["ponder.json"]))
    with (bare / "chat_template.jinja").open("a") as template:
        template.write("{# </think> #}")
    return bare


def test_a_contract_is_kept_but_for_what_is_trained(tmp_path: Path) -> None:
    base, held = Base.find(recipe(tmp_path, "hbpo")), Contract.load(TINY)
    assert held is not None
    assert (base.contract.close_text, base.contract.family) == (held.close_text, None)
    assert base.contract.trained_budgets == (20, 40, 80, 100)
    assert base.checkpoint.compiled is not None
    assert base.checkpoint.compiled.opened_by == "template"
    assert base.config["model_type"] == "qwen3"


def test_another_models_curve_is_not_exported(tmp_path: Path) -> None:
    curved = Path(shutil.copytree(TINY, tmp_path / "curved"))
    held = Contract.load(curved)
    assert held is not None
    calibrate(held, {"tiny": {0: 0.1, 40: 0.5, -1: 0.9}}).save(curved)
    base = Base.find(recipe(tmp_path, "hbpo", base=str(curved)))
    assert (base.contract.budget_curve, base.contract.calibration) == ((), None)


def test_budgets_that_cut_are_not_hinted_at(tmp_path: Path) -> None:
    base, held = Base.find(recipe(tmp_path, "brpo")), Contract.load(TINY)
    assert held is not None and held.budget_hint
    assert base.contract.budget_hint is None
    assert base.contract.trained_budgets != held.trained_budgets


@pytest.mark.parametrize("marker", ["<think>", "</think>"])
def test_a_hint_holds_no_marker_of_the_thought(marker: str, tmp_path: Path) -> None:
    own = recipe(tmp_path, "hbpo", method={"hint": f"{{budget}} tokens{marker}"})
    with pytest.raises(RecipeError, match=rf"method\.hint: must not hold {marker}"):
        Base.find(own)


def test_a_known_family_needs_no_contract(bare: Path, tmp_path: Path) -> None:
    base = Base.find(recipe(tmp_path, "grpo", base=str(bare)))
    row = recognise(base.checkpoint.tokenizer.chat_template, base.config["model_type"])
    assert row is not None
    family = row.format
    assert base.contract.family == family.name == "Qwen3"
    form = base.checkpoint.form
    assert form is not None
    assert (form.close_text, form.tool_call) == (family.close_text, family.tool_call)
    assert form.think == family.think
    assert base.contract.opened_by == "template"


def test_what_is_trained_open_is_served_open(bare: Path, tmp_path: Path) -> None:
    row = recognise((bare / "chat_template.jinja").read_text(), "qwen3")
    assert row is not None
    own = {"think_start": "<think>", "think_end": "</think>", "close_text": "\n</think>\n\n"}
    Contract(**own, opened_by="model", family=row.format.name).save(bare)  # type: ignore[arg-type]
    base = Base.find(recipe(tmp_path, "hbpo", base=str(bare)))
    assert base.contract.opened_by == "template"
    assert base.checkpoint.compiled is not None
    assert base.checkpoint.compiled.opened_by == "template"


def test_what_is_exported_keeps_its_family(bare: Path, tmp_path: Path) -> None:
    contract = Base.find(recipe(tmp_path, "grpo", base=str(bare))).contract
    replace(contract, tokenizer_sha256=tokenizer_sha256(bare)).save(bare)
    loaded = Contract.load(bare)
    assert loaded is not None
    form = of_contract(loaded)
    assert (form.tool_call, form.close_text) == ("<tool_call>", loaded.close_text)
    with pytest.raises(ContractError, match="'Qwen9' is none of"):
        of_contract(replace(loaded, family="Qwen9"))


def test_the_recipes_close_text_is_exported(tmp_path: Path) -> None:
    own = recipe(tmp_path, "brpo", close_text="…</think>", answer_prefix="\nAnswer: ")
    base = Base.find(own)
    assert (base.contract.close_text, base.contract.answer_prefix) == ("…</think>", "\nAnswer: ")
    assert base.checkpoint.compiled is not None
    assert base.checkpoint.compiled.close.shown == "\nAnswer: "
    with pytest.raises(RecipeError, match=r"close_text: .* exactly once"):
        Base.find(own.model_copy(update={"close_text": "</think></think>"}))
