"""Measures the noise of BRPO's gradient under each of its baselines, at the cold start.

The same rollouts are weighed four ways, which differ in the baseline alone. Summaries are left out,
because all four give them the same advantage. V2 includes the thought's own return, which shrinks
the mean gradient to 1 - 1/G of its size; the full baseline does so in part. That shrinkage accounts
for a part of their smaller traces.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ponder.tasks.sources import find_tasks
from ponder.tasks.workers import VerifierPool
from ponder.training.engines.scoring import add_scoring, score
from ponder.training.method.brpo import BrpoConfig
from ponder.training.method.kernel import ClippedObjective, aggregate
from ponder.training.rollout.experience import Collector, Share
from ponder.training.rollout.rows import Row, collate, loss_inputs, split_by_tokens
from ponder.training.run.recipe import PolicyRecipe, find_recipe, load_recipe

from .measure import Bench

STEPS = 12
_PARTS = 4


def gradient_variance(base: Path, seed: int = 0) -> dict[str, dict[str, float]]:
    """By baseline: the trace of the covariance of a step's gradient, the squared norm of its mean,
    and their ratio (noise over signal).
    """
    recipe = load_recipe(find_recipe("reasoner-brpo"))
    assert isinstance(recipe, PolicyRecipe) and isinstance(recipe.method, BrpoConfig)
    bench = Bench(base, base)
    add_scoring(bench.model)
    found = {}
    with VerifierPool() as pool:
        for baseline in ("full", "v1", "v2", "none"):
            config = recipe.method.model_copy(update={"variance_reduction": baseline, "grace": 0})
            collector = Collector(
                config,
                find_tasks(recipe.tasks),
                bench.reader,
                pool.judge,
                prompts=recipe.rollouts.prompts,
                updates=1,
                seed=seed,
            )
            gradients = []
            for step in range(STEPS):
                (rows,) = collector.collect(step, bench.sample, Share()).updates
                thoughts = [replace(row, chunks=()) for row in rows]
                gradients.append(_gradient(bench.model, thoughts, config))
            found[baseline] = _spread(torch.stack(gradients))
    return found


def _gradient(model: Any, rows: list[Row], config: BrpoConfig) -> torch.Tensor:
    """The gradient of the first, on-policy update, as one vector."""
    model.zero_grad()
    for part in split_by_tokens(rows, _PARTS):
        batch = {k: v.to(model.device) for k, v in collate(part, pad_id=0).items()}
        objective = ClippedObjective(config)(loss_inputs(batch, *score(model, batch)))
        denominator = float(len(rows) * config.longest)
        torch.autograd.backward(-aggregate(objective.per_token_BT, batch["loss_mask"], denominator))
    return torch.cat([p.grad.flatten().double().cpu() for p in model.parameters()])


def _spread(gradients_SD: torch.Tensor) -> dict[str, float]:
    mean_D = gradients_SD.mean(0)
    steps = len(gradients_SD)
    trace = float((gradients_SD - mean_D).pow(2).sum() / (steps - 1))
    # The squared norm of a mean of noisy vectors is too large by the noise left in the mean.
    signal = float(mean_D.pow(2).sum()) - trace / steps
    return {"trace": trace, "signal": signal, "noise_over_signal": trace / max(signal, 1e-30)}
