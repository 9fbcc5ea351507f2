"""The calibrated budget curve: what each budget gives on each task, and which budget to take.

`ponder calibrate` measures it and writes it into the contract; serving reads efforts and `auto`
from it. Pure arithmetic on what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar, get_type_hints

from ponder.thought.budget import EFFORT_TOKENS, UNLIMITED

EFFORT_GAINS = {"minimal": 0.1, "low": 0.25, "medium": 0.5, "high": 0.75, "xhigh": 0.9, "max": 1.0}
"""The share of thinking's gain in accuracy that an effort should reach; `none` is no thought."""

_ROUNDING = 1e-9

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One budget on one task: the mean accuracy with its 95 % interval, and what it cost.

    `task` is None for all tasks together, each with the same weight. `budget` is in thinking
    tokens, -1 for no limit. Accuracies are from 0 to 1. `tokens` is the mean of all tokens of a
    reply: thinking, forced, answer and retry. `n` counts problems. Raises `ValueError`.
    """

    task: str | None
    budget: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    tokens: float
    n: int

    def __post_init__(self) -> None:
        if self.budget < UNLIMITED:
            raise ValueError(f"budget {self.budget} must be a number of tokens, or -1 for no limit")
        if not 0 <= self.accuracy_low <= self.accuracy <= self.accuracy_high <= 1:
            raise ValueError("accuracy_low, accuracy and accuracy_high must ascend from 0 to 1")
        if self.tokens < 0 or self.n < 1:
            raise ValueError("tokens must be at least 0, and n at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoBudget:
    """The budget of `auto`: chosen on one half of a task's problems, measured on the other.

    `best` is the budget with the highest accuracy on the first half. On the second, `accuracy` and
    `tokens` are what `budget` gives, `best_accuracy` and `best_tokens` what `best` gives, and
    `difference` is the paired difference of the accuracies, with its 95 % interval, over `n`
    problems. `problems_sha256` is the hash of the problems of both halves.
    """

    task: str | None
    budget: int
    best: int
    accuracy: float
    tokens: float
    best_accuracy: float
    best_tokens: float
    difference: float
    difference_low: float
    difference_high: float
    n: int
    problems_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How a curve was measured, and the budgets of `auto` that follow from it.

    `epsilon` is how far below the best accuracy a budget may be, from 0 to 1, at 95 % confidence.
    `split` is the split that the problems came from, None for the one of `ponder eval`. `seeds`
    counts the thoughts per problem; `seed` is the first of them, and draws the problems. `versions`
    are those of the packages that measured.
    """

    epsilon: float
    auto: tuple[AutoBudget, ...]
    split: str | None
    seeds: int
    seed: int
    temperature: float
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Curve:
    """One task's points, by ascending budget from 0, with -1 last; `auto` is one of their budgets.

    >>> at = dict(task=None, accuracy_low=0.0, accuracy_high=1.0, tokens=9.0, n=100)
    >>> shares = {0: 0.1, 64: 0.6, 128: 0.9, -1: 0.9}
    >>> points = [Point(budget=b, accuracy=a, **at) for b, a in shares.items()]
    >>> curve = Curve(tuple(points), 128, 0.01)
    >>> curve.effort("none"), curve.effort("medium"), curve.effort("max")
    (0, 64, 128)
    """

    points: tuple[Point, ...]
    auto: int
    epsilon: float

    def effort(self, level: str) -> int:
        """The budget of an effort: the least that reaches its share of what thinking gains.

        What thinking gains is the best accuracy less the accuracy without a thought. No effort
        needs more than the best less `epsilon`: where thinking gains no more, all are 0.
        """
        if level == "none":
            return 0
        without, best = self.points[0].accuracy, max(point.accuracy for point in self.points)
        wanted = min(without + EFFORT_GAINS[level] * (best - without), best - self.epsilon)
        return next(p.budget for p in self.points if p.accuracy >= wanted - _ROUNDING)

    @property
    def efforts(self) -> dict[str, int]:
        """Every effort's budget, in the order of the efforts."""
        return {level: self.effort(level) for level in EFFORT_TOKENS}


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of a checkpoint, by task, and the one of all tasks together."""

    tasks: Mapping[str, Curve]
    pooled: Curve

    @classmethod
    def of(cls, points: Sequence[Point], calibration: Calibration) -> Curves:
        """Raises `ValueError` where points and calibration do not belong together."""
        autos = {auto.task: auto for auto in calibration.auto}
        found: dict[str | None, Curve] = {}
        for task, group in groupby(points, key=lambda point: point.task):
            name = "all tasks (null)" if task is None else f"the task {task!r}"
            curve = tuple(group)
            budgets = [point.budget for point in curve]
            if task in found:
                raise ValueError(f"the points of {name} must stand together")
            if budgets[0] != 0 or budgets != sorted(set(budgets), key=free_last):
                raise ValueError(f"{name} must have ascending budgets from 0, with -1 last")
            auto = autos.get(task)
            if auto is None or not {auto.budget, auto.best} <= set(budgets):
                raise ValueError(f"{name} must have two of its budgets in calibration.auto")
            found[task] = Curve(curve, auto.budget, calibration.epsilon)
        if None not in found:
            raise ValueError("all tasks together (null) must have points")
        if autos.keys() != found.keys() or len(autos) != len(calibration.auto):
            raise ValueError("calibration.auto must name each of their tasks once")
        return cls({task: at for task, at in found.items() if task is not None}, found[None])

    def curve(self, task: str | None) -> Curve:
        """A task's curve, or that of all together for a task that was not calibrated."""
        return self.pooled if task is None else self.tasks.get(task, self.pooled)


def free_last(budget: int) -> tuple[bool, int]:
    """The order of budgets: no limit is the largest."""
    return budget == UNLIMITED, budget


def read_points(raw: Any) -> tuple[Point, ...]:
    """The points of a JSON list. Raises `ValueError`."""
    return tuple(_read(Point, entry, i) for i, entry in enumerate(_list(raw, "budget_curve")))


def read_calibration(raw: Any) -> Calibration:
    """The calibration of a JSON object. Raises `ValueError`."""
    if isinstance(raw, dict) and "auto" in raw:
        entries = _list(raw["auto"], "auto")
        raw = {**raw, "auto": tuple(_read(AutoBudget, entry, i) for i, entry in enumerate(entries))}
    found = _read(Calibration, raw)
    if not 0 <= found.epsilon < 1:
        raise ValueError("epsilon must be from 0 to below 1")
    return found


def _list(raw: Any, name: str) -> list[Any]:
    if not isinstance(raw, list):
        raise ValueError(f"{name} must be a list")
    return raw


def _read(kind: type[Record], raw: Any, place: int | None = None) -> Record:
    """A record out of JSON: exactly its fields, each of its type."""
    where = "" if place is None else f"entry {place}: "
    hints = get_type_hints(kind)
    if not isinstance(raw, dict) or raw.keys() != hints.keys():
        raise ValueError(f"{where}must be an object of {', '.join(hints)}")
    for name, hint in hints.items():
        holds, words = _TYPES[hint]
        if not holds(raw[name]):
            raise ValueError(f"{where}{name} must be {words}")
    try:
        return kind(**raw)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


_TYPES: Mapping[Any, tuple[Any, str]] = {
    int: (lambda value: type(value) is int, "a whole number"),
    float: (_number, "a number"),
    str: (lambda value: isinstance(value, str), "a string"),
    str | None: (lambda value: value is None or (isinstance(value, str) and value), "a name"),
    dict[str, str]: (_texts, "an object of strings"),
    tuple[AutoBudget, ...]: (lambda value: isinstance(value, tuple), "a list"),
}
