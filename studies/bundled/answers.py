"""A checkpoint's answers under every budget, all tokens of a reply counted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import ModelFiles
from ponder.evaluation.bars import AnswerBar
from ponder.evaluation.curves import rows
from ponder.evaluation.evaluate import conditions_of, distinct, evaluate
from ponder.evaluation.protocol import Mode
from ponder.evaluation.responders.local import LocalResponder
from ponder.tasks.problems import Split, at_most
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.workers import VerifierPool
from ponder.thought.budget import UNLIMITED

BUDGETS = (0, 16, 32, 64, 100, 150, 200, UNLIMITED)
PROBLEMS = 1000
_SEED = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """By problem, in their order: 1 for a right answer, else 0, and all tokens of the reply."""

    right: list[int]
    tokens: list[int]


Measured = Mapping[str, Mapping[int, Answers]]
"""Answers by mode (truncated: the cut alone; served: a server's hint and cut) and budget."""


def measure(directory: Path, split: Split, modes: Sequence[Mode]) -> Measured:
    """Ask the checkpoint for answers to held-out problems of the tiny families, on vLLM.

    The problems and the noise are the same for every checkpoint. A hint's tokens count.
    """
    with VerifierPool() as pool:
        return asyncio.run(_measure(directory, split, modes, pool))


async def _measure(
    directory: Path, split: Split, modes: Sequence[Mode], pool: VerifierPool
) -> Measured:
    responder = LocalResponder.on_vllm(directory)
    try:
        conditions = conditions_of(modes, BUDGETS, await responder.subject())
        problems = at_most(TINY_TASKS, PROBLEMS, split, _SEED)
        with AnswerBar(PROBLEMS * distinct(conditions)) as bar:
            samples = await evaluate(
                responder,
                problems,
                pool=pool,
                conditions=conditions,
                samples=1,
                seed=_SEED,
                advance=bar.advance,
            )
    finally:
        await responder.close()
    hints = _hint_tokens(directory)
    found: dict[str, dict[int, Answers]] = {}
    for mode in modes:
        by_problem = rows(sample for sample in samples if sample.condition.mode == mode)
        found[mode] = {
            budget: Answers(
                [round(row.shares[budget]) for row in by_problem],
                [round(row.tokens[budget]) + (hints[budget] if mode == "served" else 0)
                 for row in by_problem],
            )
            for budget in BUDGETS
        }  # fmt: skip
    return found


def as_json(measured: Measured) -> dict[str, Any]:
    """The answers as JSON's types, `right` as a string of digits."""
    return {
        mode: {
            str(budget): {"right": "".join(map(str, answers.right)), "tokens": answers.tokens}
            for budget, answers in by_budget.items()
        }
        for mode, by_budget in measured.items()
    }


def from_json(stored: Mapping[str, Any]) -> Measured:
    """The answers that `as_json` wrote."""
    return {
        mode: {
            int(budget): Answers([int(digit) for digit in answers["right"]], answers["tokens"])
            for budget, answers in by_budget.items()
        }
        for mode, by_budget in stored.items()
    }


def _hint_tokens(directory: Path) -> dict[int, int]:
    """The tokens of the hint that a server gives under each budget."""
    compiled = Checkpoint.load(ModelFiles.find(str(directory))).compiled
    assert compiled is not None  # a checkpoint of this repository thinks
    hints = {budget: compiled.hint(budget) for budget in BUDGETS}
    return {budget: len(hint.ids) if hint else 0 for budget, hint in hints.items()}
