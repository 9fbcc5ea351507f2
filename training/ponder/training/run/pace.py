"""Estimates a run's time on this machine: tries a part of the run, and scales it to the whole.

Responses grow or shrink while a model learns, and other work may share the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from ponder.tasks.sources import find_tasks
from ponder.tasks.workers import VerifierPool

from ..base import Base
from ..coldstart.sft import SftResult, train_sft
from ..engines.scoring import add_scoring, score, score_all
from ..rollout.experience import Collector, Share
from ..rollout.rows import Row, collate, passes_of
from .look import sampler_of
from .recipe import PolicyRecipe, RecipeError, SftRecipe

LARGEST = 50_000_000
"""Parameters of the largest model to try: a step of a larger one would itself take long."""

_COLD_STEPS = 30

Found = TypeVar("Found")


def try_cold_start(recipe: SftRecipe) -> tuple[float, SftResult]:
    """Seconds of the whole run, and the result of its first steps."""
    plan = recipe.optimisation
    first = plan.model_copy(update={"steps": min(plan.steps, _COLD_STEPS), "validate_every": 0})
    tried = train_sft(recipe.model_copy(update={"optimisation": first}), progress=False)
    return tried.seconds / first.steps * plan.steps, tried


def can_try(recipe: PolicyRecipe, parameters: int) -> bool:
    """Whether the base is a small local checkpoint, and this process samples by itself."""
    here = Path(recipe.base).is_dir() and recipe.rollouts.engine == "transformers"
    return here and parameters <= LARGEST


def try_step(recipe: PolicyRecipe) -> tuple[float, float]:
    """Seconds of the whole run and of the first step, a part of which runs here."""
    from transformers import AutoModelForCausalLM

    base = Base.find(recipe)
    plan, watched = recipe.optimisation, recipe.validation
    model = AutoModelForCausalLM.from_pretrained(base.files.name, dtype=torch.float32)
    add_scoring(model, recipe.rollouts.temperature)
    limits = plan.micro_batches, plan.tokens_per_pass
    share = Share(score=lambda ids: score_all(model, ids, *limits, model.device))
    sampler = sampler_of(model, recipe)
    with VerifierPool(recipe.rollouts.verifiers) as pool:
        try:
            collector = Collector(
                recipe.method,
                find_tasks(recipe.tasks),
                base.reader(recipe),
                pool.judge,
                prompts=recipe.rollouts.prompts,
                updates=recipe.optimisation.updates,
                seed=recipe.seed,
                longest_prompt=recipe.rollouts.longest_prompt,
            )
        except ValueError as error:
            raise RecipeError(str(error)) from error
        sampling, experience = _timed(lambda: collector.collect(0, sampler, share))

    parts = passes_of(experience.updates[0], plan.micro_batches, plan.tokens_per_pass)
    part, passes = parts[-1], plan.updates * len(parts)
    # Updates after the first also score their rows, forward only: a third more work.
    learning = _timed(lambda: _learn(model, part))[0] * passes * (1 + (1 - 1 / plan.updates) / 3)
    rows = recipe.rollouts.prompts * recipe.method.group_size
    validations = 1 + -(-plan.steps // watched.every)
    validation = sampling * watched.problems * watched.samples / rows
    return plan.steps * (sampling + learning) + validations * validation, sampling + learning


def _learn(model: Any, rows: Sequence[Row]) -> None:
    """A forward and a backward pass of the trainer's size."""
    log_probs_BT, _ = score(model, collate(rows, 0))
    torch.autograd.backward(-log_probs_BT.sum())


def _timed(work: Callable[[], Found]) -> tuple[float, Found]:
    began = time.monotonic()
    found = work()
    return time.monotonic() - began, found
