"""Calibrated curves by hand: what budgets give on tasks, as `ponder calibrate` would write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

from ponder.thought.contract import Contract
from ponder.thought.curve import AutoBudget, Calibration, Curves, Point

EPSILON = 0.01
Tasks = Mapping[str, Mapping[int, float]]
"""Accuracies by budget, by task; all tasks have the same budgets."""


def points(tasks: Tasks) -> tuple[Point, ...]:
    """The points of every task behind those of all together."""
    return tuple(
        Point(
            task=task,
            budget=budget,
            accuracy=accuracy,
            accuracy_low=max(0.0, accuracy - 0.05),
            accuracy_high=min(1.0, accuracy + 0.05),
            tokens=8.0 + (200.0 if budget < 0 else budget),
            n=400,
        )
        for task, curve in _all(tasks).items()
        for budget, accuracy in curve.items()
    )


def calibration(tasks: Tasks) -> Calibration:
    """`auto` is the least budget within a point of the best: as if nothing were uncertain."""
    return Calibration(
        epsilon=EPSILON,
        auto=tuple(_auto(task, curve) for task, curve in _all(tasks).items()),
        split=None,
        seeds=3,
        seed=0,
        temperature=1.0,
        versions={"ponder": "0"},
    )


def curves(tasks: Tasks) -> Curves:
    return Curves.of(points(tasks), calibration(tasks))


def calibrate(contract: Contract, tasks: Tasks) -> Contract:
    """A contract with these curves; with none where there are no tasks."""
    if not tasks:
        return replace(contract, budget_curve=(), calibration=None)
    return replace(contract, budget_curve=points(tasks), calibration=calibration(tasks))


def _all(tasks: Tasks) -> dict[str | None, Mapping[int, float]]:
    budgets = next(iter(tasks.values()))
    pooled = {budget: fmean(curve[budget] for curve in tasks.values()) for budget in budgets}
    return {None: pooled, **tasks}


def _auto(task: str | None, curve: Mapping[int, float]) -> AutoBudget:
    best = max(curve.values())
    at = next(budget for budget, accuracy in curve.items() if accuracy >= best - EPSILON)
    return AutoBudget(
        task=task,
        budget=at,
        best=next(budget for budget, accuracy in curve.items() if accuracy == best),
        accuracy=curve[at],
        tokens=50.0,
        best_accuracy=best,
        best_tokens=100.0,
        difference=curve[at] - best,
        difference_low=-0.008,
        difference_high=0.002,
        n=400,
        problems_sha256="0" * 64,
    )
