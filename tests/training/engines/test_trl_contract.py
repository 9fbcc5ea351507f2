"""What TRL does not promise to keep, and what we rely on: an upgrade is to fail here first."""

from __future__ import annotations

import inspect
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from ponder.training.engines.trl import BudgetTrainer


def names(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_version_is_the_pinned_one() -> None:
    assert version("trl").startswith("1.16.")
    assert any(line.startswith("trl<1.17,>=1.16") for line in requires("ponder") or ())
    pins = (Path(__file__).parents[3] / "constraints.txt").read_text()
    assert f"trl=={version('trl')}" in pins


@pytest.mark.parametrize(
    ("name", "owner", "parameters"),
    [
        ("_prepare_inputs", GRPOTrainer, ["self", "generation_batch"]),
        ("_compute_loss", GRPOTrainer, ["self", "model", "inputs"]),
        ("log", GRPOTrainer, ["self", "logs", "start_time"]),
        ("create_model_card", Trainer, None),
        ("_get_output_dir", Trainer, ["self", "trial"]),
        ("_get_grad_norm", Trainer, ["self", "model", "grad_norm"]),
        ("_save_checkpoint", GRPOTrainer, ["self", "model", "trial"]),
    ],
)
def test_what_is_overridden_is_still_called_so(
    name: str, owner: type, parameters: list[str] | None
) -> None:
    assert name in vars(BudgetTrainer)
    inherited = getattr(owner, name)
    if parameters is not None:
        assert names(inherited) == parameters
        assert names(getattr(BudgetTrainer, name))[: len(parameters)] == parameters


def test_every_override_is_watched() -> None:
    """Whoever overrides one hook more adds it above."""
    overridden = {
        name
        for name, value in vars(BudgetTrainer).items()
        if callable(value) and hasattr(GRPOTrainer, name) and name != "__init__"
    }
    assert overridden == {
        "_prepare_inputs",
        "_compute_loss",
        "log",
        "create_model_card",
        "_get_output_dir",
        "_get_grad_norm",
        "_save_checkpoint",
    }


def test_the_gradients_norm_is_asked_for_before_the_step() -> None:
    source = inspect.getsource(Trainer)
    asked = source.index("self._get_grad_norm(model, grad_norm=grad_norm)")
    assert asked < source.index("self.optimizer.step()", asked)


def test_what_is_used_is_still_there() -> None:
    wanted = ["self", "prompt_ids", "images", "multimodal_fields", "num_generations"]
    assert names(GRPOTrainer._generate_single_turn)[:5] == wanted
    unwrap = names(unwrap_model_for_generation)
    assert unwrap[:2] == ["model", "accelerator"] and "gather_deepspeed3_params" in unwrap
    source = inspect.getsource(GRPOTrainer)
    for attribute in (
        "self._step",
        "self._metrics",
        "self._dist.summon_full_params",
        "self._last_loaded_step",
        "self.vllm_generation.sync_weights()",
        "self.use_vllm",
        "self.temperature",
        "self._buffered_inputs",
    ):
        assert attribute in source, attribute
    config = GRPOConfig.__dataclass_fields__
    assert {"steps_per_generation", "ds3_gather_for_generation", "vllm_mode"} <= set(config)
    assert names(logging.disable_progress_bar) == []


def test_the_loss_is_not_scaled_again() -> None:
    """A micro-batch's share of the batch is in its denominator already."""
    assert GRPOTrainer.loss_is_scaled_for_ga is True


def test_the_fused_head_gives_log_probabilities_and_entropies() -> None:
    assert names(add_fused_lm_head)[:1] == ["model"]
    assert {"log_probs", "entropy"} <= set(FusedCausalLMOutput.__dataclass_fields__)
    assert torch.is_grad_enabled()
