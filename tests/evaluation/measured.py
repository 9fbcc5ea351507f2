"""A responder that needs no model, and what an evaluation with it measures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ponder.evaluation.evaluate import MODES, Sample, conditions_of, evaluate
from ponder.evaluation.protocol import Ask, Mode, Reply, Subject
from ponder.tasks.problems import held_out
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.workers import VerifierPool

PROBLEMS = held_out(TINY_TASKS, 35, "test", seed=0)


class Oracle:
    """Right when it may think ten tokens per difficulty; a hint adds a tenth of its number."""

    def __init__(self, *, reports_tokens: bool = True) -> None:
        self.known = {problem.question: problem for problem in PROBLEMS}
        self.asked: list[Ask] = []
        self.reports_tokens = reports_tokens

    async def subject(self) -> Subject:
        return Subject("oracle", (40, 80), "c0de")

    async def answer(
        self, asks: Sequence[Ask], advance: Callable[[int], object]
    ) -> list[list[Reply]]:
        self.asked += asks
        advance(sum(len(ask.budgets) for ask in asks))
        return [[self.reply(ask, budget) for budget in ask.budgets] for ask in asks]

    def reply(self, ask: Ask, budget: int) -> Reply:
        problem = self.known[ask.question]
        needed = 10 * problem.difficulty + (ask.hint // 10 if isinstance(ask.hint, int) else 0)
        whole = budget < 0 or needed <= budget
        tokens = needed if whole else budget
        return Reply(
            f"The answer is {problem.answer if whole else -1}.",
            tokens if self.reports_tokens else None,
            "natural" if whole else "budget",
        )

    async def close(self) -> None:
        return


def measure(
    oracle: Oracle, modes: Sequence[Mode] = MODES, budgets: Sequence[int] = (0, 20, 40, -1)
) -> list[Sample]:
    """Two samples of every problem under every condition."""
    subject = asyncio.run(oracle.subject())
    return asyncio.run(
        evaluate(
            oracle,
            PROBLEMS,
            pool=VerifierPool(),
            conditions=conditions_of(modes, budgets, subject),
            samples=2,
            seed=4,
            advance=lambda _: None,
        )
    )
