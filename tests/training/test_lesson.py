from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from ponder.engine.tokenizer import HFTokenizer
from ponder.thought.contract import Contract
from ponder.training.commands.train import Options, run
from ponder.training.examples import ExampleWriter
from ponder.training.lesson import digit_ids, rehearse, train_lesson, widen
from ponder.training.recipe import LessonRecipe, RecipeError, find_recipe, load_recipe
from ponder.training.sft import batch_loss
from ponder.training.tokenizer import extended

from .policy import TINY


def small(path: Path, **changes: Any) -> Path:
    raw = yaml.safe_load(find_recipe("tiny-openings").read_text()) | {"base": str(TINY)} | changes
    raw["optimisation"] |= {"steps": 2, "tokens_per_step": 512, "rehearsed_per_step": 512}
    path = path / "own.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def lesson(path: Path, **changes: Any) -> LessonRecipe:
    loaded = load_recipe(small(path, **changes))
    assert isinstance(loaded, LessonRecipe)
    return loaded


def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)


def test_a_lesson_is_a_function_of_its_recipe_and_base(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    one, two, other = (
        train_lesson(lesson(tmp_path, seed=seed), model(), tokenizer, progress=False)
        for seed in (0, 0, 1)
    )
    assert one.losses == two.losses != other.losses
    for left, right in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_rehearsal_keeps_words_and_teaches_digits(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    digits = digit_ids(tokenizer)
    assert {tokenizer.decode(i).strip() for i in digits} == set("0123456789")
    writer = ExampleWriter(tokenizer, lesson(tmp_path).traces, "validation")
    rng = Random(0)
    batch = [writer.write(rng, terse=False) for _ in range(4)]
    before, after = model(), model()
    drift, error = rehearse(after, before, batch, digits)
    assert drift.item() == pytest.approx(0, abs=1e-6)
    assert 0 < error.item() < batch_loss(before, batch).item()
    with torch.no_grad():
        after.model.norm.weight *= 1.5
    drift, error = rehearse(after, before, batch, digits)
    assert drift.item() > 0.001
    torch.autograd.backward(drift + error)
    assert all(parameter.grad is not None for parameter in after.parameters())
    assert all(parameter.grad is None for parameter in before.parameters())


def test_new_words_begin_as_what_they_were_spelt_with() -> None:
    base = model()
    known = AutoTokenizer.from_pretrained(TINY)
    taught = extended(known, ["qq qq qq"], len(known) + 1)
    old = base.get_input_embeddings().weight.detach().clone()
    widen(base, known, taught)
    new = base.get_input_embeddings().weight
    (word,) = taught.encode("qq")
    assert word == len(known)
    assert torch.equal(new[:word], old)
    assert torch.allclose(new[word], old[known.encode("qq")].mean(0))
    assert base.lm_head.weight is new


def test_what_is_exported_keeps_the_contract(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = Options(recipe=str(small(tmp_path)), out=out, threads=1)
    assert run(options) == 0
    base, taught = Contract.load(TINY), Contract.load(out)
    assert base is not None and taught is not None
    assert (taught.recipe, taught.base_model) == ("tiny-openings", TINY.name)
    for kept in ("close_text", "budget_hint", "trained_budgets", "method"):
        assert getattr(taught, kept) == getattr(base, kept)
    assert len(AutoTokenizer.from_pretrained(out)) == 1024
    assert HFTokenizer(out).sampling_defaults == {"temperature": 0.6}
    assert run(options) == 2  # never over a checkpoint


def test_only_a_tiny_reasoner_is_taught(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    options = Options(recipe=str(small(tmp_path)), base=str(tmp_path), out=tmp_path / "out")
    assert run(options) == 2
    assert "is no tiny reasoner" in capsys.readouterr().err
    raw = yaml.safe_load(find_recipe("tiny-openings").read_text())
    with pytest.raises(RecipeError, match="muon_lr"):
        lesson(tmp_path, optimisation=raw["optimisation"] | {"muon_lr": 2.0})
