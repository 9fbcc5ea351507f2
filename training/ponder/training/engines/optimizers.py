"""Optimizers and schedules by their names in a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import torch
from transformers import get_scheduler

from ..run.recipe import PolicyOptimisation, RecipeError

_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def optimizer_class(name: str) -> Any:
    """A class of torch.optim, or `package.module:Name`. Raises `RecipeError`."""
    module, colon, attribute = name.rpartition(":")
    try:
        found = getattr(import_module(module) if colon else torch.optim, attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f"optimisation.optimizer: {error}: name a class of torch.optim, or package.module:Name "
            "of one that is installed"
        ) from error
    return found


def optimizer(plan: PolicyOptimisation, parameters: Iterable[torch.nn.Parameter]) -> Any:
    """The plan's optimizer over trained parameters. Raises `RecipeError` if it refuses them.

    Matrices decay; norms and biases, which are vectors, do not. AdamW has betas 0.9 and 0.999, ε
    1e-8.
    """
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    own = {"fused": True} if plan.optimizer == "AdamW" else {}
    try:
        return optimizer_class(plan.optimizer)(
            groups, lr=plan.learning_rate, **{**own, **plan.optimizer_options}
        )
    except (TypeError, ValueError) as error:
        if plan.optimizer_options:
            wrong = f"optimizer_options: {plan.optimizer} does not take them: {error}"
        else:
            wrong = f"optimizer: {plan.optimizer} does not train all weights: {error}; name another"
        raise RecipeError(f"optimisation.{wrong}") from error


def of_verl(parameters: Iterable[torch.nn.Parameter], plan: PolicyOptimisation, **_: float) -> Any:
    """The plan's optimizer for verl, whose arguments repeat the plan's learning rate and decay."""
    return optimizer(plan, parameters)


def schedule(plan: PolicyOptimisation, prepared: Any) -> Any:
    """The learning rate from the first update to the last of the recipe."""
    return get_scheduler(
        _SCHEDULES[plan.schedule],
        prepared,
        num_warmup_steps=plan.warmup_updates,
        num_training_steps=plan.steps * plan.updates,
    )
