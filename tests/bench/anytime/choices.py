"""Caps that are chosen anew for each task, as `auto` is, and for each prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ponder.evaluation.curves import Row
from ponder.evaluation.predictor import Embed, Example, LogisticPredictor, budgets
from ponder.tasks.problems import Problem

from .arms import FREE, Arm
from .findings import cheapest
from .rows import Answers


def by_task(problems: Sequence[Problem], caps: Mapping[Arm, Answers]) -> dict[str, Arm]:
    """The cheapest cap of each task.

    Calibration's own rule wants a point to hold at 95 %, for which it needs several hundred
    problems of a task; here every choice is made by the same rule.
    """
    found = {}
    for task in sorted({problem.family for problem in problems}):
        mine = [place for place, problem in enumerate(problems) if problem.family == task]
        of_task = {arm: answers.of(mine) for arm, answers in caps.items()}
        found[task] = cheapest(of_task, of_task[FREE])
    return found


def by_prompt(
    known: Sequence[Problem],
    asked: Sequence[Problem],
    caps: Mapping[Arm, Answers],
    usual: Arm,
    embed: Embed,
) -> tuple[float, list[Arm]] | None:
    """A margin, and the cap of every problem that is `asked`, predicted from those that are
    `known` under `caps`; None where no margin is safe beside the `usual` cap.
    """
    history = [
        Example(
            problem.question,
            Row(
                problem.id,
                {arm.budget: float(of.correct_PS[place].mean()) for arm, of in caps.items()},
                {arm.budget: float(of.tokens_PS[place].mean()) for arm, of in caps.items()},
                seeds=len(caps[usual].correct_PS[place]),
            ),
        )
        for place, problem in enumerate(known)
    ]
    prompts = [problem.question for problem in asked]
    found = budgets(history, prompts, usual.budget, LogisticPredictor(embed))
    if found is None:
        return None
    by_budget = {arm.budget: arm for arm in caps}
    return found[0], [by_budget[budget] for budget in found[1]]
