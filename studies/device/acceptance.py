"""How a cold start thinks under each hint and without one, on validation problems.

A cold start that reads hints without obeying them has about the same length under all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import ModelFiles
from ponder.tasks.problems import held_out
from ponder.tasks.sources import find_tasks
from ponder.tasks.workers import VerifierPool
from ponder.training.rollout.plans import Hint, Reader, Response, hinted
from ponder.training.rollout.sampler import sample


def acceptance(
    base: Path,
    tasks: Sequence[str],
    budgets: Sequence[int],
    hint: str,
    *,
    problems: int = 256,
    longest: int = 1536,
) -> dict[str, Any]:
    """Tokens of thought and shares of right and truncated answers, by budget and by family.

    `hint` has a place `{budget}`. Temperature 1, one response a problem and hint.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = model.to(device).eval()
    reader = Reader(Checkpoint.load(ModelFiles.find(str(base))))
    asked = [reader.prompt(p, p.id) for p in held_out(find_tasks(tasks), problems, "validation", 1)]
    encode = reader.tokenizer.encode
    hints: list[Hint] = [(None, ())]
    hints += [(b, tuple(encode(hint.format(budget=b)))) for b in budgets]

    def sampler(
        prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        return sample(model, prompts, noise_BT, stop_ids=stop_ids)

    responses = hinted(asked, hints, longest, sampler, reader)
    with VerifierPool(8) as pool:
        verdicts = pool.judge([(r.prompt.problem, r.answer) for r in responses])
    right = [v.correct and r.formatted for v, r in zip(verdicts, responses, strict=True)]
    pairs = list(zip(responses, right, strict=True))
    found: dict[str, Any] = {
        str(budget or "natural"): _figures([(r, ok) for r, ok in pairs if r.budget == budget])
        for budget, _ in hints
    }
    families = sorted({prompt.problem.family for prompt in asked})
    found["families"] = {
        family: _figures(
            [(r, ok) for r, ok in pairs if r.budget is None and r.prompt.problem.family == family]
        )
        for family in families
    }
    return found


def _figures(pairs: Sequence[tuple[Response, bool]]) -> dict[str, float]:
    tokens = sorted(response.thinking_tokens for response, _ in pairs)
    return {
        "responses": len(pairs),
        "tokens": round(fmean(tokens), 1),
        "median": float(median(tokens)),
        "p90": float(tokens[int(0.9 * (len(tokens) - 1))]),
        "right": round(fmean(ok for _, ok in pairs), 3),
        "truncated": round(fmean(not response.formatted for response, _ in pairs), 3),
    }
