"""Budget curves from measured problems, and the budget of `auto`.

A task's problems are split into two halves. The first half makes the curve and chooses the budget;
the second reports the choice's accuracy on problems that the choice did not see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ponder.thought.curve import AutoBudget, Point, free_last

from .evaluate import Sample
from .intervals import Estimate, combined, paired, share

EPSILON = 0.01
"""How far `auto` may be below the best accuracy: one point."""
ENOUGH = 276
"""Problems that suffice to prove a budget without any loss within a point of the best."""


@dataclass(frozen=True, slots=True)
class Row:
    """One problem under every budget: its share of right answers and its mean tokens, by budget.

    `tokens` counts all tokens of a reply. The means are over `seeds` thoughts.
    """

    problem: str
    shares: Mapping[int, float]
    tokens: Mapping[int, float]
    seeds: int


Half = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Measured:
    """A task's problems: the choosing half and the reporting half."""

    choosing: Half
    reporting: Half
    problems_sha256: str


def rows(samples: Iterable[Sample]) -> list[Row]:
    """A row per problem, in order of first appearance."""
    groups: dict[str, dict[int, list[Sample]]] = {}
    for sample in samples:
        by_budget = groups.setdefault(sample.problem.id, {})
        by_budget.setdefault(sample.condition.cut, []).append(sample)
    return [
        Row(
            problem,
            {budget: fmean(s.correct for s in of) for budget, of in by_budget.items()},
            {
                budget: fmean(s.completion_tokens or 0 for s in of)
                for budget, of in by_budget.items()
            },
            len(next(iter(by_budget.values()))),
        )
        for problem, by_budget in groups.items()
    ]


def points(task: str | None, tasks: Sequence[Half]) -> list[Point]:
    """The curve of a task, or of several with the same weight, by ascending budget."""
    return [_point(task, budget, tasks) for budget in _budgets(tasks)]


def auto(task: str | None, tasks: Sequence[Measured], epsilon: float = EPSILON) -> AutoBudget:
    """The budget that takes the fewest tokens of those that are, at 95 %, no more than `epsilon`
    below the best, and its report.

    The best is the least budget with the highest accuracy. Another budget qualifies where the 95 %
    interval of its paired difference to the best stays above -`epsilon`. Tokens are those of whole
    replies: a model that its hints make think longer may take the fewest without a limit.
    """
    choosing = [each.choosing for each in tasks]
    budgets = _budgets(choosing)
    best = max(budgets, key=lambda budget: _accuracy(choosing, budget).mean)  # the first of equals
    near = [b for b in budgets if b == best or _difference(choosing, b, best).low >= -epsilon]
    chosen = min(near, key=lambda budget: _tokens(choosing, budget))  # the first of equals
    reporting = [each.reporting for each in tasks]
    told = _difference(reporting, chosen, best)
    return AutoBudget(
        task=task,
        budget=chosen,
        best=best,
        accuracy=round(_accuracy(reporting, chosen).mean, 4),
        tokens=_tokens(reporting, chosen),
        best_accuracy=round(_accuracy(reporting, best).mean, 4),
        best_tokens=_tokens(reporting, best),
        difference=round(told.mean, 4),
        difference_low=round(told.low, 4),
        difference_high=round(told.high, 4),
        n=sum(map(len, reporting)),
        problems_sha256=_digest([each.problems_sha256 for each in tasks]),
    )


def _point(task: str | None, budget: int, tasks: Sequence[Half]) -> Point:
    accuracy = _accuracy(tasks, budget)
    return Point(
        task=task,
        budget=budget,
        accuracy=round(accuracy.mean, 4),
        accuracy_low=round(max(0.0, accuracy.low), 4),
        accuracy_high=round(min(1.0, accuracy.high), 4),
        tokens=_tokens(tasks, budget),
        n=sum(map(len, tasks)),
    )


def _budgets(tasks: Sequence[Half]) -> list[int]:
    return sorted(tasks[0][0].shares, key=free_last)


def _accuracy(tasks: Sequence[Half], budget: int) -> Estimate:
    return combined(
        [
            share([row.shares[budget] for row in half], sum(row.seeds for row in half))
            for half in tasks
        ]
    )


def _tokens(tasks: Sequence[Half], budget: int) -> float:
    return round(fmean(fmean(row.tokens[budget] for row in half) for half in tasks), 1)


def _digest(digests: Sequence[str]) -> str:
    """The hash of a task's problems, or of several tasks' hashes."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _difference(tasks: Sequence[Half], budget: int, best: int) -> Estimate:
    return paired([[row.shares[budget] - row.shares[best] for row in half] for half in tasks])
