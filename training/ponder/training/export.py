"""From a trained model to a directory that transformers, vLLM and Ponder can load."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from ponder.thought.contract import Contract, tokenizer_sha256

from .recipe import SftRecipe, recipe_sha256
from .tokenizer import THINK_END, THINK_START
from .traces import CLOSE_TEXT, HINT


def export(directory: Path, model: Any, tokenizer: Any, recipe: SftRecipe) -> Contract:
    """Write weights (safetensors, bfloat16), tokenizer, chat template and `ponder.json`.

    The model in memory is left as it was. Existing files of the same names are replaced.
    """
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    rounded = deepcopy(model).to(torch.bfloat16)
    rounded.config.use_cache = True
    rounded.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    contract = Contract(
        think_start=THINK_START,
        think_end=THINK_END,
        close_text=CLOSE_TEXT,
        opened_by="template",
        tokenizer_sha256=tokenizer_sha256(directory),
        method="sft",
        recipe=recipe.name,
        recipe_sha256=recipe_sha256(recipe),
        seed=recipe.seed,
        budget_hint=HINT,
        trained_budgets=recipe.traces.budgets,
    )
    contract.save(directory)
    return contract
