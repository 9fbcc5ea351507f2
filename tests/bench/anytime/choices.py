"""Budgets that are chosen among the measured caps: by task, as `auto` is, and by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ponder.evaluation.curves import Measured, Row, auto
from ponder.evaluation.predictor import Embed, Example, LogisticPredictor, budgets

from .arms import Arm
from .measure import SPLITS, Asking
from .rows import Half, Rows

Chosen = Mapping[Half, Sequence[str]]
"""The cap of every problem, in the order of the problems."""


def by_task(asking: Asking, caps: Sequence[Arm], found: Rows) -> tuple[Chosen, dict[str, int]]:
    """What `auto` would be, by calibration's own rule; and its budget by task."""
    measured = _measured(asking, caps, found)
    chosen = {task: auto(task, [each]).budget for task, each in measured.items()}
    names = {arm.budget: arm.name for arm in caps}
    return {
        half: [names[chosen[problem.family]] for problem in asking.problems[half]]
        for half in SPLITS
    }, chosen


def by_prompt(
    asking: Asking, caps: Sequence[Arm], found: Rows, embed: Embed
) -> tuple[Chosen, dict[str, float | None]]:
    """A predictor's budgets for the prompts that report, and its margin by task.

    Where no margin is safe, and on the half that it learns from, they are the task's `auto`.
    """
    chosen, autos = by_task(asking, caps, found)
    names = {arm.budget: arm.name for arm in caps}
    reporting = list(chosen["reporting"])
    margins: dict[str, float | None] = {}
    for task, measured in _measured(asking, caps, found).items():
        questions = {problem.id: problem.question for problem in asking.problems["choosing"]}
        history = [Example(questions[row.problem], row) for row in measured.choosing]
        mine = [
            (place, problem.question)
            for place, problem in enumerate(asking.problems["reporting"])
            if problem.family == task
        ]
        prompts = [question for _, question in mine]
        safe = budgets(history, prompts, autos[task], LogisticPredictor(embed))
        margins[task] = None
        if safe is not None:
            margins[task], taken = safe
            for (place, _), budget in zip(mine, taken, strict=True):
                reporting[place] = names[budget]
    return {"choosing": chosen["choosing"], "reporting": reporting}, margins


def _measured(asking: Asking, caps: Sequence[Arm], found: Rows) -> dict[str, Measured]:
    """Every task's problems under every cap."""
    halves: dict[str, dict[Half, list[Row]]] = {}
    for half, problems in asking.problems.items():
        by_cap = {
            arm.budget: found.answers(half, [arm.name] * len(problems), problems, asking.seeds)
            for arm in caps
        }
        for place, problem in enumerate(problems):
            row = Row(
                problem.id,
                {b: float(of.correct_PS[place].mean()) for b, of in by_cap.items()},
                {b: float(of.tokens_PS[place].mean()) for b, of in by_cap.items()},
                asking.seeds,
            )
            of_task = halves.setdefault(problem.family, {"choosing": [], "reporting": []})
            of_task[half].append(row)
    return {task: Measured(of["choosing"], of["reporting"], "") for task, of in halves.items()}
