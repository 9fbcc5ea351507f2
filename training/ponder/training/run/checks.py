"""Checks a recipe against processes, the base's positions and modules, and installed trackers.

They run before any weights are loaded. Each raises `RecipeError` that names the field.
"""

from __future__ import annotations

from typing import Any

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import HFTokenizer

from ..method.settings import MethodSettings
from .recipe import PolicyRecipe, RecipeError

# Tokens of a close text that is not known yet; Qwen3's, one of the longest, has 24.
_CLOSE = 32


def check_processes(recipe: PolicyRecipe, world: int) -> None:
    """Each of `world` processes must get whole groups of every update, and validation problems."""
    prompts, plan = recipe.rollouts.prompts, recipe.optimisation
    if prompts % (plan.updates * world):
        raise RecipeError(
            f"rollouts.prompts = {prompts} must be a multiple of optimisation.updates x processes "
            f"= {plan.updates} x {world}: every process learns from whole groups in every update"
        )
    rows = prompts // plan.updates // world * recipe.method.group_size
    if plan.micro_batches > rows:
        raise RecipeError(
            f"optimisation.micro_batches = {plan.micro_batches} must be at most the {rows} rows "
            f"that each of {world} processes has in an update"
        )
    if recipe.validation.problems < world:
        raise RecipeError(f"validation.problems must be at least the {world} processes")


def hint_tokens(method: MethodSettings, tokenizer: HFTokenizer | None = None) -> int:
    """Most tokens of a budget's hint; without a tokenizer an estimate of two per word."""
    if tokenizer is None:
        return max((2 * len(hint.split()) for hint in method.hints), default=0)
    return max((len(tokenizer.encode(hint)) for hint in method.hints), default=0)


def beside_prompt(recipe: PolicyRecipe, checkpoint: Checkpoint | None = None) -> tuple[int, str]:
    """Most tokens that may follow a prompt, and the field that decides them.

    They are those of a rollout, of a probe or of a validation; estimated without a checkpoint.
    """
    method, watched = recipe.method, recipe.validation
    hint = hint_tokens(method, None if checkpoint is None else checkpoint.tokenizer)
    form = None if checkpoint is None else checkpoint.compiled
    close = _CLOSE if form is None else len(form.close.ids)
    probe = close + method.probe_tokens if method.probe_tokens else 0
    own = "method.budgets" if method.branches else "method.longest"
    terms = [(method.longest + hint + max(method.branch_tokens, probe), own)]
    if watched.longest is not None:
        terms.append((watched.longest + hint, "validation.longest"))
    if watched.budgets:
        terms.append((watched.budgets[-1] + close + watched.answer_tokens, "validation.budgets"))
    return max(terms, key=lambda term: term[0])


def room_for_prompt(
    recipe: PolicyRecipe, positions: int | None, checkpoint: Checkpoint | None = None
) -> int | None:
    """Tokens that the base's positions leave for a prompt; None where they are unknown."""
    if positions is None:
        return None
    given = recipe.rollouts.longest_prompt
    beside, field = beside_prompt(recipe, checkpoint)
    if positions - beside < (given or 1):
        both = "" if given is None else f" behind prompts of {given}"
        remedy = "lower it" if given is None else "lower it, or rollouts.longest_prompt"
        raise RecipeError(
            f"{field}: the {beside} tokens that it allows{both} do not fit the {positions} "
            f"positions of {recipe.base}: {remedy}"
        )
    return positions - beside


def adapted(recipe: PolicyRecipe, model: Any) -> list[Any]:
    """The linear modules that LoRA adapts; `model` may lie on the meta device."""
    import torch

    assert recipe.lora is not None
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    targets = recipe.lora.target_modules
    if targets == "all-linear":
        return list(linear.values())
    known = sorted({name.rpartition(".")[2] for name in linear})
    if unknown := [target for target in targets if target not in known]:
        raise RecipeError(
            f"lora.target_modules: {recipe.base} has no {', '.join(unknown)}: name some of "
            f"{', '.join(known)}, or all-linear"
        )
    return [m for name, m in linear.items() if name.rpartition(".")[2] in targets]


def check_trackers(recipe: PolicyRecipe) -> None:
    """Every tracker must be known, and installed."""
    from ..engines.trackers import missing

    try:
        lacking = missing(recipe.report_to)
    except ValueError as error:
        raise RecipeError(f"report_to: {error}") from error
    if lacking:
        raise RecipeError(
            f"report_to: {lacking[0]} is not installed: pip install {lacking[0].replace('_', '-')}"
        )
