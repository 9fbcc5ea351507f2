"""The model that a recipe trains: the base's weights, and adapters where it asks for them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ponder.engine.tokenizer import ModelFiles

from ..rollout.masks import refusal
from ..run.recipe import TREE_KERNELS, PolicyRecipe, RecipeError


def loaded(base: ModelFiles, recipe: PolicyRecipe) -> Any:
    """The base, with the weights' type and the attention kernel of the recipe.

    Raises `RecipeError` where it cannot be trained so.
    """
    plan = recipe.optimisation
    kernel = {} if plan.attention is None else {"attn_implementation": plan.attention}
    if plan.attention == "flex_attention" and not torch.cuda.is_available():
        raise RecipeError("optimisation.attention = flex_attention needs a GPU: name sdpa or eager")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.name, dtype=getattr(torch, plan.weights), **kernel
        )
    except (ImportError, ValueError) as error:
        if plan.attention is None:
            raise
        raise RecipeError(f"optimisation.attention: {error}") from error
    if recipe.method.branches and (cause := refusal(model.config, TREE_KERNELS)):
        raise RecipeError(
            f"{base.name} cannot train with {recipe.method.method}, whose summaries need a mask "
            f"of their own, because of {cause}: train it by another method, "
            "or with optimisation.engine = verl, which gives each summary a row"
        )
    return model


def adapted(model: Any, recipe: PolicyRecipe) -> Any:
    """The model with PEFT's low-rank adapters, and all other weights frozen."""
    from peft import LoraConfig, get_peft_model

    assert recipe.lora is not None
    modules = recipe.lora.target_modules
    return get_peft_model(
        model,
        LoraConfig(
            r=recipe.lora.rank,
            lora_alpha=recipe.lora.alpha,
            target_modules=modules if isinstance(modules, str) else list(modules),
            task_type="CAUSAL_LM",
        ),
    )
