"""Optimizers, schedules and kernels by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ponder.engine.tokenizer import ModelFiles
from ponder.training.engines.accelerate import AccelerateEngine
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.kernel import LossInputs, PerToken, clipped_objective
from ponder.training.rollout.rows import Row
from ponder.training.run.recipe import RecipeError
from training.policy import TINY, recipe

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = [Row((5, 6, 7), (8, 9, token), (1.0,) * 3, (True,) * 3) for token in (10, 11)]


def engine(path: Path, **sections: Any) -> AccelerateEngine:
    own = recipe(path, "grpo", **sections)
    return AccelerateEngine(ModelFiles.find(str(TINY)), own, path / "out")


def objective(rows: LossInputs) -> PerToken:
    return clipped_objective(rows, GrpoConfig())


def rates(trained: AccelerateEngine, updates: int) -> list[float]:
    return [
        trained.update(trained.pack(ROWS, False), objective, 4.0).learning_rate
        for _ in range(updates)
    ]


def test_a_named_optimizer_and_schedule_are_taken(tmp_path: Path) -> None:
    plan = {"optimizer": "SGD", "optimizer_options": {"momentum": 0.9}, "schedule": "linear"}
    made = engine(tmp_path, optimisation={**plan, "learning_rate": 1.0})  # 2 steps of 2 updates
    assert isinstance(made._optimizer.optimizer, torch.optim.SGD)
    assert made._optimizer.param_groups[0]["momentum"] == 0.9
    assert rates(made, 4) == [1.0, 0.75, 0.5, 0.25]


def test_ones_own_optimizer_is_found_by_its_module(tmp_path: Path) -> None:
    made = engine(tmp_path, optimisation={"optimizer": "torch.optim:Adam", "attention": "eager"})
    assert type(made._optimizer.optimizer) is torch.optim.Adam
    assert made.model.config._attn_implementation == "eager"
    assert rates(made, 2) == [1e-4] * 2


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"optimizer": "AdamZ"}, "optimizer: .*AdamZ.* name a class of torch.optim"),
        ({"optimizer": "nosuch.module:Adam"}, "optimizer: .*nosuch"),
        ({"optimizer_options": {"beta": 3}}, "optimizer_options: AdamW does not take them"),
        ({"optimizer": "LBFGS"}, r"optimizer: LBFGS does not train all weights: .*name another"),
        ({"optimizer": "Muon"}, r"optimizer: Muon does not train all weights: .*name another"),
        ({"attention": "flash_attention_9"}, "attention: "),
        ({"weights": "bfloat16"}, "weights = bfloat16 is for lora"),
    ],
)
def test_what_there_is_not_is_refused_by_name(
    plan: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        engine(tmp_path, optimisation=plan)


def test_summaries_need_a_kernel_that_takes_their_mask(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a mask of their own"):
        recipe(tmp_path, "brpo", optimisation={"attention": "flash_attention_2"})


def test_adapters_are_saved_apart_from_weights_that_are_rounded(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plan = {"weights": "bfloat16", "learning_rate": 1e-2}
    made = engine(tmp_path, lora={"rank": 4}, optimisation=plan)
    rates(made, 1)
    kinds = {p.dtype for p in made._model.parameters() if p.requires_grad}
    assert kinds == {torch.float32} and made.model.dtype == torch.bfloat16
    made.save_adapters(tmp_path / "adapter")
    bare = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.bfloat16)
    loaded = PeftModel.from_pretrained(bare, tmp_path / "adapter").merge_and_unload().state_dict()
    for name, weight in made.weights():
        torch.testing.assert_close(loaded[name].float(), weight.float(), atol=1e-2, rtol=1e-2)
