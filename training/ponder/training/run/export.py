"""Exports a trained model to a directory that transformers, vLLM and Ponder can load."""

from __future__ import annotations

import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from stat import S_IMODE
from typing import Any

from ponder.thought.contract import FILE_NAME, Contract, tokenizer_sha256

from ..coldstart.thoughts import CLOSE_TEXT, HINT
from ..coldstart.tokenizer import THINK_END, THINK_START, TOOL_CALL
from .recipe import SftRecipe
from .recipe_hash import recipe_sha256

_GENERATION = "generation_config.json"


def export(
    directory: Path,
    model: Any,
    tokenizer: Any,
    contract: Contract,
    state: Any = None,
    *,
    base: Path | None = None,
) -> Contract:
    """Write weights (safetensors, bfloat16), tokenizer, chat template and `ponder.json`.

    `state` replaces the weights of `model`, which stays unchanged. The sampling settings and ends
    that `base` recommends (`generation_config.json`) stay as they are. Existing files of the same
    names are replaced. Returns the contract with the hash of the written tokenizer.
    """
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    weights = model.state_dict() if state is None else state
    tied = model.all_tied_weights_keys  # rounding would make copies: skip them
    rounded = {n: value.to(torch.bfloat16) for n, value in weights.items() if n not in tied}
    model.save_pretrained(directory, state_dict=rounded)
    # transformers has written the type of the model in memory; the written weights are rounded.
    config = deepcopy(model.config)
    config.dtype, config.use_cache = torch.bfloat16, True
    config.save_pretrained(directory)
    if base is not None and (base / _GENERATION).is_file():
        shutil.copyfile(base / _GENERATION, directory / _GENERATION)
    tokenizer.save_pretrained(directory)
    contract = replace(contract, tokenizer_sha256=tokenizer_sha256(directory))
    contract.save(directory)
    # safetensors makes its files readable to their owner alone; a server may be another user.
    mode = S_IMODE((directory / FILE_NAME).stat().st_mode)
    for path in filter(Path.is_file, directory.iterdir()):
        path.chmod(mode)
    return contract


def cold_start_contract(recipe: SftRecipe) -> Contract:
    """The contract of a model trained from scratch on written thoughts."""
    return Contract(
        think_start=THINK_START,
        think_end=THINK_END,
        close_text=CLOSE_TEXT,
        tool_call=TOOL_CALL,
        opened_by="template",
        tokenizer_sha256="",
        method="sft",
        recipe=recipe.name,
        recipe_sha256=recipe_sha256(recipe),
        seed=recipe.seed,
        budget_hint=HINT,
        trained_budgets=recipe.traces.budgets,
    )
