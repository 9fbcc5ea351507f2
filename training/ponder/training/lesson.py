"""A lesson: new examples for a trained reasoner, which keeps what it knew.

Openings are learnt by next-token prediction. Beside them the model reads thoughts on the tiny
tasks: their digits are learnt alike, and in their words it is held to what it would have said
before the lesson (learning without forgetting, arXiv 1606.09282). So arithmetic is practised, the
lengths that budget training taught stay as they are, and no thought has to be sampled.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn.functional import kl_div
from tqdm import tqdm

from ponder.engine.tokenizer import ModelFiles
from ponder.thought.contract import Contract

from .examples import Example, ExampleWriter, OpeningWriter, batches, openings_corpus
from .export import export
from .muon import Muon
from .recipe import LessonRecipe, RecipeError, recipe_sha256
from .sft import NotFinite, SftResult, batch_loss, collate, lr_schedule
from .tokenizer import extended
from .traces import CLOSE_TEXT, HINT

_CORPUS = 4000


def train_lesson(
    recipe: LessonRecipe, base: Any, tokenizer: Any, progress: bool = True
) -> SftResult:
    """Teach `base` (float32, changed in place) on the CPU; a function of recipe and base.

    The losses are those of the openings, in nats per learnt token.
    """
    plan = recipe.optimisation
    torch.manual_seed(recipe.seed)
    rng = Random(recipe.seed)
    known, tokenizer = (
        tokenizer,
        extended(tokenizer, openings_corpus(rng, _CORPUS), recipe.vocabulary),
    )
    widen(base, known, tokenizer)
    before = deepcopy(base).requires_grad_(False)
    result = SftResult(base, tokenizer)
    digits = digit_ids(tokenizer)
    matrices, rest = inner_matrices(base)
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=plan.muon_lr),
        torch.optim.AdamW(rest, lr=plan.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lr_schedule(plan.warmup_steps, plan.steps))
        for o in optimizers
    ]
    lessons = batches(
        OpeningWriter(tokenizer, recipe.traces, "train"), rng, plan.tokens_per_step, 0
    )
    rehearsals = batches(
        ExampleWriter(tokenizer, recipe.traces, "train"), rng, plan.rehearsed_per_step, 0
    )

    began = time.monotonic()
    with tqdm(total=plan.steps, desc=recipe.name, unit="step", disable=not progress) as bar:
        for step in range(1, plan.steps + 1):
            lesson, rehearsal = next(lessons), next(rehearsals)
            loss = batch_loss(base, lesson)
            drift, error = rehearse(base, before, rehearsal, digits)
            if not torch.isfinite(loss + drift + error):
                raise NotFinite(
                    f"the loss is {loss.item()} at step {step}: train again with a smaller "
                    "muon_lr, adamw_lr or clip_norm"
                )
            torch.autograd.backward(loss + recipe.keep * (drift + error))
            torch.nn.utils.clip_grad_norm_(base.parameters(), plan.clip_norm)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
            result.losses.append(loss.item())
            result.tokens += sum(len(it.ids) for it in (*lesson, *rehearsal))
            result.seconds = time.monotonic() - began
            bar.update()
            rate = f"{result.tokens / max(result.seconds, 1e-9):,.0f}"
            bar.set_postfix(
                {"loss": f"{loss.item():.3f}", "drift": f"{drift.item():.4f}", "tok/s": rate},
                refresh=False,
            )
    return result


def widen(model: Any, known: Any, extended: Any) -> None:
    """Rows for the new tokens, each the mean of the tokens it was before."""
    old = len(known)
    rows = model.get_input_embeddings().weight.detach().clone()
    model.resize_token_embeddings(len(extended), mean_resizing=False)
    table = model.get_input_embeddings().weight
    names = {index: token for token, index in extended.get_vocab().items()}
    with torch.no_grad():
        for index in range(old, len(extended)):
            text = extended.backend_tokenizer.decoder.decode([names[index]])
            table[index] = rows[known.encode(text, add_special_tokens=False)].mean(0)


def inner_matrices(model: Any) -> tuple[list[Any], list[Any]]:
    """The matrices inside the layers, and all other parameters."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in model.parameters() if id(p) not in chosen]


def digit_ids(tokenizer: Any) -> torch.Tensor:
    """Ids of the tokens that are a digit, with or without a space before it."""
    vocabulary = tokenizer.get_vocab()
    return torch.tensor(sorted(i for t, i in vocabulary.items() if re.fullmatch("\u0120?[0-9]", t)))


def rehearse(
    model: Any, before: Any, batch: Sequence[Example], digits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a batch of tiny thoughts says of a model: two sums over its learnt tokens, each divided
    by all of them, in nats, with gradient.

    Of words KL(before ‖ model): they carry the habits that budget training taught. Of digits the
    cross-entropy: written thoughts hold true arithmetic, which is better than what was known.
    """
    ids_B_T, learnt_B_T = collate(batch)
    learnt_B_S = learnt_B_T[:, 1:]
    target_N = ids_B_T[:, 1:][learnt_B_S]
    with torch.no_grad():
        hidden_B_S_D = before.model(input_ids=ids_B_T[:, :-1]).last_hidden_state
        was_N_V = before.lm_head(hidden_B_S_D[learnt_B_S]).log_softmax(-1)
    hidden_B_S_D = model.model(input_ids=ids_B_T[:, :-1]).last_hidden_state
    is_N_V = model.lm_head(hidden_B_S_D[learnt_B_S]).log_softmax(-1)
    drift_N = kl_div(is_N_V, was_N_V, reduction="none", log_target=True).sum(-1)
    is_digit_N = torch.isin(target_N, digits)
    told_N = -is_N_V.gather(-1, target_N[:, None]).squeeze(-1)
    return (
        torch.where(is_digit_N, 0.0, drift_N).mean(),
        torch.where(is_digit_N, told_N, 0.0).mean(),
    )


def run_lesson(recipe: LessonRecipe, directory: Path) -> SftResult:
    """Load the base, teach it and export; `RecipeError` for a base that is no tiny reasoner.

    The contract stays the base's but for its names: how a thought is closed and which budgets
    were trained has not changed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        files = ModelFiles.find(recipe.base)
    except FileNotFoundError as error:
        raise RecipeError(f"base: {error}; `ponder train tiny-hbpo` makes tiny-hbpo") from error
    contract = Contract.load(files.directory)
    if contract is None or (contract.close_text, contract.budget_hint) != (CLOSE_TEXT, HINT):
        raise RecipeError(f"base: {recipe.base} is no tiny reasoner: name one that tiny-sft began")
    model = AutoModelForCausalLM.from_pretrained(files.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(files.name)
    result = train_lesson(recipe, model, tokenizer)
    contract = replace(
        contract,
        recipe=recipe.name,
        recipe_sha256=recipe_sha256(recipe),
        seed=recipe.seed,
        base_model=files.label,
    )
    model.generation_config.temperature = recipe.temperature
    export(directory, model, result.tokenizer, contract)
    return result
