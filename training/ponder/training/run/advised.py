"""`ponder train METHOD --base … --tasks …`: defaults, scaled to samples of the base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from ponder.tasks.problems import FiniteTask, Task, at_most
from ponder.tasks.sources import find_tasks
from ponder.tasks.workers import VerifierPool

from ..base import Base
from ..method.hbpo import scaled_budgets
from ..method.presets import PRESETS
from .changes import changed
from .checks import hint_tokens
from .look import SAMPLES, Look, Seen, look
from .recipe import PolicyRecipe, RecipeError, recipe_from

HINT = "I will answer the question within {budget} tokens\n"
# The cap as a share of the mean natural response. HBPO's paper trains under .52 and .86 of it
# (arXiv 2507.15844, tables 1 and 2: 4,096 tokens against 7,921 and 4,744).
_CAP = 0.75
# Largest share of responses that the cap may cut off: without rewards nothing is learnt.
_CUT_OFF = 0.6
_FEW_PROBLEMS = 100


def is_method(name: str) -> bool:
    return name in PRESETS


def advised(
    method: str, base: str, tasks: Sequence[str], seed: int, changes: Sequence[str]
) -> tuple[dict[str, Any], Look, list[str]]:
    """A recipe as YAML's data, the look from which it follows, and warnings in sentences.

    `changes` (`--set`) apply to the recipe, and to the way the base is sampled. Raises
    `RecipeError`.
    """
    try:
        found = find_tasks(tasks)
    except ValueError as error:
        raise RecipeError(f"tasks: {error}") from error
    name = f"{method}-{Path(base).name}"
    asked = {"name": name, "seed": seed, "base": base, "tasks": list(tasks)}
    held = _held(found)
    plain = {**_rest(method, 64, 1, held), "method": {"method": method}}
    tried = recipe_from({**asked, **plain}, method, changes)
    assert isinstance(tried, PolicyRecipe)

    def hints(mean: int) -> tuple[str, tuple[int, ...]] | None:
        budgets = scaled_budgets(max(16, round(_CAP * mean)))
        return (HINT, (budgets[0], budgets[-1])) if method == "hbpo" else None

    with VerifierPool(tried.rollouts.verifiers) as pool:
        seen = look(tried, found, pool.judge, hints)
    room = _room(seen, tried)
    longest = min(room, max(round(_CAP * seen.mean), seen.length(1 - _CUT_OFF), 16))
    raw = {**asked, **_rest(method, longest, seen.parameters, held)}
    _fit(raw, method, longest, seen, room=room, tried=tried)
    raw = changed(raw, changes)
    own = recipe_from(raw, method)
    assert isinstance(own, PolicyRecipe)
    return raw, seen, list(_warnings(method, own.method.longest, seen, found))


def _held(tasks: Sequence[Task]) -> int:
    """Number of problems of a validation: all that there are, up to 128."""
    held = len(at_most(tasks, 128, "validation", 1))
    if not held:
        raise RecipeError(
            "tasks: none of the problems is kept for validation (a tenth is, by a hash): add some"
        )
    return held


def _rest(method: str, longest: int, parameters: int, held: int) -> dict[str, Any]:
    """The recipe's sections apart from base and tasks; `longest` are a response's tokens."""
    gpu, large = torch.cuda.is_available(), parameters > 200_000_000
    steps, prompts = (300, 64) if gpu else (100, 16)
    optimisation: dict[str, Any] = {
        "steps": steps,
        "updates": 2 if method == "brpo" else 4,
        "tokens_per_pass": max(16384 if gpu else 8192, longest),
        "learning_rate": 1e-6 if large else 1e-5,
        "warmup_updates": 20,
    }
    if gpu and large:
        optimisation |= {"precision": "bfloat16", "gradient_checkpointing": True}
    return {
        "method": {"method": method, **_method(method, longest)},
        "rollouts": {"prompts": prompts, "cache_gib": 16.0 if gpu else 4.0},
        "optimisation": optimisation,
        "validation": {"every": steps // 10, "problems": held},
        "checkpoints": {"every": steps // 10},
    }


def _method(method: str, longest: int) -> dict[str, Any]:
    match method:
        case "hbpo":
            told = {"hint": HINT, "count_hint": False, "loss_on_hint": False}
            return {"longest": longest, **told}
        case "brpo":
            quarters = [max(8, longest * part // 4) for part in (1, 2, 3, 4)]
            return {"budgets": sorted(set(quarters))}
        case "dapo" | "htpo":
            return {"longest": longest, "generation_batches": 4}
    return {"longest": longest}


def _room(seen: Look, tried: PolicyRecipe) -> int:
    """Tokens left for a response behind a hint and prompts twice as long as those seen."""
    hint = hint_tokens(tried.method, Base.find(tried).checkpoint.tokenizer)
    return max(16, seen.room - hint - seen.prompt)


def _fit(
    raw: dict[str, Any], method: str, longest: int, seen: Look, *, room: int, tried: PolicyRecipe
) -> None:
    """Adjust methods whose scale is not the cap: BRPO cuts whole thoughts, DAPO and HTPO penalise
    the longest responses alone.
    """
    free = min(room, max(longest, round(1.25 * seen.length(1.0))))
    settings = raw["method"]
    if method == "brpo":
        settings |= _method(method, round(seen.thinking))
        summary = max(32, 2 * seen.answer)
        settings["summary_tokens"] = 16 * -(-summary // 16) + _closing(tried)
    elif method in ("dapo", "htpo"):
        settings |= _method(method, min(room, seen.length(0.95)))
    raw["validation"]["longest"] = free


def _closing(recipe: PolicyRecipe) -> int:
    """Tokens of the close text, which count as a summary's."""
    return len(Base.find(recipe).reader(recipe).form.close.ids)


def _warnings(method: str, longest: int, seen: Look, tasks: Sequence[Task]) -> Iterator[str]:
    """Sentences on why this setting cannot work, each with a remedy."""
    question, reference, said = seen.shown
    if seen.unfinished == 1:
        yield (
            f"no thought ended and was answered within {seen.longest:,} tokens, so nothing can be "
            f"rewarded: does this base think like this: {said[-60:]!r}?"
        )
    elif seen.accuracy <= 0.02:
        yield (
            f"{seen.accuracy:.0%} of the answers are right, and groups without a right one teach "
            "nothing: take easier problems, an instruction, or another verifier; "
            f"{question[:80]!r} has the answer {reference[:40]!r}, and the base wrote {said[:80]!r}"
        )
    if seen.accuracy >= 0.98 and method in ("grpo", "dapo", "htpo"):
        yield (
            f"{seen.accuracy:.0%} of the answers are right, so {method} has next to nothing to "
            "learn: take harder problems, or hbpo or length-penalty for shorter thoughts"
        )
    if 0.3 < seen.unfinished < 1:
        yield (
            f"{seen.unfinished:.0%} of the responses did not end within {seen.longest:,} tokens: "
            "the natural length is an underestimate, and so is the cap"
        )
    if seen.thinking < 32:
        yield f"thoughts have {seen.thinking:.0f} tokens on average: there is little to shorten"
    if method in ("grpo", "hbpo", "length-penalty") and seen.beyond(longest) > 0.75:
        yield (
            f"{seen.beyond(longest):.0%} of the responses are longer than method.longest = "
            f"{longest:,}: few are rewarded; raise it"
        )
    if (ratio := seen.obedience) is not None and ratio > 1.3:
        yield (
            f"the base already thinks {ratio:.1f} times as long under the largest hint as under "
            "the smallest: where hints are obeyed HBPO's reward is flat, and length-penalty saves "
            "more"
        )
    elif seen.hinted and _thinking(seen.hinted[max(seen.hinted)]) < 0.7 * seen.thinking:
        yield (
            "with a budget hint the base thinks "
            f"{_thinking(seen.hinted[max(seen.hinted)]):,.0f} tokens, without one "
            f"{seen.thinking:,.0f}: HBPO trains thoughts with hints, and the others follow slowly; "
            "length-penalty trains thoughts without hints"
        )
    listed = [task for task in tasks if isinstance(task, FiniteTask)]
    if len(listed) == len(tasks):
        known = sum(len(t.problems(level, "train")) for t in listed for level in t.difficulties)
        if known < _FEW_PROBLEMS:
            yield f"{known} problems to train on will be learnt by heart: add some"


def _thinking(seen: Sequence[Seen]) -> float:
    return fmean(it.thinking for it in seen)


def told(seen: Look) -> Iterator[str]:
    """The measurements of a look, in sentences."""
    yield (
        f"{len(seen.natural) // SAMPLES} problems x {SAMPLES}: {seen.accuracy:.0%} right, "
        f"{seen.thinking:,.0f} tokens of thought and {seen.mean:,.0f} in all on average, "
        f"{seen.unfinished:.0%} without an end within {seen.longest:,}"
    )
    for budget, under in sorted(seen.hinted.items()):
        yield (
            f"hint of {budget:,} tokens: {_thinking(under):,.0f} of thought, "
            f"{fmean(it.correct for it in under):.0%} right"
        )


def as_yaml(raw: dict[str, Any], lines: Sequence[str], warnings: Sequence[str]) -> str:
    """The text of the recipe's file, headed by a comment with the measurements and warnings."""
    import yaml

    head = [f"{raw['method']['method']} on {raw['base']}, scaled by a look at the base:", *lines]
    head += [f"warning: {warning}" for warning in warnings]
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return "".join(f"# {line}\n" for line in head) + text
